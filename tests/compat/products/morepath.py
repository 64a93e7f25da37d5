"""Morepath: a page with a parameter, a form, errors."""

from pathlib import Path
from typing import Any

from tests.compat.client import Site

PACKAGES = ["morepath"]


def application(folder: Path) -> Any:
    import morepath

    class App(morepath.App):
        pass

    @App.path(path="")
    class Root:
        pass

    @App.path(path="/names/{name}")
    class Name:
        def __init__(self, name: str, times: int = 1) -> None:
            self.name, self.times = name, times

    @App.view(model=Root)
    def root(self: Root, request: Any) -> str:
        return "the root"

    @App.json(model=Name)
    def name(self: Name, request: Any) -> Any:
        return {
            "text": " ".join([self.name] * self.times),
            "link": request.link(self).removeprefix(request.application_url),
        }

    @App.view(model=Root, request_method="POST")
    def form(self: Root, request: Any) -> str:
        return f"{request.POST['a']} {request.POST['b']}"

    App.commit()
    return App()


def check_pages(site: Site) -> Any:
    page = site.seen("/")
    assert "the root" in str(page), page
    return [page, site.seen("/", "HEAD"), site.seen("/names/ä?times=3")]


def check_form(site: Site) -> Any:
    return site.seen("/", "POST", data={"a": "ä", "b": "1 & 2"})


def check_errors(site: Site) -> Any:
    missing = site.ask("/missing", "GET")
    assert missing.status_code == 404, missing.status_code
    return [site.seen("/missing"), site.seen("/names/a", "POST"), site.seen("/names/a?times=x")]
