"""microwsgi/devtools/errorpage.py, and who is shown it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from microwsgi.devtools.errorpage import as_curl
from tests.programs import need, need_package
from tests.running import Running

PROGRAM = """
from microwsgi import App

app = App()


@app.get("/{name}")
def show(request, name):
    password, text = "2retnuh"[::-1], "<script>alert(1)</script>"
    return {"a": 1}[name] + text


def bare(environ, start_response):
    start_response("200 OK", [])
    raise ValueError("bare <b>")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "failing.py").write_text(PROGRAM)
    return tmp_path


def get(url: str, **fields: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    request = Request(url, headers={name.replace("_", "-"): value for name, value in fields.items()})  # noqa: S310
    try:
        urlopen(request)  # noqa: S310 - ours
    except HTTPError as error:
        with error:
            return error.code, error.headers.get_content_type(), error.read().decode()
    raise AssertionError


@pytest.mark.parametrize("application", ["failing:app", "failing:bare"])
def test_it_is_what_the_client_reads(application: str, folder: Path, command: Callable[..., Running]) -> None:
    running = command("serve", application, "--debug", "--port", "0", cwd=folder, MICROWSGI_EDITOR="x://{file}:{line}")
    url = running.url() + "/b"
    token = {"Microwsgi_Token": running.token()}
    said = "KeyError: &#x27;b&#x27;" if application == "failing:app" else "ValueError: bare &lt;b&gt;"
    status, kind, page = get(url, Accept="text/html,*/*;q=0.8", Cookie="id=hunter2", **token)
    assert (status, kind) == (500, "text/html")
    assert said in page
    assert "hunter2" not in page
    assert running.token() not in page
    assert "<script" not in page, "there is nothing to wait for without --reload"
    assert f'href="x://{folder}/failing.py:' in page
    assert "PoolThread.run" in page
    number = re.search("([0-9a-f]{8}) in the log", page)
    assert number
    running.line(rf"failed \({number[1]}\):")
    status, kind, text = get(url, **token)
    assert (status, kind) == (500, "text/plain")
    assert "failing.py:" in text
    status, kind, text = get(url, Accept="application/json", **token)
    assert (status, kind) == (500, "application/problem+json")
    assert json.loads(text)["status"] == 500


MISTAKES = """
import decimal
import json
from functools import wraps
from microwsgi import App, redirect

app = App()


def decorator(view):
    @wraps(view)
    def wrapper(*arguments, **values):
        return view(*arguments, **values)
    return wrapper


@app.get("/none")
@decorator
def forgotten(request):
    f"<p>{request.path}"


@app.get("/type")
def number(request):
    return 5


@app.get("/json")
def not_json(request):
    return {"a": decimal.Decimal(1)}


@app.get("/surrogate")
def surrogate(request):
    return "\\ud800"


@app.get("/status")
def status(request):
    return "", "fine"


@app.get("/library")
def library(request):
    return json.loads("{")


@app.get("/redirect")
def leave(request):
    return redirect("//evil.example")


@app.get("/deep")
def deep(request):
    return one(0)


def one(n):
    return two(n + 1)


def two(n):
    return one(n + 1)


@app.get("/syntax")
def syntax(request):
    import broken


class Plain:
    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/plain-none":
            return None
        start_response("200 OK", [])
        return "text" if environ["PATH_INFO"] == "/plain" else app(environ, start_response)


plain = Plain()
"""


def test_it_begins_with_the_file_and_line_of_the_users_code(tmp_path: Path, command: Callable[..., Running]) -> None:
    """Also where the view, or the application, has returned: then no frame of it is on the traceback."""
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    (tmp_path / "broken.py").write_text("def view(request):\n    return (1\n")
    lines = MISTAKES.splitlines()
    running = command("serve", "mistakes:plain", "--debug", "--port", "0", cwd=tmp_path)
    url = running.url()
    token = {"Microwsgi_Token": running.token()}
    rows = {  # the path: the line that is shown open, and its function
        "/none": ("def forgotten(request):", "forgotten"),
        "/type": ("def number(request):", "number"),
        "/json": ("def not_json(request):", "not_json"),
        "/surrogate": ("def surrogate(request):", "surrogate"),
        "/status": ("def status(request):", "status"),
        "/library": ('    return json.loads("{")', "library"),
        "/redirect": ('    return redirect("//evil.example")', "leave"),
        "/plain": ("    def __call__(self, environ, start_response):", "Plain.__call__"),
        "/plain-none": ("    def __call__(self, environ, start_response):", "Plain.__call__"),
    }
    wrong: list[tuple[str, ...]] = []
    for path, (line, function) in rows.items():
        location = f"mistakes.py:{lines.index(line) + 1}"
        _, _, text = get(url + path, **token)
        _, _, page = get(url + path, Accept="text/html", **token)
        first = re.search("<details.*?</details>", page, re.DOTALL)
        if not text.splitlines()[1].startswith(f"{location}, in {function}: "):
            wrong.append((path, text))
        if first is None or f"<b>{function}</b>" not in first[0] or f"{location} yours" not in first[0]:
            wrong.append((path, page))
        if re.search("# (type: ignore|noqa)", text + page) or "microwsgi/" in text.partition("\n\n")[2]:
            wrong.append((path, "our own lines", text))
    _, _, page = get(url + "/deep", Accept="text/html", **token)
    if page.count("<summary>") > 15 or page.count("<li ") > 20 or "the last 2 calls repeated" not in page:
        wrong.append(("/deep", page))
    _, _, page = get(url + "/syntax", Accept="text/html", **token)
    if "breakpoint()" in page or "return (1" not in page:
        wrong.append(("/syntax", page))
    assert wrong == []


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ((), {}),
        (("--debug",), {}),
        (("--debug",), {"Accept": "text/html"}),
        (("--debug",), {"Accept": "application/json", "Microwsgi_Token": "0" * 32, "Cookie": "microwsgi=1"}),
    ],
)
def test_all_others_are_told_a_number(
    options: tuple[str, ...], fields: dict[str, str], folder: Path, command: Callable[..., Running]
) -> None:
    running = command("serve", "failing:app", *options, "--port", "0", cwd=folder)
    status, _, text = get(running.url() + "/b", **fields)
    assert status == 500
    number = re.search(r"\(id ([0-9a-f]{8})\)", text)
    assert number
    assert "KeyError" not in text
    running.line(number[1])


