"""microwsgi/framework/static.py: a folder's files, in every form that suits the client, and nothing that lies elsewhere."""

from __future__ import annotations

import errno
import itertools
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urljoin

import pytest
from webob import Response

from microwsgi.errors import RouteError
from microwsgi.framework.app import App
from microwsgi.framework.static import human, preferred
from microwsgi.testing import Client
from tests.running import environment, python
from tests.server.exchange import Running
from tests.tables import Rows

WITHOUT_POSIX = """
import os, sys
for name in ("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK"):
    delattr(os, name)
os.supports_dir_fd = set()
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
from microwsgi import App, FileResponse
from microwsgi.errors import RouteError
app = App()
app.get("/")(lambda request: "hello")
print(app.url_for("<lambda>"))
try:
    app.static("/files", ".")
except RouteError as error:
    print(error)
"""
"""What Windows has not."""
SECRET = "not for you"


def test_without_what_files_need_the_rest_of_the_framework_is_there() -> None:
    done = subprocess.run(python("-c", WITHOUT_POSIX), check=False, env=environment(), capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "/",
        "static files are not available on this system: it can't open files relative to an open directory.",
    ]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with one of each, beside what must not be seen."""
    site = tmp_path / "site"
    for name in ("docs", "docs/deep", "empty", ".git", ".well-known"):
        (site / name).mkdir(parents=True)
    for name in ("index.html", "a.txt", "docs/page.html", "docs/deep/ä&<b>.txt", ".env", ".git/config"):
        (site / name).write_text(f"<p>this is {name}")
    (site / ".well-known/security.txt").write_text("Contact: us")
    (tmp_path / "site-secret").mkdir()
    for name in ("secret.txt", "site-secret/secret.txt"):
        (tmp_path / name).write_text(SECRET)
    (site / "link.txt").symlink_to("a.txt")
    (site / "out.txt").symlink_to("../secret.txt")
    (site / "out").symlink_to("..")
    (site / "loop").symlink_to("loop")
    os.mkfifo(site / "pipe")
    return site


def client(site: Path, **options: Any) -> Client:
    app = App()
    app.static("/assets", site, **options)
    return Client(app)


# --- Files and folders ------------------------------------------------------------------------------------------------


def test_a_file_is_served_with_its_type_and_its_tag(site: Path) -> None:
    response = client(site).get("/assets/a.txt").expect(text="this is a.txt")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Vary" not in response.headers
    client(site).get("/assets/a.txt", headers={"If-None-Match": response.headers["ETag"]}).expect(304)
    assert client(site).head("/assets/a.txt").headers["Content-Length"] == str(len(response.body))
    client(site).post("/assets/a.txt").expect(405)
    assert client(site, max_age=60).get("/assets/a.txt").headers["Cache-Control"] == "max-age=60"


def test_a_folder_has_its_index_at_its_slash(site: Path) -> None:
    client(site).get("/assets/").expect(text="this is index.html")
    client(site, index="a.txt").get("/assets/").expect(text="this is a.txt")
    client(site).get("/assets/empty/").expect(404)
    response = client(site).get("/assets/docs?a=1").expect(308)
    assert response.headers["Location"] == "./docs/?a=1"
    client(site, index="page.html").get("/assets/docs", follow=True).expect(text="docs/page.html")
    client(site).get("/assets", follow=True).expect(text="this is index.html")


def test_what_is_not_there_is_a_404_that_names_no_folder_of_ours(site: Path) -> None:
    for path in ("none", "none/none", "a.txt/", "a.txt/none", "docs//page.html", "/a.txt", "x" * 300, "a%00b", "pipe"):
        response = client(site).get(f"/assets/{path}").expect(404)
        assert str(site.parent) not in response.text
    client(site).get("/assets/%FF").expect(400)


def test_a_socket_is_no_file(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        client(site).get("/assets/socket").expect(404)


@pytest.mark.parametrize("path", ["docs/deep/ä&<b>.txt", "docs/", "docs/none/none", "docs/page.html/none"])
def test_no_folder_stays_open(site: Path, path: str) -> None:
    before = os.listdir("/proc/self/fd")
    client(site, listing=True).get(f"/assets/{quote(path)}")
    assert os.listdir("/proc/self/fd") == before


def test_what_becomes_a_folder_meanwhile_is_a_404(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at it and the opening; a file descriptor that was left open would be an error of this test."""
    stat = os.stat
    as_file = stat(site / "a.txt")
    monkeypatch.setattr(os, "stat", lambda name, **options: as_file if name == "docs" else stat(name, **options))
    before = os.listdir("/proc/self/fd")
    client(site).get("/assets/docs").expect(404)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(("number", "status"), [(errno.EACCES, 403), (errno.EPERM, 403), (errno.ENXIO, 404)])
