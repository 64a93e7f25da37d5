"""microwsgi/framework/request.py: values of the type that a view wants, and 400s that say what was wrong where."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from webob.exc import (
    HTTPBadRequest,
    HTTPException,
    HTTPLengthRequired,
    HTTPRequestEntityTooLarge,
    HTTPUnsupportedMediaType,
)

from microwsgi import App, Request
from microwsgi.testing import Client
from tests.tables import Rows

JSON, FORM, MULTIPART = "application/json", "application/x-www-form-urlencoded", "multipart/form-data"


def request(body: bytes = b"", kind: str = "", path: str = "/", **environ: Any) -> Request:
    found = Request.blank(path, method="POST", body=body)
    found.content_type = kind
    found.environ.update(environ)
    return found


def test_the_clients_address_is_what_the_server_says_not_what_the_client_says() -> None:
    app = App()
    app.get("/")(lambda request: [request.client_addr, request.remote_addr])
    client = Client(app)
    fields = {"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
    client.get("/", headers=fields, environ={"REMOTE_ADDR": "192.0.2.1"}).expect(json=["192.0.2.1", "192.0.2.1"])
    assert Request({}).client_addr == "", "a server may not know it"


@pytest.mark.parametrize(
    ("query", "kind", "expected"),
    [
        ("a=x", str, "x"),
        ("a=", str, ""),
        ("a=7", int, 7),
        ("a=1.5", float, 1.5),
        ("a=on", bool, True),
        ("a=No", bool, False),
        ("a=12345678-1234-5678-1234-567812345678", UUID, UUID("12345678-1234-5678-1234-567812345678")),
        ("a=%C3%A4", str, "ä"),
        ("a=b", lambda text: {"b": 1}[text], 1),
    ],
)
def test_a_value_has_the_type_that_is_asked_for(query: str, kind: Any, expected: object) -> None:
    assert request(path=f"/?{query}").query("a", kind) == expected
    assert request(query.encode(), FORM).form_value("a", kind) == expected


@pytest.mark.parametrize(
    ("query", "kind", "said"),
    [
        ("b=1", str, "a in the query is missing"),
        ("a=x", int, "a in the query is 'x', which is not a valid int"),
        ("a=maybe", bool, "a in the query is 'maybe', which is not a valid bool"),
        ("a=c", lambda text: {"b": 1}[text], "a in the query is 'c', which is invalid: 'c'"),
    ],
)
def test_a_wrong_value_is_a_400_that_names_it(query: str, kind: Any, said: str) -> None:
    with pytest.raises(HTTPBadRequest) as caught:
        request(path=f"/?{query}").query("a", kind)
    assert said in str(caught.value.detail)


def test_numbers_and_uuids_are_read_alike_from_queries_and_forms() -> None:
    """And as {name:int}, {name:float} and {name:uuid} match them (test_routing)."""
    refused = {
        int: ("1_0", "\u0663", " 5", "5 ", "+5", "5.0", "", "0x5", "9" * 5000),
        float: ("nan", "inf", "-Infinity", "1e999", "9" * 400, "1_0.0", "\u0663.5", " 1", "1.", "+1"),
        UUID: ("{12345678-1234-5678-1234-567812345678}", "12345678123456781234567812345678"),
    }
    accepted = []
    for kind, texts in refused.items():
        for text in texts:
            quoted = quote(text)
            for read in (request(path=f"/?a={quoted}").query, request(f"a={quoted}".encode(), FORM).form_value):
                try:
                    accepted.append((kind, text, read("a", kind)))
                except HTTPBadRequest:
                    pass
    assert accepted == []
    assert [request(path=f"/?a={text}").query("a", float) for text in ("-1", ".5", "1e3", "2.50")] == [
        -1,
        0.5,
        1000,
        2.5,
    ]


def test_a_query_that_is_not_utf_8_is_a_400_for_every_way_to_read_it() -> None:
    def read(query: str, name: str) -> object:
        found = request(path=f"/?{query}")
        return found.query("q") if name == "query" else getattr(found, name)

    answered, details = [], set()
    for query in ("q=%FF", "%FC=1&q=2", "q=%ED%A0%80"):
        for name in ("GET", "params", "query"):
            try:
                answered.append((query, name, read(query, name)))
            except HTTPBadRequest as error:
                details.add(error.detail)
    assert answered == []
    assert details == {"The query is not UTF-8."}


def read_again(found: Request) -> object:
    """A refused form is refused again: WebOb keeps what it has parsed."""
    with suppress(HTTPException):
        _ = found.POST
    return found.POST


def test_a_wrong_form_is_a_400_for_every_way_to_read_it() -> None:
    """WebOb's own names too: it replaces what is not UTF-8, and takes a form without its end for a whole one."""
    multipart = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n--x--\r\n'
    kind = f"{MULTIPART}; boundary=x"
    bodies: list[tuple[str, bytes, str, int, str]] = [
        ("a value", b"q=%FF", FORM, 400, "The form is not UTF-8"),
        ("a value that is not quoted", b"q=\xff", FORM, 400, "The form is not UTF-8: invalid start byte at byte 2"),
        ("a name", b"%FC=1&q=2", FORM, 400, "The form is not UTF-8"),
        ("a surrogate", b"q=%ED%A0%80", FORM, 400, "The form is not UTF-8"),
        ("a field of a multipart form", multipart % (b"q", b"", b"\xff"), kind, 400, "q in the form is not UTF-8"),
        ("its name", multipart % (b"\xff", b"", b"1"), kind, 400, "A part of the form is not UTF-8"),
        (
            "the name of a file",
            multipart % (b"q", b'; filename="\xff"', b"1"),
            kind,
            400,
            "A part of the form is not UTF-8",
        ),
        (
            "a form that breaks off",
            (multipart % (b"q", b"", b"1"))[:-8],
            kind,
            400,
            "The form ends before its last boundary",
        ),
        ("another charset", b"q=1", f"{FORM}; charset=latin-1", 415, "The form is in 'latin-1'; it must be in UTF-8"),
    ]
    ways: dict[str, Any] = {
        "form": lambda found: found.form,
        "POST": lambda found: found.POST,
        "POST again": read_again,
        "params": lambda found: list(found.params.items()),
        "form_value": lambda found: found.form_value("q"),
    }
    with Rows() as rows:
        for name, body, content_type, status, detail in bodies:
            for way, read in ways.items():
                with rows(name, way):
                    with pytest.raises(HTTPException) as caught:
                        read(request(body, content_type))
                    assert caught.value.code == status  # type: ignore[attr-defined]
                    assert str(caught.value.detail).startswith(detail)  # type: ignore[attr-defined]


