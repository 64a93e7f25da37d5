// Fetches the part of the page that an event names. Without this script the page is as it was when it was loaded.
const events = new EventSource("events");
events.addEventListener("part", async (event) => {
  const name = event.data;
  const place = document.getElementById(name);
  if (!place) return;
  const response = await fetch("part/" + encodeURIComponent(name));
  if (response.ok) place.innerHTML = await response.text();
});