def test_what_must_not_be_read_is_a_403(site: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int) -> None:
    def refuse(path: str, flags: int, **options: Any) -> int:
        if path == "a.txt":
            raise OSError(number, "no", str(site))
        return opened(path, flags, **options)

    opened = os.open
    monkeypatch.setattr(os, "open", refuse)
    assert str(site.parent) not in client(site).get("/assets/a.txt").expect(status).text


def test_what_is_the_machines_fault_is_told_to_its_owner(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> int:
        raise OSError(errno.EMFILE, "too many")

    files = client(site)
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="too many"):
        files.get("/assets/a.txt")


def test_dotfiles_are_not_served_by_default(site: Path) -> None:
    for name in (".env", ".git/config", ".git/", ".git"):
        client(site).get(f"/assets/{name}").expect(404)
    client(site).get("/assets/.well-known/security.txt").expect(200)
    client(site, dotfiles=True).get("/assets/.git/config").expect(200)


def test_symbolic_links_are_followed_only_when_asked(site: Path) -> None:
    """Then wherever they lead: whoever asks has made them."""
    for name in ("link.txt", "out.txt", "out/secret.txt", "out/", "loop"):
        client(site, listing=True).get(f"/assets/{name}").expect(404)
    for name in ("link.txt", "out.txt", "out/secret.txt"):
        client(site, symlinks=True).get(f"/assets/{name}").expect(200)
    client(site, symlinks=True).get("/assets/loop").expect(404)
    (site.parent / "way").symlink_to("site")
    client(site.parent / "way").get("/assets/a.txt").expect(200)  # the folder itself may be one


def test_a_folder_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(RouteError, match="there is no directory"):
        App().static("/", str(tmp_path / "none"))


def test_several_folders_and_views_live_side_by_side(site: Path) -> None:
    app = App()
    app.static("/", str(site))
    app.static("/docs", str(site / "docs"), name="docs")
    app.get("/a.txt")(lambda request: "the view")
    Client(app).get("/a.txt").expect(text="the view")
    Client(app).get("/docs/page.html").expect(text="docs/page.html")
    Client(app).get("/").expect(text="index.html")
    assert app.url_for("static", path="a b.txt") == "/a%20b.txt"
    assert app.url_for("docs") == "/docs/"


def test_the_folder_may_lie_below_a_mounted_application(site: Path) -> None:
    inner, outer = App(), App()
    inner.static("/files", str(site), index="page.html")
    outer.mount("/inner", inner)
    Client(outer).get("/inner/files/docs", follow=True).expect(text="docs/page.html")


# --- Precompressed siblings ---------------------------------------------------------------------------------------------


@pytest.fixture
def coded(site: Path) -> Path:
    """style.css with three siblings, br the shortest."""
    (site / "style.css").write_text("body {}" * 10)
    for end, size in ((".br", 10), (".gz", 30), (".zst", 20)):
        (site / f"style.css{end}").write_text(end * (size // 2))
    return site


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, zstd", "zstd"),
        ("gzip;q=1, br;q=0.5", "gzip"),
        ("gzip;q=0.5", "gzip"),
        ("br;q=0", None),
        ("*", "br"),
        ("br;q=0, *", "zstd"),
        ("*;q=0", None),
        ("gzip;q=0.5, identity;q=0.8", None),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("identity", None),
        ("compress, x-unknown", None),
        ("gzip;q=2", None),
        ("gzip;;", None),
        ("a" * 7000 + ";", None),
    ],
)
def test_the_coding_that_the_client_likes_best(coded: Path, accept: str | None, coding: str | None) -> None:
    """RFC 9110 12.5.3; of several the shortest."""
    fields = {} if accept is None else {"Accept-Encoding": accept}
    response = client(coded).get("/assets/style.css", headers=fields)
    assert response.headers.get("Content-Encoding") == coding
    assert response.headers["Vary"] == "Accept-Encoding"
    assert response.headers["Content-Type"] == "text/css; charset=utf-8"
    assert response.headers["Content-Length"] == str(len(response.body))
    assert coding is None or coding in response.headers["ETag"]


def test_each_coding_has_its_own_tag_and_ranges(coded: Path) -> None:
    """RFC 9110 8.8.3.3: they are different representations; ranges are of what is sent."""
    plain, zipped = (client(coded).get("/assets/style.css", headers={"Accept-Encoding": each}) for each in ("", "gzip"))
    assert plain.headers["ETag"] != zipped.headers["ETag"]
    fields = {"Accept-Encoding": "gzip", "If-None-Match": zipped.headers["ETag"]}
    response = client(coded).get("/assets/style.css", headers=fields).expect(304)
    assert response.headers["Vary"] == "Accept-Encoding"
    response = client(coded).get("/assets/style.css", headers={"Accept-Encoding": "gzip", "Range": "bytes=0-2"})
    assert (response.status_int, response.body) == (206, b".gz")
    assert response.headers["Content-Encoding"] == "gzip"


