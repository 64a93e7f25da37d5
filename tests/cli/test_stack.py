"""`microwsgi stack`, as a person runs it: in a pipe, with a page, beside other servers."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from microwsgi.serving.loader import load
from microwsgi.testing import assert_stack_depth
from tests.programs import need
from tests.running import ROOT, environment, microwsgi, python

HELLO = """
    from http.server import BaseHTTPRequestHandler
    from microwsgi import App

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    def echo(environ, start_response):
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response(f"200 {environ['CONTENT_TYPE']} {body.decode()} {environ['QUERY_STRING']}", [])
        return [b"hello"]

    def failing(environ, start_response):
        raise ValueError("as asked")

    framework = App()

    @framework.get("/")
    def view(request):
        return "x"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(204)
            self.end_headers()
    """


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text(dedent(HELLO))
    return tmp_path


def run(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        microwsgi("stack", *arguments), cwd=folder, env=environment(**env), capture_output=True, text=True, check=False
    )


def depth(folder: Path, *arguments: str) -> dict[str, int]:
    found = json.loads(run(folder, *arguments, "--json").stdout)
    return {each["server"]: each["depth"] for each in found["stacks"]}


def test_five_frames_to_an_application_in_a_pipe(folder: Path) -> None:
    result = run(folder, "hello:app", "/a/path")
    assert (result.returncode, result.stderr) == (0, "")
    asked, counted, _, *frames = result.stdout.splitlines()
    assert asked == "GET /a/path of hello:app: 200 OK"
    assert counted == "microwsgi, 5 frames: 2 library, 2 microwsgi, 1 yours"
    assert [line.split()[:2] for line in frames[::2]] == [
        ["library", "Thread._bootstrap"],
        ["library", "Thread._bootstrap_inner"],
        ["microwsgi", "PoolThread.run"],
        ["microwsgi", "WSGIRequestHandler.handle_one_request"],
        ["yours", "app"],
    ]
    assert [line.strip() for line in frames[1::2]][2::2] == [
        "connection.handle_one_request()",
        "def app(environ, start_response):",
    ]
    assert frames[-2].endswith(" hello.py:5")
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    assert "\033" not in result.stdout


def test_a_view_of_the_framework_has_six(folder: Path) -> None:
    assert depth(folder, "hello:framework") == {"microwsgi": 6}


def test_colours_when_they_are_asked_for(folder: Path) -> None:
    assert "\033[1;32myours" in run(folder, "hello:app", "--color", "always").stdout
    assert "\033[1;32myours" in run(folder, "hello:app", FORCE_COLOR="1").stdout


def test_what_is_sent(folder: Path) -> None:
    form = "application/x-www-form-urlencoded"
    assert run(folder, "hello:app", "-X", "PURGE").stdout.startswith("PURGE / of hello:app: 200 OK\n")
    assert run(folder, "hello:echo", "/?a=b c", "-d", "d=e").stdout.startswith(
        f"POST /?a=b%20c of hello:echo: 200 {form} d=e a=b%20c\n"
    )


def test_a_failure_is_drawn_too_and_its_traceback_is_there(folder: Path) -> None:
    result = run(folder, "hello:failing")
    assert result.returncode == 0
    assert "GET / of hello:failing: 500 Internal Server Error" in result.stdout
    assert result.stdout.splitlines()[-2].split()[:2] == ["yours", "failing"]
    assert "ValueError: as asked" in result.stderr


def test_a_handler_class_of_http_server(folder: Path) -> None:
    assert depth(folder, "hello:Handler") == {"microwsgi": 6}
    result = run(folder, "hello:Handler", "--compare")
    assert result.returncode == 2
    assert "leave out --compare" in result.stderr


def test_no_function_of_yours_is_said_so(folder: Path) -> None:
    result = run(folder, "hello:framework", "/nothing/here")
    assert result.returncode == 1
    assert "404" in result.stdout.splitlines()[0]
    assert "None of your functions made this response" in result.stdout


@pytest.mark.slow
def test_beside_the_servers_that_are_installed_counted_as_the_benchmark_counts(folder: Path) -> None:
    """As those who use them start them: wsgiref in a script's own thread, whose module is the first of its frames."""
    found = depth(folder, "hello:app", "--compare")
    assert found["microwsgi"] == 5
    assert found["wsgiref"] == 9
    assert found["Werkzeug"] >= 10
    result = run(folder, "hello:app", "--compare")
    bars = result.stdout.partition("\n\nmicrowsgi ")[2].splitlines()
    assert bars[0].split() == ["5", "llssY"]
    assert [line.split()[0] for line in bars[1:-1]] == [name for name in found if name != "microwsgi"]
    assert bars[-1].split(",")[0].strip() == "l library"
    assert result.stderr == ""


