"""docs/framework.md, static.md, events.md and testing.md: their examples, run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from microwsgi.testing import Client
from tests.running import ROOT, environment, python
from tests.tables import Rows

pytestmark = pytest.mark.slow  # runs the commands of the documentation


def examples(page: str) -> list[str]:
    """The programs of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def application(page: str, number: int) -> Any:
    """The `app` of a program."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(examples(page)[number], names)  # noqa: S102 - ours
    return names["app"]


def test_no_page_shows_html_that_is_not_escaped() -> None:
    """Neither an f-string nor %, + or format with HTML in it: `html` and Jinja2 are what a reader copies."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")]
    with Rows() as rows:
        for page in pages:
            with rows(page.name):
                code = re.findall(r"```(?:python)?\n(.*?)```", page.read_text(), re.DOTALL)
                tag = r"""["'][^"'\n]*</?[a-z][^"'\n]*"""
                wrong = rf"""\bf{tag}\{{|(?<!html\(){tag}["'] *(?:%|\+|\.format\()"""
                assert [found[0] for text in code for found in re.finditer(wrong, text)] == []


def test_framework_in_short() -> None:
    client = Client(application("framework.md", 0))
    created = client.post("/users", json={"name": "Barbara"}).expect(201, json={"number": 3})
    client.get(created.headers["Location"]).expect(json={"number": 3, "name": "Barbara"})
    client.get("/me", follow=True).expect(json={"number": 1, "name": "Ada"})
    assert "There is no user 9." in client.get("/users/9").expect(404).text


def test_framework_table_of_routes(tmp_path: Path) -> None:
    """Printed as the page has it."""
    (tmp_path / "users.py").write_text(examples("framework.md")[0])
    command = python("-m", "microwsgi", "routes", "users:app")
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout in (ROOT / "docs" / "framework.md").read_text()


def test_framework_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(application("framework.md", 1))
    page = client.get("/%3Cb%3E?item=1&item=%3Ci%3E").expect().text
    assert page == "<title>&lt;b&gt;</title><h1>&lt;b&gt;</h1><ul><li>1<li>&lt;i&gt;</ul>"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "hello.html").write_text(
        "<a href=\"{{ url_for('hello', name='x') }}\">Hello, {{ name }}!</a>"
    )
    response = Client(application("framework.md", 2)).get("/hello/%3Cscript%3E").expect()
    assert (response.content_type, response.text) == ("text/html", '<a href="/hello/x">Hello, &lt;script&gt;!</a>')


def test_framework_guard() -> None:
    client = Client(application("framework.md", 3))
    client.post("/").expect(204)
    client.post("/", headers={"Origin": "http://evil.example"}).expect(403)


def test_framework_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    client = Client(application("framework.md", 4))
    client.get("/search?q=a&exact=yes").expect(json=["a", 10, True])
    assert "limit in the query is 'x', which is not a valid int." in client.get("/search?q=a&limit=x").expect(400).text
    client.post("/form", form={"age": "7", "photo": ("a.png", b"12345")}).expect(json={"age": 7, "photo": 5})
    client.post("/api", json={"tags": ["a"]}).expect(json=[["a"], "00000000-0000-0000-0000-000000000000"])
    client.put("/big/a", body=b"12345").expect(201, json={"size": 5})
    assert (tmp_path / "a.bin").read_bytes() == b"12345"


def test_framework_errors() -> None:
    client = Client(application("framework.md", 5))
    client.get("/colour/red").expect(text="#f00")
    client.get("/colour/blue").expect(404, json={"unknown": "'blue'"})


def test_static(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "style.css").write_text("body {}")
    (tmp_path / "folder" / "report.pdf").write_bytes(b"%PDF")
    client = Client(application("static.md", 0))
    response = client.get("/assets/style.css").expect(text="body {}")
    assert response.headers["Cache-Control"] == "max-age=3600"
    response = client.get("/report").expect()
    assert response.headers["Content-Disposition"] == 'attachment; filename="report 2026.pdf"'
    assert response.headers["Content-Type"] == "application/pdf"


def test_events() -> None:
    client = Client(application("events.md", 0))
    chunks = iter(client.get("/events", stream=True).app_iter)
    assert next(chunks) == b":\n\n"
    client.post("/send", form={"text": "hello"}).expect(204)
    assert next(chunks).endswith(b'data: {"text": "hello"}\n\n')
    chunks = iter(Client(application("events.md", 1)).get("/load", stream=True).app_iter)
    assert re.search(rb"\ndata: \[[\d.]+, [\d.]+, [\d.]+\]\n\n", next(chunks))


@pytest.mark.parametrize("number", range(2))
def test_testing(number: int, tmp_path: Path) -> None:
    hello = 'from webob import Response\n\napplication = Response(text="hello")\n'
    (tmp_path / "hello.py").write_text(hello)
    (tmp_path / "test_example.py").write_text(examples("testing.md")[number])
    done = subprocess.run(
        python("-m", "pytest", "-q", "-p", "microwsgi.pytest_plugin", "-p", "no:cacheprovider"),
        check=False, cwd=tmp_path, env=environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"), capture_output=True, text=True,
    )  # fmt: skip
    assert re.search(r"^[12] passed", done.stdout, re.MULTILINE), done.stdout


def test_a_failure_reads_as_it_is_shown() -> None:
    names: dict[str, Any] = {}
    exec(examples("testing.md")[0], names)  # noqa: S102 - ours
    response = Client(names["application"]).post("/users", json={})
    with pytest.raises(AssertionError) as failed:
        response.expect(201)
    (shown,) = re.findall(r"```\nAssertionError: (.*?)\n```", (ROOT / "docs" / "testing.md").read_text(), re.DOTALL)
    assert str(failed.value) == shown