def test_a_sibling_that_is_older_is_out_of_date(coded: Path) -> None:
    os.utime(coded / "style.css.br", (1, 1))
    response = client(coded).get("/assets/style.css", headers={"Accept-Encoding": "br"})
    assert "Content-Encoding" not in response.headers


def test_siblings_are_asked_for_by_their_names_too(coded: Path) -> None:
    response = client(coded).get("/assets/style.css.gz", headers={"Accept-Encoding": "gzip"})
    assert response.headers["Content-Type"] == "application/gzip"
    assert "Content-Encoding" not in response.headers
    (coded / "style.css").unlink()
    client(coded).get("/assets/style.css", headers={"Accept-Encoding": "gzip"}).expect(404)


def test_a_sibling_does_not_lead_outside(site: Path) -> None:
    (site / "a.txt.gz").symlink_to("../secret.txt")
    (site / "a.txt.br").mkdir()
    response = client(site).get("/assets/a.txt", headers={"Accept-Encoding": "gzip, br"})
    assert response.text == "<p>this is a.txt"


def test_nothing_is_accepted_and_nothing_is_there() -> None:
    assert preferred([("identity", 0.0)], {"identity": 1}) == "identity"


# --- Listings -------------------------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """What a page links to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "b", "a name is no HTML"
        if tag == "a":
            self.found.append(dict(attrs)["href"] or "")


def test_a_listing_has_what_can_be_had_folders_first(site: Path) -> None:
    files = client(site, listing=True, index="")
    links = Links(files.get("/assets/").expect(text="<h1>/assets/</h1>").text).found
    assert links == ["./.well-known/", "./docs/", "./empty/", "./a.txt", "./index.html"]
    for link in links:
        files.get(urljoin("/assets/", link)).expect(200)
    assert Links(files.get("/assets/empty/").expect(text="0 entries").text).found == ["../"]
    assert files.get("/assets/docs/deep/").expect(text="1 entry").headers["Cache-Control"] == "no-cache"
    assert files.head("/assets/").expect().body == b""


def test_a_listing_quotes_names(site: Path) -> None:
    files = client(site, listing=True)
    (site / "docs/javascript:alert(1)").touch()
    os.mkdir(os.fsencode(site / "docs") + b"/\xff")
    links = Links(files.get("/assets/docs/").text).found
    assert links == ["../", "./deep/", "./javascript%3Aalert%281%29", "./page.html"]
    page = files.get("/assets/docs/deep/").expect(text="ä&amp;&lt;b&gt;.txt")
    files.get(urljoin("/assets/docs/deep/", Links(page.text).found[1])).expect(text="docs/deep/")


def test_a_listing_shows_links_only_when_they_are_followed(site: Path) -> None:
    assert "out" not in client(site, listing=True, index="").get("/assets/").text
    followed = client(site, listing=True, index="", symlinks=True).get("/assets/").text
    assert "./out/" in followed
    assert "loop" not in followed


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (1536, "1.5 KiB"), (10**9, "953.7 MiB"), (2**60, "1048576.0 TiB")],
)
def test_sizes_are_short(size: int, text: str) -> None:
    assert human(size) == text


# --- Nothing outside --------------------------------------------------------------------------------------------------------

ASCENTS = (
    "..", ".", "...", "....", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "%25252e%25252e", "%c0%ae%c0%ae", "%c0%2e%c0%2e",
    "%e0%80%ae%e0%80%ae", "%f0%80%80%ae.", "%ef%bc%8e%ef%bc%8e", "%u002e%u002e", "..%00", "..;", "..;a=b", "%2e%2e%20", "..%0a",
    "..%20.", "%ed%a0%80..", "~", "..::$DATA", "*",
)  # fmt: skip
"""Ways to write "the folder above", or what somebody may have taken for it."""
SEPARATORS = (
    "/", "//", "%2f", "%2F", "\\", "%5c", "%255c", "%252f", "%c0%af", "%c1%9c", "%e0%80%af", "%ef%bc%8f", "%e2%88%95", "/./",
    "%00/", "/%00", "\\/", "%2f/", ";/", "%u2215",
)  # fmt: skip
BEGINS = ("", "/", "docs/", "docs/deep/", "a.txt/", "none/", "out/", "C:", "c:\\", "file://", "//localhost/", "%00")
GOALS = (
    "secret.txt",
    "SECRET.TXT",
    "site-secret/secret.txt",
    "etc/passwd",
    "etc/passwd%00.txt",
    "secret.txt%20",
    "secret.txt.gz",
)
TRAPS = (
    "/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", "out.txt", "out/secret.txt", "out/site-secret/secret.txt", "loop",
    "OUT.TXT", "out.txt%00.html", "docs/../../secret.txt", "link.txt/../../secret.txt", "-secret/secret.txt",
    "%2e%2e/site-secret/secret.txt", "../site-secret/secret.txt", "..site-secret/secret.txt", "pipe", "proc/self/environ",
    "/proc/self/cwd/../secret.txt", "/dev/fd/0", "C:%5cWindows%5cwin.ini", "aux", "nul", "con.txt", "secre~1.txt",
)  # fmt: skip
AROUND = (
    "/assets../secret.txt", "/assets..%2fsecret.txt", "/assets%2f../secret.txt", "/assets%2f..%2fsecret.txt", "/../secret.txt",
    "/assets-secret/secret.txt", "/%61ssets/../secret.txt", "/ASSETS/../secret.txt", "//assets/../secret.txt", "/..%2f",
    "/assets\\..\\secret.txt", "/assets;/../secret.txt", "/assets/../assets/../secret.txt", "/./assets/../secret.txt", "/..",
)  # fmt: skip
"""Targets that may get past the prefix."""
COUNT = 6000


