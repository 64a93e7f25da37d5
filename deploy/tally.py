"""A counter that several hosts share: the number is in Redis, and browsers see it change by server-sent events."""

import json
import os
import socket

import redis
from webob import Response
from webob.exc import HTTPServiceUnavailable

from microwsgi import App
from microwsgi.events import Broadcaster

app = App()
news = Broadcaster(history=100)
store = redis.Redis.from_url(os.environ["EVENTS_REDIS_URL"], socket_timeout=1.0, socket_connect_timeout=1.0)
HOST = os.environ.get("TALLY_HOST") or socket.gethostname()
VERSION = os.environ.get("TALLY_VERSION", "1")
DRAINING = os.environ.get("TALLY_DRAINING", "/run/tally-draining")


def ask_store(command, *arguments):
    """Call Redis. A host that can't reach it answers 503, and the proxy sends a GET to the other host."""
    try:
        return getattr(store, command)(*arguments)
    except redis.RedisError as error:
        raise HTTPServiceUnavailable(f"The store does not answer: {error}") from error


@app.get("/")
def show(request):
    return {"count": int(ask_store("get", "tally") or 0), "host": HOST, "version": VERSION}


@app.post("/")
def add(request):
    count = ask_store("incr", "tally")
    news.send({"count": count, "host": HOST})
    return {"count": count, "host": HOST, "version": VERSION}


@app.get("/events")
def events(request):
    return news.listen(request)


@app.get("/ready")
def ready(request):
    """Whether the proxy may send requests here. While the file is there, no: the host is about to stop."""
    return Response(status=503 if os.path.exists(DRAINING) else 200)


def application(environ, start_response):
    """The application, with a record of each request that has the edge's number for it and the client's address."""
    if environ["PATH_INFO"] != "/ready":
        record = {
            "id": environ.get("HTTP_X_REQUEST_ID"),
            "client": environ.get("HTTP_X_FORWARDED_FOR", environ["REMOTE_ADDR"]),
            "request": f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}",
            "host": HOST,
        }
        environ["wsgi.errors"].write(json.dumps(record) + "\n")  # one write: records of several threads don't mix
        environ["wsgi.errors"].flush()
    return app(environ, start_response)
