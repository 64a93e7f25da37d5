// Fetches a section again when the server's tick has another version for it, and says when no tick comes any more.
// Without this script a page is as it was when it was loaded.
const versions = {}, base = document.body.dataset.base, lost = document.getElementById("lost");
let last = Date.now(), skew = 0, busy = false, title = document.title;

// Make `old` what `fresh` is, without replacing what is the same: scroll positions, focus and selections stay.
function patch(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) { if (old.data !== fresh.data) old.data = fresh.data; return; }
  if (old.nodeType !== Node.ELEMENT_NODE) return;
  if (old === document.activeElement && old.matches("input, select")) return;
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  patchChildren(old, fresh);
}

function patchChildren(old, fresh) {
  const ours = [...old.childNodes], theirs = [...fresh.childNodes];
  theirs.forEach((node, i) => i < ours.length ? patch(ours[i], node) : old.append(node));
  ours.slice(theirs.length).forEach(node => node.remove());
}

async function refresh(found) {
  for (const section of document.querySelectorAll("[data-part]")) {
    const part = section.dataset.part, name = decodeURIComponent(part.split("?")[0]);
    const version = found[name] ?? found["*"];
    if (version === undefined || versions[part] === version || document.hidden) continue;
    const response = await fetch(`${base}/part/${part}`);
    if (!response.ok) continue;
    const fresh = document.createElement("section");
    fresh.innerHTML = await response.text();
    patchChildren(section, fresh);
    versions[part] = version;
  }
}

function age(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.max(Math.floor(seconds), 0)} s`;
}

const time = at => new Date(at).toLocaleTimeString("en-GB");

new EventSource(`${base}/events`).onmessage = async ({ data }) => {
  const tick = JSON.parse(data);
  last = Date.now();
  skew = last - tick.now * 1000;
  if (busy) return;
  busy = true;
  try { await refresh(tick.versions); } catch { /* the next tick tries again */ } finally { busy = false; }
};

setInterval(() => {
  const silent = Date.now() - last > 2500;
  if (silent) lost.textContent = `No connection to the server since ${time(last)} (${age((Date.now() - last) / 1000)}). These figures are old.`;
  lost.hidden = !silent;
  document.body.classList.toggle("old", silent);
  document.title = silent ? `(no connection) ${title}` : title;
  const clock = document.querySelector(".clock time");
  if (!silent && clock) clock.textContent = time(Date.now());
  for (const each of document.querySelectorAll("time[data-age]")) {
    const at = each.getAttribute("datetime") * 1000 + skew;
    each.textContent = `${time(at)}, ${age((Date.now() - at) / 1000)} ago`;
  }
}, 500);
