"""microwsgi/framework/files.py: RFC 9110 13 and 14, case by case, in process and over a socket; and a file of 4 GiB."""

from __future__ import annotations

import email
import os
import random
import time
import urllib.request
from collections.abc import Callable, Iterable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from webob import Request

from microwsgi.framework.files import MAX_RANGES, FileResponse, attachment, content_type
from microwsgi.testing import Client
from tests.framework.peers import PEERS
from tests.framework.peers import serving as serving_on
from tests.running import ROOT
from tests.server.exchange import TIME, Running
from tests.tables import Rows

CONTENT = b"0123456789"
MODIFIED = 1577836800
DATE, EARLIER, LATER = "Wed, 01 Jan 2020 00:00:00 GMT", "Tue, 31 Dec 2019 23:59:59 GMT", "Wed, 01 Jan 2020 00:00:01 GMT"
TAG = f'"{MODIFIED * 10**9:x}-a"'


class Case(NamedTuple):
    """A rule, the fields that a client sends, and what it gets; a body of None is not looked at."""

    section: str
    rule: str
    fields: dict[str, str]
    status: int = 200
    body: bytes | None = None
    expected: dict[str, str | None] = {}  # nobody changes it
    method: str = "GET"


def whole(section: str, rule: str, **fields: str) -> Case:
    """All of the file is sent."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return Case(section, rule, named, 200, CONTENT, {"Content-Length": "10", "Content-Range": None, "ETag": TAG})


def part(section: str, rule: str, begin: int, end: int, **fields: str) -> Case:
    """The bytes from `begin` up to `end` are sent."""
    expected: dict[str, str | None] = {
        "Content-Range": f"bytes {begin}-{end - 1}/10",
        "Content-Length": f"{end - begin}",
        "ETag": TAG,
    }
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return Case(section, rule, named, 206, CONTENT[begin:end], expected)


def nothing(section: str, rule: str, status: int, **fields: str) -> Case:
    """No byte of the file is sent."""
    kind = None if status == 304 else "text/plain; charset=utf-8"
    expected = {"Content-Type": kind, "Last-Modified": None, "ETag": TAG}
    if status == 416:
        expected["Content-Range"] = "bytes */10"
    return Case(section, rule, {name.replace("_", "-"): value for name, value in fields.items()}, status, b"", expected)


CASES = [
    # --- 13.1.1 If-Match ---
    whole("13.1.1", "* holds where there is a representation", If_Match="*"),
    whole("13.1.1", "the tag holds", If_Match=TAG),
    whole("13.1.1", "the tag in a list holds", If_Match=f'"a,b", {TAG}'),
    nothing("13.1.1", "another tag does not hold", 412, If_Match='"other"'),
    nothing("13.1.1", "the comparison is strong: a weak tag never holds", 412, If_Match=f"W/{TAG}"),
    nothing("13.1.1", "what is no tag does not hold", 412, If_Match="other"),
    nothing("13.1.1", "a list that is broken does not hold", 412, If_Match=f'{TAG} "other"'),
    # --- 13.1.2 If-None-Match ---
    nothing("13.1.2", "* is false where there is a representation", 304, If_None_Match="*"),
    nothing("13.1.2", "the tag is there", 304, If_None_Match=TAG),
    nothing("13.1.2", "the comparison is weak", 304, If_None_Match=f"W/{TAG}"),
    nothing("13.1.2", "the tag is in a list, between others with commas", 304, If_None_Match=f'"a,b" ,, {TAG},W/"c"'),
    nothing("13.1.2", "the same for HEAD", 304, If_None_Match=TAG)._replace(method="HEAD"),
    whole("13.1.2", "only other tags", If_None_Match=f'"other", "{TAG[1:-2]}"'),
    whole("13.1.2", "what is no tag", If_None_Match=TAG[1:-1]),
    whole("13.1.2", "a tag within a tag is another", If_None_Match='"a' + TAG[1:]),
    # --- 13.1.3 If-Modified-Since ---
    nothing("13.1.3", "not modified since that second", 304, If_Modified_Since=DATE),
    nothing("13.1.3", "not modified since a later one", 304, If_Modified_Since=LATER),
    nothing("13.1.3", "the same for HEAD", 304, If_Modified_Since=DATE)._replace(method="HEAD"),
    whole("13.1.3", "modified since", If_Modified_Since=EARLIER),
    whole("13.1.3", "ignored beside If-None-Match", If_None_Match='"other"', If_Modified_Since=LATER),
    whole("13.1.3", "ignored when it is no date", If_Modified_Since="tomorrow"),
    whole("13.1.3", "ignored when it is a date of another kind", If_Modified_Since="2030-01-01T00:00:00Z"),
    whole("13.1.3", "ignored when it is two dates", If_Modified_Since=f"{LATER}, {LATER}"),
    whole("13.1.3", "ignored when there is no such day", If_Modified_Since="Wed, 32 Jan 2030 00:00:00 GMT"),
    whole("13.1.3", "ignored when there is no such month", If_Modified_Since="Wed, 01 Foo 2030 00:00:00 GMT"),
    whole("5.6.7", "ignored when its zone is another", If_Modified_Since="Wed, 01 Jan 2030 00:00:00 CET"),
    nothing("5.6.7", "the date of RFC 850", 304, If_Modified_Since="Wednesday, 01-Jan-20 00:00:00 GMT"),
    whole("5.6.7", "its year is never 50 years ahead", If_Modified_Since="Wednesday, 01-Jan-85 00:00:00 GMT"),
    nothing("5.6.7", "the date of asctime", 304, If_Modified_Since="Wed Jan  1 00:00:00 2020"),
    # --- 13.1.4 If-Unmodified-Since ---
    whole("13.1.4", "not modified since that second", If_Unmodified_Since=DATE),
    nothing("13.1.4", "modified since", 412, If_Unmodified_Since=EARLIER),
    whole("13.1.4", "ignored beside If-Match", If_Match=TAG, If_Unmodified_Since=EARLIER),
    whole("13.1.4", "ignored when it is no date", If_Unmodified_Since="yesterday"),
    # --- 13.1.5 If-Range ---
    part("13.1.5", "the tag is still that of the file", 0, 1, If_Range=TAG, Range="bytes=0-0"),
    whole("13.1.5", "it is another", If_Range='"other"', Range="bytes=0-0"),
    whole("13.1.5", "the comparison is strong", If_Range=f"W/{TAG}", Range="bytes=0-0"),
    part("13.1.5", "the date is still that of the file", 0, 1, If_Range=DATE, Range="bytes=0-0"),
    whole("13.1.5", "it is an earlier one", If_Range=EARLIER, Range="bytes=0-0"),
    whole("13.1.5", "it is a later one: dates must be the same", If_Range=LATER, Range="bytes=0-0"),
    whole("13.1.5", "it is neither", If_Range="x", Range="bytes=0-0"),
    whole("13.1.5", "ignored without Range", If_Range='"other"'),
    whole("13.1.5", "a range that would be a 416 is not asked for then", If_Range='"other"', Range="bytes=10-"),
    # --- 13.2.2 Precedence ---
    nothing("13.2.2", "1, then 3: If-Match holds", 304, If_Match=TAG, If_None_Match=TAG),
    nothing("13.2.2", "1: If-Match fails first", 412, If_Match='"other"', If_None_Match=TAG),
    nothing("13.2.2", "2: If-Unmodified-Since fails first", 412, If_Unmodified_Since=EARLIER, If_None_Match=TAG),
    nothing("13.2.2", "2, then 4", 304, If_Unmodified_Since=DATE, If_Modified_Since=DATE),
    nothing("13.2.2", "3 before 5: a range of what is there already", 304, If_None_Match=TAG, Range="bytes=0-0"),
    nothing("13.2.2", "4 before 5", 304, If_Modified_Since=DATE, Range="bytes=99-"),
    part("13.2.2", "all hold, and 5", 0, 1, If_Match=TAG, If_None_Match='"other"', If_Range=TAG, Range="bytes=0-0"),
    # --- 14 Range requests ---
    part("14.1.1", "the unit is not case-sensitive", 0, 1, Range="Bytes=0-0"),
    whole("14.1.1", "a unit that nobody knows is ignored", Range="lines=0-0"),
    whole("14.1.1", "an invalid one is ignored: last before first", Range="bytes=4-2"),
    whole("14.1.1", "also when another is valid", Range="bytes=0-0,4-2"),
    whole("14.1.1", "no digits", Range="bytes=a-b"),
    whole("14.1.1", "digits that are none in ASCII", Range="bytes=\u00b2-"),
    whole("14.1.1", "no range", Range="bytes="),
    whole("14.1.1", "only a hyphen", Range="bytes=-"),
    whole("14.1.1", "no equals sign", Range="bytes 0-0"),
    whole("14.1.1", "something behind it", Range="bytes=0-0;x"),
    part("14.1.2", "the first byte", 0, 1, Range="bytes=0-0"),
    part("14.1.2", "the last byte, by its number", 9, 10, Range="bytes=9-9"),
    part("14.1.2", "the last bytes, by their count", 7, 10, Range="bytes=-3"),
    part("14.1.2", "more last bytes than there are", 0, 10, Range="bytes=-11"),
    part("14.1.2", "all from one on", 4, 10, Range="bytes=4-"),
    part("14.1.2", "an end beyond the end", 8, 10, Range="bytes=8-99999999999"),
    part("14.1.2", "all bytes", 0, 10, Range="bytes=0-"),
    part("14.1.2", "leading zeros", 1, 2, Range="bytes=0001-01"),
    nothing("14.1.2", "a first beyond the end can't be satisfied", 416, Range="bytes=10-"),
    nothing("14.1.2", "nor can the last zero bytes", 416, Range="bytes=-0"),
    nothing("14.1.2", "nor any of several", 416, Range="bytes=10-11, -0"),
    part("14.1.2", "one of several can", 9, 10, Range="bytes=10-11, -1"),
    part("5.6.1.2", "empty elements of a list are ignored", 0, 1, Range="bytes=, 0-0 ,\t,"),
    whole("14.2", "of other methods it is ignored: HEAD", Range="bytes=0-0")._replace(method="HEAD", body=b""),
    whole("14.2", "and POST", Range="bytes=0-0", If_None_Match=TAG, If_Match='"other"')._replace(method="POST"),
    whole("14.2", "ranges that overlap are as good as the whole", Range="bytes=0-5,3-9"),
    whole("17.15", "so are very many", Range="bytes=" + "0-0," * (MAX_RANGES + 1)),
    whole("14.3", "ranges are offered")._replace(expected={"Accept-Ranges": "bytes"}),
    # --- What the answers have ---
    whole("8.8.2", "the time of the last change")._replace(
        expected={"Last-Modified": DATE, "Content-Disposition": None, "Content-Encoding": None}
    ),
    nothing("15.4.5", "a 304 has what a cache needs, and no length", 304, If_None_Match=TAG)._replace(
        expected={"Cache-Control": "no-cache", "Content-Length": None, "Accept-Ranges": None}
    ),
]


def test_the_document_has_each_section() -> None:
    """docs/conformance.md, and no cases where there are none."""
    text = (ROOT / "docs" / "conformance.md").read_text().partition("## RFC 9110, 13 and 14: files")[2]
    rows = [
        row.split("|") for row in text.partition("\n## ")[0].splitlines() if row.startswith("|") and "its cases" in row
    ]
    assert {row[1].strip() for row in rows} == {case.section for case in CASES}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file of 10 bytes."""
    file = tmp_path / "digits.txt"
    file.write_bytes(CONTENT)
    os.utime(file, (MODIFIED, MODIFIED))
    return str(file)