def test_another_name_is_refused_before_that(folder: Path, command: Callable[..., Running]) -> None:
    url = command("serve", "failing:app", "--debug", "--port", "0", cwd=folder).url()
    status, _, text = get(url + "/b", Host="evil.example")
    assert status == 421
    assert "KeyError" not in text


def test_the_command_asks_for_the_same_without_secrets() -> None:
    environ = {
        "REQUEST_METHOD": "POST",
        "REQUEST_URI": "/a?b='c d'",
        "HTTP_HOST": "localhost:8000",
        "HTTP_X_A": "it's",
        "HTTP_COOKIE": "secret=1",
        "CONTENT_TYPE": "text/plain",
        "wsgi.url_scheme": "https",
    }
    command = as_curl(environ)
    assert command.startswith("curl -i -X POST -H 'Content-Type: text/plain'")
    assert "secret=1" not in command
    assert command.endswith("""'https://localhost:8000/a?b='"'"'c d'"'"''""")


def note(asked: list[str], request: Any) -> None:
    asked.append(request.url)


@pytest.mark.slow
def test_a_person_reads_it(folder: Path, command: Callable[..., Running]) -> None:
    chromium = need("chromium")
    need_package("playwright")
    from playwright.sync_api import sync_playwright  # a second that other tests need not wait

    running = command("dev", "failing:app", "--port", "0", cwd=folder)
    url = running.url() + "/b"
    link = f"{url}?token={running.token()}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        for theme, width in (("light", 1000), ("dark", 380)):
            tab = browser.new_page(color_scheme=theme, viewport={"width": width, "height": 800})  # type: ignore[arg-type]
            asked: list[str] = []
            tab.on("request", partial(note, asked))
            tab.goto(link)
            assert tab.url == url, "the token is not in the address any more"
            assert tab.inner_text("h1") == "KeyError"
            assert tab.inner_text("details[open] mark").startswith('{"a": 1}[name]')
            assert tab.locator("ol.stack li").count() == 6
            tab.click("summary >> text=2 frames of microwsgi")
            tab.click("summary >> text=App.__call__")
            tab.wait_for_selector("text=result = view(request, **values) >> visible=true")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            others = {each for each in asked if each not in {url, link} and not each.endswith("/favicon.ico")}
            assert [re.sub("[0-9]+/$", "", each) for each in others] == ["http://127.0.0.1:"], "the livereload"
        (folder / "failing.py").write_text(PROGRAM.replace("[name] + text", '.get(name, "mended")'))
        running.line("changed: failing.py; serving")
        tab.wait_for_selector("text=mended")
        browser.close()


