"""An application that broadcasts: `/events` is an event stream, `/send` sends an event to every listener."""

from __future__ import annotations

from microwsgi import App, Request, Response
from microwsgi.events import Broadcaster

app = App()
channel = Broadcaster(name="benchmark")


@app.get("/events")
def events(request: Request) -> Response:
    return channel.listen(request)


@app.get("/send")
def send(request: Request) -> str:
    channel.send("news")
    return "sent"


@app.get("/")
def hello(request: Request) -> str:
    return "Hello, world!\n"