def test_a_function_that_is_named(folder: Path) -> None:
    assert run(folder, "hello:app", "--to", "app").returncode == 0
    result = run(folder, "hello:app", "--to", "nothing")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "microwsgi: nothing was not called. Your functions that were called: app.\n"


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["hello:nothing"], "nothing", 3),
        (["hello:app", "more"], "expected one application", 2),
        (["hello:app", "-X", "a b"], "invalid -X a b: expected one word", 2),
        (["hello:app", "--html", "/nowhere/x.html"], "can't be written", 2),
        (["hello:app", "--color", "pink"], "pink", 2),
    ],
)
def test_mistakes(folder: Path, arguments: list[str], said: str, code: int) -> None:
    result = run(folder, *arguments)
    assert result.returncode == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_the_page_is_one_file_that_fits_a_phone(folder: Path) -> None:
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    assert run(folder, "hello:app", "--compare", "--html", "page.html").returncode == 0
    text = (folder / "page.html").read_text()
    assert "<script" not in text
    assert "src=" not in text
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need("chromium"), args=["--no-sandbox"])
        colours = []
        for scheme, width in (("light", 1100), ("dark", 1100), ("light", 375)):
            context = browser.new_context(
                color_scheme=scheme, viewport={"width": width, "height": 800}, offline=True, java_script_enabled=False
            )
            page = context.new_page()
            page.goto((folder / "page.html").as_uri())
            assert page.locator("ol.stack").first.locator("li").count() == 5
            assert page.locator("ol.stack li.yours b").first.inner_text() == "app"
            assert page.locator("table.stacks rect").count() >= 5 + 9 + 10
            box = page.locator("ol.stack li.yours").first.bounding_box()
            assert box
            assert box["x"] + box["width"] <= width
            colours.append(page.locator("ol.stack li.yours b").first.evaluate("each => getComputedStyle(each).color"))
        browser.close()
    assert colours[0] == colours[2] != colours[1]


def test_a_short_stack_can_be_a_test_of_ones_own(folder: Path) -> None:
    app: Any = load("apps.echo:app", str(ROOT))
    assert_stack_depth(app, max=5)
    with pytest.raises(AssertionError, match=r"at most 4 .* 5 frames: 2 library, 2 microwsgi, 1 yours"):
        assert_stack_depth(app, max=4)
    assert_stack_depth(app, "/", max=5, to="app")
    with pytest.raises(AssertionError, match="nothing was not called for GET"):
        assert_stack_depth(app, max=5, to="nothing")


def test_the_example_of_this_project_has_five_frames() -> None:
    result = run(ROOT, "apps.echo:app", "-d", "test=hello")
    assert "microwsgi, 5 frames" in result.stdout


# --- docs/stack.md ------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "stack.md").read_text()


def comparable(line: str) -> str:
    """A line without what differs from Python to Python, and from one edit of a file to the next: its number."""
    line = line.replace("self._context.run(self.run)", "self.run()")  # threading of 3.14 and newer
    return re.sub(r":\d+$|\.\.\.\S*/", "", " ".join(line.split()))


def test_the_page_shows_what_the_command_prints(tmp_path: Path) -> None:
    hello = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert hello
    (tmp_path / "hello.py").write_text(hello[1])
    shown, compared = re.findall(
        r"```\n\$ microwsgi stack hello:app(?: /hello/world| --compare\n\.\.\.)\n(.*?)```", PAGE, re.DOTALL
    )
    printed = run(tmp_path, "hello:app", "/hello/world").stdout
    assert [*map(comparable, shown.splitlines())] == [*map(comparable, printed.splitlines())]
    for module in ("cheroot", "waitress", "werkzeug"):
        pytest.importorskip(module)
    assert compared in run(tmp_path, "hello:app", "--compare").stdout


def test_the_pages_programs_run(tmp_path: Path) -> None:
    hello = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    test, program = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert hello
    (tmp_path / "hello.py").write_text(hello[1])
    (tmp_path / "program.py").write_text(
        f"{test}\ntest_the_way_to_the_application_is_short()\n{program}\nprint(page)\n"
    )
    done = subprocess.run(
        python("program.py"), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.startswith("yours  <module>")
    assert '<ol class="stack">' in done.stdout