def serving(path: str, **options: Any) -> Any:
    """An application that answers with a file."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return FileResponse(path, **options)(environ, start_response)

    return application


def test_rfc_9110_in_process(path: str) -> None:
    with Rows() as rows:
        for case in CASES:
            with rows(case.section, case.rule):
                response = Client(validator(serving(path))).request(case.method, "/", headers=case.fields)
                assert response.status_int == case.status
                assert case.body in {None, response.body}
                assert {name: response.headers.get(name) for name in case.expected} == case.expected


def test_rfc_9110_over_a_socket(path: str) -> None:
    with Running(serving(path)) as running, Rows() as rows:
        for case in CASES:
            with rows(case.section, case.rule):
                lines = [f"{name}: {value}" for name, value in case.fields.items()]
                response = running.get("/", *lines, method=case.method)
                assert response.status == case.status
                assert case.body in {None, response.body}
                assert response.whole
                assert {name: response.field(name) for name in case.expected} == case.expected


def test_13_1_5_a_date_is_no_strong_validator_within_its_second(path: str) -> None:
    """RFC 9110 8.8.2.2: the file may change once more in it."""
    os.utime(path, (time.time() + 60, time.time() + 60))
    date = Client(serving(path)).get("/").headers["Last-Modified"]
    response = Client(serving(path)).get("/", headers={"If-Range": date, "Range": "bytes=0-0"})
    assert response.status_int == 200


def test_8_8_2_1_no_file_is_from_the_future(path: str) -> None:
    os.utime(path, (time.time() + 3600, time.time() + 3600))
    with Running(serving(path)) as running:
        response = running.get("/")
    dates = [parsedate_to_datetime(response.field(name) or "") for name in ("Last-Modified", "Date")]
    assert dates == sorted(dates)


def test_13_2_1_conditions_are_for_a_200(path: str) -> None:
    """A page for a 404 that is a file is that page, whatever the client has."""

    def missing(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        response = FileResponse(path)
        response.status_int = 404
        return response(environ, start_response)

    response = Client(missing).get("/", headers={"If-None-Match": "*", "Range": "bytes=0-0"})
    assert (response.status_int, response.body) == (404, CONTENT)


def test_a_body_that_was_put_in_its_place_is_sent_as_it_is(path: str) -> None:
    def changed(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        response = FileResponse(path)
        response.opened.close()
        response.body = b"another"
        return response(environ, start_response)

    response = Client(changed).get("/", headers={"Range": "bytes=0-0"})
    assert (response.status_int, response.body) == (200, b"another")


def test_an_empty_file_has_no_ranges(tmp_path: Path) -> None:
    """RFC 9110 14.2: they may be ignored."""
    (tmp_path / "empty").touch()
    response = Client(serving(str(tmp_path / "empty"))).get("/", headers={"Range": "bytes=0-"})
    assert (response.status_int, response.body, response.headers["Content-Length"]) == (200, b"", "0")


def parts_of(response: Any) -> list[tuple[str, bytes]]:
    """Content-Range and content of each part of a multipart/byteranges, read by somebody else's parser."""
    head = f"Content-Type: {response.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + response.body)
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    payload: Any = message.get_payload()
    return [(each["Content-Range"], each.get_payload(decode=True)) for each in payload]