def test_webobs_post_has_the_fields_of_a_right_form() -> None:
    found = request(b"a=%C3%BC&a=%EF%BF%BD", f"{FORM}; charset=utf-8")
    assert list(found.POST.items()) == [("a", "ü"), ("a", "\ufffd")]
    assert found.body == b"a=%C3%BC&a=%EF%BF%BD"
    found.body = b"a=2"
    assert found.POST["a"] == "2"
    body = b'--x\r\nContent-Disposition: form-data; name="f"; filename="n"\r\n\r\n\xff\r\n--x--\r\n'
    assert request(body, f"{MULTIPART}; boundary=x").POST["f"].value == b"\xff"
    assert not request(b"{}", JSON).POST


def test_text_is_in_its_charset_or_a_400() -> None:
    assert request(b"\xfc", "text/plain; charset=latin-1").text == "ü"
    with pytest.raises(HTTPBadRequest, match="The body is not UTF-8: invalid start byte at byte 1"):
        _ = request(b"a\xff", "text/plain").text
    with pytest.raises(HTTPUnsupportedMediaType, match="'zzz' is unknown"):
        _ = request(b"a", "text/plain; charset=zzz").text
    found = request(b"", "text/plain")
    found.text = "ü"
    assert found.body == "ü".encode()


def test_a_default_stands_for_what_is_missing() -> None:
    assert request().query("a", int, None) is None
    assert request(b"", FORM).form_value("a", default="x") == "x"


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        ('"x"', str, "x"),
        ("7", int, 7),
        ("7", float, 7.0),
        ("1.5", float, 1.5),
        ("true", bool, True),
        ("[1]", list, [1]),
        ("{}", dict, {}),
        ('"12345678-1234-5678-1234-567812345678"', UUID, UUID("12345678-1234-5678-1234-567812345678")),
    ],
)
def test_a_member_of_a_json_body(body: str, kind: Any, expected: object) -> None:
    found = request(f'{{"a": {body}}}'.encode(), JSON).json_value("a", kind)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"{}", str, "a in the body is missing"),
        (b'{"a": null}', str, "a in the body is null; it must be a string"),
        (b'{"a": "7"}', int, "a in the body is a string; it must be a whole number"),
        (b'{"a": 1}', bool, "a in the body is a whole number; it must be true or false"),
        (b'{"a": true}', int, "a in the body is true or false; it must be a whole number"),
        (b'{"a": "x"}', UUID, "a in the body is 'x', which is not a valid UUID"),
        (b"[]", str, "The body is an array; it must be an object"),
        (b'{"a": 1,\n}', str, "The body is not JSON: "),
        (b'{"a": NaN}', str, "NaN is not JSON"),
        (b'{"a": 1e999}', float, "The body is not valid JSON: a float must be a finite decimal number"),
        (b'{"a": "\\ud800"}', str, "The body is not valid JSON: 'utf-8' codec can't encode"),
        (b'{"a": ' + b"9" * 400 + b"}", float, "a in the body is too large for a float"),
        (b'{"a": ' + b"9" * 5000 + b"}", int, "The body is not valid JSON: Exceeds the limit"),
        (b'{"a": "{12345678-1234-5678-1234-567812345678}"}', UUID, "not a valid UUID"),
        (b"\xff", str, "The body is not UTF-8: invalid start byte at byte 0"),
        (b"", str, "The body is not JSON: Expecting value, line 1 column 1"),
        (b"[" * 100_000, str, "The body is not valid JSON"),
    ],
)
def test_a_wrong_body_is_a_400_that_says_where(body: bytes, kind: Any, said: str) -> None:
    with pytest.raises(HTTPBadRequest) as caught:
        request(body, JSON).json_value("a", kind)
    assert said in str(caught.value.detail)


