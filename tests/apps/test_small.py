"""apps/hello.py, apps/todo.py and apps/upload.py, as a person and as a program use them."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from microwsgi.testing import Client, live
from tests.programs import need, need_package
from tests.running import ROOT
from tests.tables import Rows

EVIL = "<script>alert(1)</script>"


def test_hello() -> None:
    from apps.hello import app

    client = Client(app)
    assert 'href="/hello/world"' in client.get("/").text
    assert client.get("/hello/world").text.endswith("<h1>Hello, world!</h1>\n")
    assert "<script>" not in client.get("/hello/%3Cscript%3E").text


def fresh(name: str) -> ModuleType:
    sys.modules.pop(name, None)
    return import_module(name)


@pytest.fixture
def todo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("TODO_DATABASE", str(tmp_path / "todo.sqlite"))
    return Client(fresh("apps.todo").app)


def test_todo_by_forms(todo: Client) -> None:
    added = todo.post("/", form={"what": EVIL}, follow=True)
    assert "&lt;script&gt;" in added.text
    assert "<script>" not in added.text
    assert "&lt;script&gt;" not in todo.post("/done/1", follow=True).text
    assert todo.post("/done/1").status_int == 404
    assert todo.post("/", form={"what": ""}).status_int == 400
    assert todo.post("/", form={"what": "x" * 201}).status_int == 400


def test_todo_by_json(todo: Client) -> None:
    created = todo.post("/api/items", json={"what": "ä"})
    assert (created.status_int, created.json) == (201, {"id": 1, "what": "ä"})
    assert todo.get("/api/items").json == [{"id": 1, "what": "ä"}]
    assert todo.delete(created.headers["Location"]).status_int == 204
    assert todo.get("/api/items").json == []
    wrong = todo.post("/api/items", json={"what": 5}, headers={"Accept": "application/json"})
    assert wrong.json["detail"] == "what in the body is a whole number; it must be a string."


def test_what_changes_something_takes_nothing_from_other_sites(todo: Client, upload: ModuleType) -> None:
    """Each route of todo and upload with another method than GET; browsers send Sec-Fetch-Site, or only an Origin."""
    lan = {"Host": "192.0.2.7:8000", "Origin": "http://evil.example"}
    count = 0
    with Rows() as rows:
        for app in (cast("Any", todo.application), upload.app):
            for route in app.router.routes:
                path = route.pattern.text.replace("{number:int}", "1").replace("{name}", "a")
                for method in set(route.methods) - {"GET", "HEAD"}:
                    for fields in ({"Sec-Fetch-Site": "cross-site"}, lan):
                        with rows(method, path, fields):
                            count += 1
                            assert Client(app).request(method, path, headers=fields).status_int == 403
    assert count == 12
    assert todo.get("/api/items").json == []


def test_an_example_that_changes_something_has_the_guard() -> None:
    """Views for POST and the like are in todo and upload only, and requests that send probes in probe and path."""
    names = {path.stem: path.read_text() for path in (ROOT / "apps").glob("*.py")}
    changes = {
        name for name, text in names.items() if re.search(r"^@app\.(post|put|patch|delete)\(", text, re.MULTILINE)
    }
    assert changes == {"todo", "upload"}
    guarded = {
        name for name, text in names.items() if "same_site_only)" in text or "require_same_site(request)" in text
    }
    assert guarded == {*changes, "path", "probe"}


@pytest.fixture
def upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("UPLOAD_FOLDER", str(tmp_path / "files"))
    return fresh("apps.upload")


def test_upload_by_form_and_by_put_and_back(upload: ModuleType) -> None:
    client = Client(upload.app)
    page = client.post("/", form={"file": (f"a{EVIL[:8]}.txt", b"\0\1" * 50_000)}, follow=True)
    assert "a&lt;script&gt;.txt" in page.text
    assert "100,000 bytes" in page.text
    assert client.put("/files/b%20c", body=b"hello").status_int == 201
    back = client.get("/files/b%20c", headers={"Range": "bytes=1-2"})
    assert (back.status_int, back.body) == (206, b"el")
    assert client.put("/files/b%20c", body=b"other").status_int == 409
    assert sorted(path.name for path in upload.FOLDER.iterdir()) == ["a<script>.txt", "b c"]


def test_a_page_that_was_uploaded_runs_no_scripts(upload: ModuleType) -> None:
    client = Client(upload.app)
    client.put("/files/evil.html", body=EVIL.encode())
    fields = client.get("/files/evil.html").expect().headers
    assert fields["Content-Security-Policy"] == "sandbox"
    assert fields["X-Content-Type-Options"] == "nosniff"
    assert "Content-Security-Policy" not in client.get("/").headers


@pytest.mark.parametrize("name", [".hidden", "..", "a\0b", "a\nb", "a%2Fb", "..%2Fb", "%2e%2e"])
def test_upload_stays_in_its_folder(upload: ModuleType, name: str, tmp_path: Path) -> None:
    client = Client(upload.app)
    assert client.put(f"/files/{name}".replace("\0", "%00").replace("\n", "%0A"), body=b"x").status_int in {
        400,
        404,
        405,
    }
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_upload_that_is_too_long_leaves_nothing(upload: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "LIMIT", 10)
    client = Client(upload.app)
    assert client.put("/files/a", body=b"x" * 11).status_int == 413
    assert client.post("/", form={"file": ("a", b"x" * 11)}).status_int == 413
    assert client.post("/", form={"file": ("a", b"x")}, headers={"Sec-Fetch-Site": "cross-site"}).status_int == 403
    assert list(upload.FOLDER.iterdir()) == []


def test_upload_lists_what_a_url_can_name(upload: ModuleType) -> None:
    """Not a file whose name is not UTF-8: no page could contain it, no URL lead to it."""
    (upload.FOLDER / "\udcff.bin").write_bytes(b"x")
    (upload.FOLDER / "<b>.bin").write_bytes(b"x")
    text = Client(upload.app).get("/").text
    assert "&lt;b&gt;.bin" in text
    assert text.count("<tr>") == 1


@pytest.mark.slow
def test_a_person_uses_them(todo: Client, upload: ModuleType, tmp_path: Path) -> None:
    chromium = need("chromium")
    need_package("playwright")
    from playwright.sync_api import sync_playwright  # a second that other tests need not wait

    (tmp_path / "picture.bin").write_bytes(b"x" * 1000)
    app: Any = sys.modules["apps.todo"].app
    with live(app) as list_server, live(upload.app) as file_server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        tab = browser.new_page()
        tab.goto(list_server.url)
        tab.fill("input", "read")
        tab.click("text=Add")
        tab.wait_for_selector("li >> text=read")
        tab.click("text=Done")
        tab.wait_for_selector("li", state="detached")
        tab.goto(file_server.url)
        tab.set_input_files("input", tmp_path / "picture.bin")
        tab.click("text=Send")
        tab.wait_for_selector("text=1,000 bytes")
        browser.close()