def test_14_6_several_ranges_are_a_multipart(path: str) -> None:
    response = Client(serving(path)).get("/", headers={"Range": "bytes=-1,0-1, 4-4"})
    assert response.status_int == 206
    assert "Content-Range" not in response.headers
    assert parts_of(response) == [("bytes 9-9/10", b"9"), ("bytes 0-1/10", b"01"), ("bytes 4-4/10", b"4")]
    assert b"Content-Type: text/plain; charset=utf-8\r\n" in response.body
    assert response.headers["Content-Length"] == str(len(response.body))


def test_17_15_so_many_ranges_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(1000))
    for count, status in ((MAX_RANGES, 206), (MAX_RANGES + 1, 200)):
        field = "bytes=" + ",".join(f"{begin}-{begin}" for begin in range(0, 2 * count, 2))
        assert Client(serving(str(tmp_path / "f"))).get("/", headers={"Range": field}).status_int == status


def test_whatever_ranges_are_asked_for_the_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    dice = random.Random(14)
    content = dice.randbytes(5000)
    (tmp_path / "f").write_bytes(content)
    client = Client(serving(str(tmp_path / "f")))
    several = 0
    for _ in range(300):
        begins = sorted(dice.sample(range(0, 6000, 50), dice.randint(1, 6)))
        specs = [(begin, begin + dice.randrange(50)) for begin in begins]
        response = client.get("/", headers={"Range": "bytes=" + ",".join(f"{a}-{b}" for a, b in specs)})
        found = [(a, content[a : b + 1]) for a, b in specs if a < len(content)]
        assert response.status_int == (206 if found else 416)
        if len(found) > 1:
            several += 1
            assert [body for _, body in parts_of(response)] == [body for _, body in found]
        elif found:
            assert response.body == found[0][1]
    assert several > 100