def test_null_is_a_default_that_may_be_sent() -> None:
    assert request(b'{"a": null}', JSON).json_value("a", str, None) is None
    assert request(b"{}", JSON).json_value("a", str, None) is None


@pytest.mark.parametrize("kind", [FORM, "multipart/form-data; boundary=a", "text/plain"])
def test_what_any_page_can_send_is_no_json(kind: str) -> None:
    """A form on another site can post these three types without asking (Fetch): its body must not be read as JSON."""
    with pytest.raises(HTTPUnsupportedMediaType):
        request(b"{}", kind).read_json()


def test_a_body_of_another_type_is_no_form() -> None:
    with pytest.raises(HTTPUnsupportedMediaType, match="must be a form"):
        _ = request(b"{}", JSON).form
    with pytest.raises(HTTPUnsupportedMediaType, match="multipart"):
        request(b"", FORM).parts()


class Small(Request):
    max_body_size = 10
    max_field_count = 2


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(("kind", "body"), [(JSON, b'"%s"' % (b"x" * 10)), (FORM, b"a=" + b"x" * 10)])
def test_a_body_has_its_limit_whether_or_not_it_says_its_length(kind: str, body: bytes, counted: bool) -> None:
    environ = request(body, kind).environ
    environ["wsgi.input"] = io.BytesIO(body)
    environ["webob.is_body_seekable"] = False
    if not counted:
        del environ["CONTENT_LENGTH"]
        environ["wsgi.input_terminated"] = True
    found = Small(environ)
    with pytest.raises(HTTPRequestEntityTooLarge, match="larger than 10 bytes"):
        found.read_json() if kind == JSON else found.form


def test_a_form_has_so_many_fields() -> None:
    with pytest.raises(HTTPRequestEntityTooLarge, match="more than 2 fields"):
        _ = Small(request(b"a&b&c", FORM).environ).form


@pytest.mark.parametrize("body", [b"a=%ff", b"a=\xff"])
def test_a_form_that_is_no_utf_8_is_a_400(body: bytes) -> None:
    with pytest.raises(HTTPException) as caught:
        _ = request(body, FORM).form
    assert caught.value.code == 400  # type: ignore[attr-defined]


