"""The server's clock: an event each second for any number of clients, without a thread for each.

`microwsgi serve apps.clock:app`, then a browser, or `curl -N localhost:8000/ticks`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from microwsgi import App, Request, Response, html
from microwsgi.events import Stream

PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Clock</title>
<link rel="icon" href="data:,">
<noscript><meta http-equiv="refresh" content="1"></noscript>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }}
body {{ margin: 10vh auto; text-align: center }}
svg {{ width: min(20rem, 80vw); stroke: currentColor; stroke-linecap: round; fill: none }}
time {{ display: block; margin-top: 1rem; font-size: 3rem; font-variant-numeric: tabular-nums }}
#seconds {{ stroke: #e0562c }} p {{ opacity: .7 }}
</style>
<svg viewBox="-52 -52 104 104" aria-hidden="true">
<circle r="50" stroke-width="2"/>
<circle r="43" stroke-width="5" pathLength="12" stroke-dasharray=".04 .96" stroke-linecap="butt" transform="rotate(-.6)"/>
<path id="hours" d="M0 6V-24" stroke-width="5" transform="rotate({hours})"/>
<path id="minutes" d="M0 6V-36" stroke-width="3" transform="rotate({minutes})"/>
<path id="seconds" d="M0 10V-40" transform="rotate({seconds})"/>
</svg>
<time>{time}</time>
<p>UTC, by the server's clock
<script>
new EventSource("{ticks}").onmessage = event => {{
  const {{ time, ...hands }} = JSON.parse(event.data)
  document.querySelector("time").textContent = time
  for (const hand in hands) document.getElementById(hand).setAttribute("transform", `rotate(${{hands[hand]}})`)
}}
</script>
"""

app = App()


def reading() -> dict[str, str | float]:
    """Return the time, and the angle of each hand."""
    now = datetime.now(UTC)
    minutes = now.minute * 6 + now.second / 10
    return {"time": f"{now:%T}", "hours": now.hour * 30 + minutes / 12, "minutes": minutes, "seconds": now.second * 6}


@app.get("/")
def page(request: Request) -> str:
    return html(PAGE, ticks=request.url_for("ticks"), **reading())


@app.get("/ticks")
def ticks(request: Request) -> Response:
    return Stream(request, poll=reading, every=1.0).response
