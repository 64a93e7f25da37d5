"""Node's fetch: JSON, a streamed upload, a streamed download, 50 at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site
from tests.compat.products import framework

PACKAGES: list[str] = []
PROGRAMS = ["node"]
SCRIPT = """
const url = process.argv[2];
async function* pieces() { for (let i = 0; i < 50; i++) yield new Uint8Array(40000).fill(i); }
(async () => {
  const found = [];
  found.push(await (await fetch(url + "/echo/%C3%A4?q=1")).json());
  const headers = { "Content-Type": "application/json" };
  found.push(await (await fetch(url + "/json", { method: "POST", body: `{"a": 5}`, headers })).json());
  found.push(await (await fetch(url + "/body", { method: "POST", body: pieces(), duplex: "half" })).text());
  let length = 0;
  for await (const piece of (await fetch(url + "/stream")).body) length += piece.length;
  found.push(length);
  const form = new FormData(); form.set("a", "ä"); form.set("file", new Blob(["x".repeat(300000)]), "ü");
  found.push(await (await fetch(url + "/form", { method: "POST", body: form })).json());
  const many = await Promise.all(Array.from({ length: 50 }, (_, i) => fetch(url + "/static/small.bin?" + i)));
  found.push((await Promise.all(many.map(r => r.arrayBuffer()))).map(b => b.byteLength).every(n => n === 1000));
  console.log(JSON.stringify(found));
})();
"""


def application(folder: Path) -> Any:
    return framework.application(folder)


def check_fetch(site: Site) -> Any:
    import json

    (site.folder / "script.js").write_text(SCRIPT)
    return json.loads(site.run("node", "script.js", site.url))