def attempts() -> list[str]:
    """Targets that look for what lies outside: a choice of all combinations, and traps for this very folder."""
    dice = random.Random(22)
    deep = [1, 2, 3, 12]
    combined = list(itertools.product(BEGINS, ASCENTS, SEPARATORS, deep, GOALS))
    plain = [(begin, "..", "/", depth, goal) for begin in BEGINS for depth in deep for goal in GOALS]
    chosen = [*plain, *dice.sample(combined, COUNT)]
    paths = [
        "/assets/" + begin + (ascent + separator) * depth + goal for begin, ascent, separator, depth, goal in chosen
    ]
    return [*AROUND, *(f"/assets/{trap}" for trap in TRAPS), *dict.fromkeys(paths)]


ATTEMPTS = attempts()
INSIDE = {b"<p>this is a.txt", b"<p>this is index.html"}


def leaks(body: bytes, site: Path) -> bool:
    """Whether something from outside the folder is in a body, or where the folder lies."""
    return SECRET.encode() in body or b"root:" in body or os.fsencode(site.parent) in body


def in_process(application: Any, target: str) -> Response:
    """The response to a target, decoded as a server does."""
    info = unquote_to_bytes(target).decode("latin-1")
    return Client(application).get("/", environ={"PATH_INFO": info})


def test_there_are_enough_attempts() -> None:
    assert len(ATTEMPTS) > 5000


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"dotfiles": True, "listing": True}, marks=pytest.mark.slow),
        pytest.param({"symlinks": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_no_attempt_finds_what_lies_outside_in_process(site: Path, options: dict[str, bool]) -> None:
    app = client(site, **options).application
    statuses = set()
    with Rows() as rows:
        for target in ATTEMPTS:
            if options.get("symlinks") and target.startswith("/assets/out"):
                continue  # it leads there, as it was asked to
            with rows(target):
                response = in_process(app, target)
                statuses.add(response.status_int)
                assert response.status_int != 200 or response.body in INSIDE or "<h1>/assets/" in response.text
                assert not leaks(response.body, site)
    assert statuses <= {200, 308, 400, 404}


def test_the_attempts_find_what_a_careless_view_lets_out(site: Path) -> None:
    """They can succeed: so many of them where nobody looks."""
    app = App()

    @app.get("/assets/{path:path}")
    def careless(request: Any, path: str) -> bytes:
        try:
            return Path(f"{site}/{path.partition(chr(0))[0]}").read_bytes()
        except OSError:
            return b""

    found = [target for target in ATTEMPTS if "pipe" not in target and leaks(in_process(app, target).body, site)]
    assert len(found) > 20


def exchanges(running: Running) -> Iterator[tuple[str, int, bytes]]:
    """What a server answers to each; what it refuses ends a connection, and it is asked on with the next."""
    targets = ATTEMPTS
    while targets:
        requests = [f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for target in targets[:50]]
        responses = running.send(b"".join(requests))
        assert responses
        for target, response in zip(targets, responses, strict=False):
            yield target, response.status, response.body
        targets = targets[len(responses) :]


@pytest.mark.slow
def test_no_attempt_finds_what_lies_outside_over_a_socket(site: Path) -> None:
    with Running(client(site).application) as running, Rows() as rows:
        for target, status, body in exchanges(running):
            with rows(target):
                assert status in {200, 308, 400, 404}
                assert status != 200 or body in INSIDE
                assert not leaks(body, site)
    assert rows.count == len(ATTEMPTS)
    assert "rror" not in running.errors.text.getvalue()