@pytest.mark.slow
def test_what_was_posted_is_not_posted_again_by_itself(folder: Path, command: Callable[..., Running]) -> None:
    chromium = need("chromium")
    need_package("playwright")
    from playwright.sync_api import sync_playwright  # a second that other tests need not wait

    running = command("dev", "failing:bare", "--port", "0", cwd=folder)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        tab = browser.new_page()
        url = running.url()
        tab.goto(f"{url}/?token={running.token()}")
        # A form of the same site: with a post of another site the cookie is not sent.
        form = '<form method="post" action="/"><button>Send</button></form>'
        tab.route("**/form", lambda route: route.fulfill(content_type="text/html", body=form))
        tab.goto(f"{url}/form")
        tab.click("button")
        tab.wait_for_selector("text=POST / >> visible=true")
        assert tab.locator("#saved").is_hidden()
        (folder / "failing.py").write_text(PROGRAM.replace("bare <b>", "other"))
        running.line("changed: failing.py; serving")
        tab.wait_for_selector("#saved", state="visible")
        assert tab.inner_text(".said >> nth=1") == "ValueError: bare <b>"
        browser.close()


@pytest.mark.slow
def test_a_first_start_that_fails_is_shown_and_shown_anew(folder: Path, command: Callable[..., Running]) -> None:
    chromium = need("chromium")
    need_package("playwright")
    from playwright.sync_api import sync_playwright  # a second that other tests need not wait

    (folder / "failing.py").write_text("from helper import missing\n")
    (folder / "helper.py").write_text("")
    running = command("dev", "failing:app", "--port", "0", cwd=folder)
    url = running.url() + "/b"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        tab = browser.new_page()
        plain = browser.new_context(java_script_enabled=False).new_page()
        for each in (tab, plain):
            each.goto(f"{url}?token={running.token()}")
        assert tab.inner_text("h1") == plain.inner_text("h1") == "The application can't be loaded"
        assert tab.inner_text("details[open] mark") == "from helper import missing"
        shown = tab.inner_text("body")
        assert [name for name in ("__builtins__", "__spec__", "breakpoint()") if name in shown] == []
        (folder / "failing.py").write_text("import nothing_of_that_name\n")
        tab.wait_for_selector("pre:has-text('which is not installed')")
        plain.wait_for_selector("pre:has-text('which is not installed')")
        (folder / "failing.py").write_text(PROGRAM.replace("[name] + text", '.get(name, "mended")'))
        tab.wait_for_selector("text=mended")
        plain.wait_for_selector("text=mended")
        browser.close()


SLEEPS = """
import time


def app(environ, start_response):
    time.sleep(0.02)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


@pytest.mark.parametrize("options", [("--debug",), ()])
def test_the_browsers_tools_see_where_the_time_went(
    options: tuple[str, ...], tmp_path: Path, command: Callable[..., Running]
) -> None:
    (tmp_path / "sleeps.py").write_text(SLEEPS)
    with urlopen(command("serve", "sleeps:app", *options, "--port", "0", cwd=tmp_path).url()) as response:  # noqa: S310
        found = response.headers["Server-Timing"]
    if not options:
        assert found is None
        return
    match = re.fullmatch(r"wait;dur=([\d.]+), app;dur=([\d.]+)", found)
    assert match
    assert 20 <= float(match[2]) < 5000
