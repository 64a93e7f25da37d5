"""docs/static.md, events.md and testing.md: their examples, run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from microwsgi.testing import Client
from tests.running import ROOT, environment, python


def examples(page: str) -> list[str]:
    """The programs of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def application(page: str, number: int) -> Any:
    """The `app` of a program."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(examples(page)[number], names)  # noqa: S102 - ours
    return names["app"]


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