def test_a_file_of_4_gib_has_ranges(tmp_path: Path) -> None:
    """A sparse one: nothing but the ranges is read, or sent."""
    size = 4 * 1024**3 + 10
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(size)
        for place, text in ((0, b"first"), (size // 2, b"middle"), (size - 4, b"last")):
            file.seek(place)
            file.write(text)
    if os.stat(tmp_path / "sparse").st_blocks > 10_000:
        pytest.skip("this file system has no sparse files")
    with Running(serving(str(tmp_path / "sparse"))) as running:
        for spec, begin, body in (
            ("0-4", 0, b"first"),
            (f"{size // 2}-{size // 2 + 5}", size // 2, b"middle"),
            (f"{size - 4}-", size - 4, b"last"),
            ("-4", size - 4, b"last"),
            (f"{size - 4}-{size * 2}", size - 4, b"last"),
        ):
            response = running.get("/", f"Range: bytes={spec}")
            assert (response.status, response.body) == (206, body)
            assert response.field("Content-Range") == f"bytes {begin}-{begin + len(body) - 1}/{size}"
        assert running.get("/", method="HEAD").field("Content-Length") == str(size)
        both = running.get("/", f"Range: bytes=0-4,{size - 4}-")
        assert b"first" in both.body
        assert b"last" in both.body
        assert running.get("/", f"Range: bytes={size}-").field("Content-Range") == f"bytes */{size}"


def test_the_kernel_sends_a_file_and_a_range_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = random.Random(1).randbytes(300_000)
    (tmp_path / "f").write_bytes(content)
    sent = []
    sendfile = os.sendfile

    def counted(out: int, file: int, offset: int, count: int) -> int:
        sent.append(done := sendfile(out, file, offset, count))
        return done

    monkeypatch.setattr(os, "sendfile", counted)
    with Running(serving(str(tmp_path / "f"))) as running:
        assert running.get("/").body == content
        assert sum(sent) == 300_000
        assert running.get("/", "Range: bytes=50000-").body == content[50_000:]
        assert sum(sent) == 550_000
        assert running.get("/", method="HEAD").body == b""
        assert sum(sent) == 550_000


@pytest.mark.parametrize(
    ("server", "fields", "wrapped"),
    [
        ({}, {}, True),
        ({}, {"Range": "bytes=2-"}, True),
        ({}, {"Range": "bytes=0-0,2-2"}, False),
        ({"uwsgi.version": b"2"}, {}, True),
        ({"uwsgi.version": b"2"}, {"Range": "bytes=2-"}, False),
    ],
)
def test_what_goes_through_the_file_wrapper(
    path: str, server: dict[str, Any], fields: dict[str, str], wrapped: bool
) -> None:
    """A server that is uWSGI sends a file from its beginning, wherever it stands: ranges are not for its wrapper."""
    request = Request.blank("/", headers=fields)
    request.environ.update(server, **{"wsgi.file_wrapper": FileWrapper})
    _, headers, body = request.call_application(serving(path))
    assert isinstance(body, FileWrapper) == wrapped
    assert sum(map(len, body)) == int(dict(headers)["Content-Length"])
    body.close()  # type: ignore[attr-defined]


SENT_BY_OTHERS = """
from microwsgi.framework.files import FileResponse


def app(environ, start_response):
    return FileResponse("f")(environ, start_response)
"""


@pytest.mark.parametrize("server", PEERS)
def test_a_file_is_the_same_on_each_server(server: str, tmp_path: Path) -> None:
    """Whatever their file wrappers make of it."""
    content = random.Random(1).randbytes(1_000_000)
    (tmp_path / "f").write_bytes(content)
    (tmp_path / "files.py").write_text(SENT_BY_OTHERS)
    with serving_on(server, tmp_path, "files:app") as url:
        for spec, expected in (
            ("", content),
            ("400000-", content[400_000:]),
            ("5-9", content[5:10]),
            ("-3", content[-3:]),
        ):
            request = urllib.request.Request(url, headers={"Range": f"bytes={spec}"})  # noqa: S310 - ours
            with urlopen(request, timeout=TIME) as response:  # noqa: S310
                assert response.status == (206 if spec else 200)
                assert response.read() == expected


def test_a_file_that_grows_is_sent_as_long_as_was_said(path: str) -> None:
    _, _, body = Request.blank("/").call_application(serving(path))
    with open(path, "ab") as file:
        file.write(b"more")
    assert b"".join(body) == CONTENT
    body.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("fields", [{}, {"If-None-Match": "*"}, {"Range": "bytes=0-0,2-2"}, {"Range": "bytes=10-"}])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_file_is_closed(path: str, fields: dict[str, str], method: str) -> None:
    """Whatever is made of it; a descriptor left open is an error of this test."""
    before = os.listdir("/proc/self/fd")
    Client(serving(path)).request(method, "/", headers=fields)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.HTML", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.md", "text/markdown; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.wasm", "application/wasm"),
        ("a.woff2", "font/woff2"),
        ("a.webp", "image/webp"),
        ("a.tar.gz", "application/gzip"),
        ("a.txt.gz", "application/gzip"),
        ("a.svgz", "application/gzip"),
        ("a.tar.xz", "application/octet-stream"),
        ("a.unknown", "application/octet-stream"),
        ("Makefile", "application/octet-stream"),
    ],
)
def test_the_content_type_is_by_the_name(name: str, kind: str) -> None:
    assert content_type(f"/folder.css/{name}") == kind


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("a b.txt", 'attachment; filename="a b.txt"'),
        ("ä.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A4.txt"),
        ('"\\\r\n', "attachment; filename=\"____\"; filename*=UTF-8''%22%5C%0D%0A"),
        ("\udcff", "attachment; filename=\"_\"; filename*=UTF-8''%3F"),
    ],
)
def test_an_attachment_keeps_its_name_and_nothing_gets_out_of_the_field(name: str, field: str) -> None:
    """RFC 6266 4.3."""
    assert attachment(name) == field


def test_a_download_has_its_own_name_or_another(path: str) -> None:
    fields = [FileResponse(path, download=each, max_age=60) for each in (True, "other.txt")]
    assert [each.headers["Content-Disposition"] for each in fields] == [
        'attachment; filename="digits.txt"',
        'attachment; filename="other.txt"',
    ]
    assert {each.headers["Cache-Control"] for each in fields} == {"max-age=60"}
    for each in fields:
        each.opened.close()