def test_a_body_is_saved_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    assert request(b"x" * 100_000).save(str(path), 100_000) == 100_000
    assert path.read_bytes() == b"x" * 100_000
    with pytest.raises(HTTPRequestEntityTooLarge):
        request(b"y" * 100_001).save(str(path), 100_000)
    assert path.read_bytes() == b"x" * 100_000
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_by_a_whole_body_only(tmp_path: Path) -> None:
    """Neither by a part of one, nor by a chunked body that the server passes on without its end, as wsgiref does."""
    path = tmp_path / "upload"
    path.write_bytes(b"precious")
    short = request(b"x" * 10, CONTENT_LENGTH="11")
    with pytest.raises(HTTPBadRequest, match="after 10 of 11 bytes"):
        short.save(str(path), 100)
    unknown = {"wsgi.input": io.BytesIO(b"5\r\nhello\r\n0\r\n\r\n"), "HTTP_TRANSFER_ENCODING": "chunked"}
    ways: dict[str, Any] = {
        "save": lambda found: found.save(str(path), 100),
        "form": lambda found: found.form,
        "multipart": lambda found: found.form,
        "parts": lambda found: list(found.parts()),
        "json": lambda found: found.json,
        "body": lambda found: found.body,
    }
    kinds = {"form": FORM, "multipart": f"{MULTIPART}; boundary=x", "parts": f"{MULTIPART}; boundary=x"}
    found: dict[str, type[BaseException]] = {}
    for name, way in ways.items():
        environ = Request.blank("/", method="POST", environ=dict[str, Any](CONTENT_TYPE=kinds.get(name, JSON))).environ
        environ.update(unknown)
        environ.pop("CONTENT_LENGTH", None)
        environ.pop("wsgi.input_terminated", None)
        environ.pop("webob.is_body_seekable", None)
        try:
            way(Request(environ))
        except HTTPException as error:
            found[name] = type(error)
    assert found == dict.fromkeys(ways, HTTPLengthRequired)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_form_that_a_hook_has_read_is_there_for_a_mounted_app() -> None:
    inner, outer = App(), App()
    outer.mount("/in", inner)

    @inner.post("/x")
    def view(found: Request) -> dict[str, Any]:
        return {"a": found.form_value("a"), "f": found.form_file("f").file.read().decode() if "f" in found.form else ""}

    @outer.before
    def check(found: Request) -> None:
        found.form_value("a")

    client = Client(outer)
    client.post("/in/x", form={"a": "1"}).expect(json={"a": "1", "f": ""})
    client.post("/in/x", form={"a": "1", "f": ("n.txt", b"hello")}).expect(json={"a": "1", "f": "hello"})
    body = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n2\r\n--x--\r\n'
    found = request(body, f"{MULTIPART}; boundary=x")
    assert found.form["a"] == "2"
    found.body = body.replace(b"2", b"3")
    assert Request(found.environ).form["a"] == "3", "another body has another form"


def test_webobs_own_json_is_ours() -> None:
    found = request(b'{"a": 1}', JSON)
    assert found.json == found.json_body == {"a": 1}
    found.json = [2]
    assert found.read_json() == [2]


def test_a_query_that_is_not_utf_8_is_a_400() -> None:
    with pytest.raises(HTTPBadRequest, match="The query is not UTF-8"):
        request(path="/?n=%FF").query("n")


def test_a_file_and_a_field_are_not_taken_for_each_other() -> None:
    body = '--x\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\nabc\r\n--x--\r\n'
    kind = "multipart/form-data; boundary=x"
    file = request(body.format("file", '; filename="a.txt"').encode(), kind)
    assert (file.form_file("file").filename, file.form_file("file").size) == ("a.txt", 3)
    with pytest.raises(HTTPBadRequest, match="file in the form is a file"):
        file.form_value("file")
    with pytest.raises(HTTPBadRequest, match="more in the form is missing"):
        file.form_file("more")
    assert file.form_file("more", None) is None
    with pytest.raises(HTTPBadRequest, match="text in the form is not a file"):
        request(body.format("text", "").encode(), kind).form_file("text")


def test_parts_are_those_of_a_multipart_form() -> None:
    with pytest.raises(HTTPUnsupportedMediaType, match="of no type"):
        request(b"a=b").parts()
