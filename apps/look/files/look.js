// Fetches the part of the page that an event names. Without this script the page is as it was when it was loaded.
new EventSource("events").onmessage = async ({ data }) => {
  const place = document.getElementById(data);
  if (!place || document.hidden) return;
  const response = await fetch("part/" + encodeURIComponent(data));
  if (response.ok) place.innerHTML = await response.text();
};
