"""microwsgi/framework/forms.py: forms with files, however they arrive."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies
from webob.exc import HTTPBadRequest, HTTPException, HTTPRequestEntityTooLarge

from microwsgi.framework.forms import Multipart, Upload, multipart
from tests.tables import Rows

TYPE = "multipart/form-data; boundary=b"


class Trickle:
    """Bytes that arrive so many at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self.file, self.size = io.BytesIO(data), size

    def read(self, size: int, /) -> bytes:
        return self.file.read(min(size, self.size))


def part(disposition: str, content: bytes, *fields: str) -> bytes:
    lines = [f"Content-Disposition: form-data; {disposition}", *fields, "", ""]
    return b"--b\r\n" + "\r\n".join(lines).encode() + content + b"\r\n"


def form(data: bytes, size: int = 1 << 20, **limits: int) -> dict[str, Any]:
    found = multipart(Trickle(data, size), TYPE, **{"fields": 10, "text_size": 1000, "file_size": 1000, **limits})
    return {name: read(value) for name, value in found.items()}


def read(value: Any) -> Any:
    if not isinstance(value, Upload):
        return value
    with value.file as file:
        return value.filename, value.type, value.size, file.read()


WHOLE = (
    b"preamble\r\n"
    + part('name="text"', "ä\r\n--x\r\n".encode())
    + part('name="file"; filename="C:\\\\a\\\\b.txt"', b"\0\r\n-", "Content-Type: text/x")
    + part('name="none"; filename=""', b"")
    + part('name="a%22b\\"c"', b"")
    + part("name=bare; filename=x", b"y")
    + b"--b--\r\nepilogue"
)
EXPECTED = {
    "text": "ä\r\n--x\r\n",
    "file": ("b.txt", "text/x", 4, b"\0\r\n-"),
    'a"b"c': "",
    "bare": ("x", "text/plain", 1, b"y"),
}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1 << 20])
def test_a_form_is_the_same_however_it_arrives(size: int) -> None:
    assert form(WHOLE, size) == EXPECTED


def test_a_form_that_breaks_off_is_a_400() -> None:
    with Rows() as rows:
        for end in range(len(b"preamble\r\n"), len(WHOLE) - len(b"--\r\nepilogue") + 2, 3):
            with rows("after", end, "bytes"), pytest.raises(HTTPBadRequest):
                form(WHOLE[:end])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "ends before"),
        (b"--b\r\n\r\nx\r\n--b--", "no name"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--", "no name"),
        (b"--bx\r\n", "within a line"),
        (part('name="a"', b"x", "Content-Transfer-Encoding: base64") + b"--b--", "encoded"),
        (part('name="a"', b"\xff") + b"--b--", "a in the form is not UTF-8"),
        (b"--b\r\n\xff\r\n\r\nx\r\n--b--", "not UTF-8"),
    ],
)
def test_a_wrong_form_is_a_400(data: bytes, said: str) -> None:
    with pytest.raises(HTTPBadRequest, match=said):
        form(data)


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary=""']
)
def test_without_a_boundary_it_is_a_400(kind: str) -> None:
    with pytest.raises(HTTPBadRequest, match="boundary"):
        Multipart(io.BytesIO(), kind)


@pytest.mark.parametrize(
    ("data", "limits", "said"),
    [
        (part('name="a"', b"x" * 11) + b"--b--", {"text_size": 10}, "a in the form is larger than 10 bytes"),
        (part('name="a"', b"x" * 6) * 2 + b"--b--", {"text_size": 10}, "larger than 4 bytes"),
        (part('name="a"; filename="f"', b"x" * 11) + b"--b--", {"file_size": 10}, "larger than 10 bytes"),
        (part('name="a"', b"") * 3 + b"--b--", {"fields": 2}, "more than 2 fields"),
        (b"--b\r\n" + b"X: y\r\n" * 2000 + b"\r\n", {}, "beginning of a part"),
    ],
)
def test_everything_has_its_limit(data: bytes, limits: dict[str, int], said: str) -> None:
    with pytest.raises(HTTPRequestEntityTooLarge, match=said):
        form(data, 100, **limits)


def test_a_long_file_goes_to_disk_and_is_saved_from_there(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1024
    data = part('name="a"; filename="../../etc/passwd"', content) + b"--b--"
    found = multipart(Trickle(data, 4096), TYPE, fields=1, text_size=1, file_size=len(content))
    upload = found["a"]
    assert (upload.filename, upload.size) == ("passwd", len(content))
    assert upload.save(str(tmp_path / "saved")) == len(content)
    assert (tmp_path / "saved").read_bytes() == content
    upload.file.close()


def test_parts_are_read_while_they_arrive(tmp_path: Path) -> None:
    data = (
        part('name="a"', b"first")
        + part('name="b"; filename="f"', b"x" * 100_000)
        + part('name="c"', b"last")
        + b"--b--"
    )
    sizes = {}
    for each in Multipart(Trickle(data, 1000), TYPE):
        if each.filename:
            sizes[each.name] = each.save(str(tmp_path / "saved"), 100_000)
        elif each.name == "c":
            sizes[each.name] = len(each.read(10))
    assert sizes == {"b": 100_000, "c": 4}


def test_a_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    data = part('name="b"; filename="f"', b"x" * 100_000)
    (each,) = [next(iter(Multipart(Trickle(data[:50_000], 1000), TYPE)))]
    with pytest.raises(HTTPBadRequest):
        each.save(str(tmp_path / "saved"), 1 << 20)
    assert list(tmp_path.iterdir()) == []


@given(data=strategies.binary(max_size=200), size=strategies.integers(1, 50))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_a_form_or_a_400(data: bytes, size: int) -> None:
    results = []
    for each in (size, 1000):
        try:
            results.append(form(b"--b\r\nContent-Disposition: form-data; name=a" + data, each))
        except HTTPException as error:
            results.append({"error": error.code})  # type: ignore[attr-defined]
    assert results[0] == results[1]


def test_parts_without_a_file_name_count_as_fields() -> None:
    data = part('name="none"; filename=""', b"") * 11 + b"--b--\r\n"
    with pytest.raises(HTTPRequestEntityTooLarge, match="more than 10 fields"):
        form(data)
