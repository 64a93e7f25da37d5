"""`--reload` and `--workers`: a parent that never imports the application, and children that are replaced unnoticed."""

from __future__ import annotations

import functools
import os
import py_compile
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path
from textwrap import dedent

import pytest

from microwsgi import serve
from microwsgi.errors import UsageError
from tests.running import LIMIT, Running, environment

Command = Callable[..., Running]

APPLICATION = """
    import os
    import helper

    open("imports", "a").write(f"{os.getpid()}\\n")

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/gate":
            import time
            open("began", "w").close()
            while not os.path.exists("go"):
                time.sleep(0.005)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{helper.VALUE} {os.getpid()}".encode()]
    """


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(dedent(APPLICATION))
    (tmp_path / "helper.py").write_text("VALUE = 1\n")
    return tmp_path


def fetch(url: str, path: str = "/", **fields: str) -> tuple[int, str]:
    """Status and body of a request on a connection of its own."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=LIMIT)
    try:
        connection.request("GET", path, headers=fields)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def value(url: str) -> str:
    """What the helper holds, in the process that answers."""
    return fetch(url)[1].split()[0]


def eventually(expected: object, look: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + LIMIT
    while (found := look()) != expected:
        assert time.monotonic() < end, f"still {found!r}, not {expected!r}"
        time.sleep(0.002)


BOTH = pytest.mark.parametrize("how", [(), ("--reload-poll",)], ids=["inotify", "polling"])


@BOTH
def test_what_is_saved_is_served_and_what_is_broken_is_not(
    command: Command, folder: Path, how: tuple[str, ...]
) -> None:
    running = command("serve", "main", "-p", "0", "--reload", *how, cwd=folder)
    url = running.url()
    running.line("Reloads on save")
    assert value(url) == "1"
    (folder / "helper.py").write_text("VALUE = 2\n")
    running.line(r"changed: helper\.py; serving main:app after \d+ ms")
    assert value(url) == "2"
    (folder / "helper.py").write_text("VALUE = = 3\n")
    running.line(r"^microwsgi: helper\.py:1: SyntaxError: ")
    running.line(r"^     1 \| VALUE = = 3$")
    running.line(r"\^")
    said = running.line(r"^  Changed: helper\.py\. The last good version is still being served \(PID \d+\)\.$")
    assert running.line("retry") == "  Save again to retry.", "only with --debug there is a page to show"
    number, pid = fetch(url)[1].split()
    assert number == "2"
    assert f"(PID {pid})" in said
    (folder / "helper.py").write_text("VALUE = 3\n")
    running.line(r"fixed: helper\.py; serving main:app")
    assert value(url) == "3"
    assert running.stop(signal.SIGINT) == 0
    assert running.read_lines[-1].startswith("Stopped. ")


def test_a_start_with_a_broken_application_shows_why_until_it_is_mended(command: Command, folder: Path) -> None:
    (folder / "helper.py").write_text("VALUE = = 3\n")
    running = command("dev", "main", "-p", "0", cwd=folder)
    running.line(r"^microwsgi: helper\.py:1: SyntaxError: ")
    url = running.url()
    eventually(500, lambda: fetch(url)[0])
    token = {"Microwsgi-Token": running.token()}
    assert "helper.py:1: SyntaxError: " in fetch(url, **token)[1]
    assert "SyntaxError" not in fetch(url)[1], "it is nobody else's"
    (folder / "helper.py").write_text("VALUE = missing\n")
    running.line("name 'missing' is not defined")
    running.line("Until a saved file fixes this, the error is also shown at http")
    eventually(True, lambda: "name 'missing' is not defined" in fetch(url, **token)[1])
    (folder / "helper.py").write_text("VALUE = 3\n")
    running.line("fixed: helper.py")
    running.line("serving main:app")
    assert value(url) == "3"


def test_hup_replaces_the_workers_and_a_killed_one_is_replaced(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-p", "0", "--workers", "2", cwd=folder)
    url = running.url()
    running.line("2 workers")
    eventually(2, lambda: len({fetch(url)[1].split()[1] for _ in range(30)}))
    before = {fetch(url)[1].split()[1] for _ in range(30)}
    (folder / "helper.py").write_text("VALUE = 2\n")
    assert value(url) == "1"
    running.send_signal(signal.SIGHUP)
    running.line("reloaded; serving main:app")
    assert value(url) == "2", "what is said to be served is all that is served"
    assert not before & {fetch(url)[1].split()[1] for _ in range(30)}
    victim = int(fetch(url)[1].split()[1])
    os.kill(victim, signal.SIGKILL)
    running.line(rf"Worker {victim} was killed by SIGKILL; a new worker starts")
    assert value(url) == "2"
    assert running.stop(signal.SIGTERM) == 0


def test_hup_takes_no_compiled_file_for_new_code(command: Command, folder: Path) -> None:
    """Python takes one for fresh that has the size of the source, and the second in which it was changed."""
    status = (folder / "helper.py").stat()
    running = command("serve", "main", "-p", "0", "--workers", "1", cwd=folder, PYTHONDONTWRITEBYTECODE="")
    url = running.url()
    assert value(url) == "1"
    assert list(folder.glob("__pycache__/helper.*"))
    (folder / "helper.py").write_text("VALUE = 2\n")
    os.utime(folder / "helper.py", ns=(status.st_atime_ns, status.st_mtime_ns))
    running.send_signal(signal.SIGHUP)
    running.line("reloaded; serving main:app")
    assert value(url) == "2"


def test_without_reload_a_broken_application_is_the_end_of_the_start(command: Command, folder: Path) -> None:
    (folder / "helper.py").write_text("1 / 0\n")
    running = command("serve", "main", "-p", "0", "--workers", "2", cwd=folder)
    assert running.wait() == 3
    assert "ZeroDivisionError" in running.output


def test_children_stop_when_their_parent_is_killed(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-p", "0", "--workers", "2", cwd=folder)
    url = running.url()
    pids = [int(fetch(url)[1].split()[1])]
    running.send_signal(signal.SIGKILL)
    eventually([], lambda: [pid for pid in pids if Path(f"/proc/{pid}").exists()])


def test_the_parent_never_imports_the_application_and_a_child_does_it_once(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-p", "0", "--reload", cwd=folder)
    url = running.url()
    for number in range(2, 6):
        (folder / "helper.py").write_text(f"VALUE = {number}\n")
        eventually(str(number), functools.partial(value, url))
    pids = (folder / "imports").read_text().split()
    assert len(pids) == len(set(pids)) == 5
    assert str(running.pid) not in pids


def test_a_request_that_runs_is_finished_by_the_old_code(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-p", "0", "--reload", "--graceful-timeout", "0.1", cwd=folder)
    url = running.url()
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(fetch, url, "/gate")
        eventually(True, (folder / "began").exists)
        (folder / "helper.py").write_text("VALUE = 2\n")
        eventually("2", lambda: value(url))
        time.sleep(0.3)  # no waiting for something: three times graceful_timeout, which is for a stop
        (folder / "go").touch()
        assert slow.result(LIMIT)[1].split()[0] == "1"
    old = slow.result()[1].split()[1]
    eventually(False, Path(f"/proc/{old}").exists)
    assert running.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "Ctrl-C"])
def test_a_request_without_end_is_told_of_and_ended_by_who_wants_that(command: Command, folder: Path, end: str) -> None:
    running = command("serve", "main", "-p", "0", "--reload", "--graceful-timeout", "0.1", cwd=folder)
    url = running.url()
    with ThreadPoolExecutor() as pool:
        endless = pool.submit(fetch, url, "/gate")
        eventually(True, (folder / "began").exists)
        (folder / "helper.py").write_text("VALUE = 2\n")
        told = running.line(r"Process \d+, with the old code, still waits for 1 request \(GET /gate, \d+\.\d s\)")
        found = re.search(r"`kill (\d+)` ends it", told)
        assert found
        if end == "kill":
            os.kill(int(found[1]), signal.SIGTERM)
        else:
            running.send_signal(signal.SIGINT)
        running.line(r"Requests aborted .*: 1\.")
        with pytest.raises((RemoteDisconnected, ConnectionResetError)):
            endless.result(LIMIT)
    eventually(False, Path(f"/proc/{found[1]}").exists)
    if end == "kill":
        assert value(url) == "2", "the new code serves on"


def test_a_stop_waits_for_what_old_code_runs_too(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-p", "0", "--reload", cwd=folder)
    url = running.url()
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(fetch, url, "/gate")
        eventually(True, (folder / "began").exists)
        (folder / "helper.py").write_text("VALUE = 2\n")
        eventually("2", lambda: value(url))
        running.send_signal(signal.SIGINT)
        running.line(r"Stopping; waiting for 1 request \(GET /gate")
        (folder / "go").touch()
        assert slow.result(LIMIT)[1].split()[0] == "1"
    assert running.wait() == 0


def test_a_second_signal_ends_all_at_once(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-p", "0", "--workers", "2", "--graceful-timeout", "60", cwd=folder)
    url = running.url()
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(fetch, url, "/gate")
        eventually(True, (folder / "began").exists)
        running.send_signal(signal.SIGTERM)
        running.line("Stopping; waiting for 1 request")
        start = time.monotonic()
        assert running.stop(signal.SIGTERM) == 0
        assert time.monotonic() - start < 3
        with pytest.raises((RemoteDisconnected, ConnectionResetError)):
            slow.result(LIMIT)
    assert running.read_lines[-1] == "Stopped immediately."


def test_a_worker_that_dies_at_the_start_is_tried_again_after_longer_and_longer(command: Command, folder: Path) -> None:
    (folder / "helper.py").write_text("import os\nVALUE = 1\nif os.path.exists('die'): os._exit(3)\n")
    running = command("serve", "main", "-p", "0", "--workers", "1", cwd=folder)
    url = running.url()
    victim = int(fetch(url)[1].split()[1])
    (folder / "die").touch()
    os.kill(victim, signal.SIGSEGV)
    running.line(f"Worker {victim} was killed by SIGSEGV; a new worker starts.")
    running.line(r"Worker \d+ ended with code 3; a new worker starts in 0.5 s\.")
    running.line(r"Worker \d+ ended with code 3; a new worker starts in 1 s\.")
    (folder / "die").unlink()
    assert value(url) == "1", "who connects meanwhile is not refused"


def test_a_start_that_dies_is_no_start(command: Command, folder: Path) -> None:
    (folder / "helper.py").write_text("import os\nos._exit(5)\n")
    running = command("serve", "main", "-p", "0", "--workers", "2", cwd=folder)
    assert running.wait() == 3
    assert "the process that imports the application ended with code 5" in running.output


def test_with_reload_such_a_death_is_shown_until_the_code_is_better(command: Command, folder: Path) -> None:
    (folder / "helper.py").write_text("import os\nos._exit(5)\n")
    running = command("dev", "main", "-p", "0", cwd=folder)
    running.line("the process that imports the application ended with code 5")
    url = running.url()
    eventually(500, lambda: fetch(url)[0])
    assert "ended with code 5" in fetch(url, **{"Microwsgi-Token": running.token()})[1]
    (folder / "main.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'well']\n"
    )
    running.line("fixed: main.py")
    assert fetch(url) == (200, "well")


def test_two_workers_share_new_connections(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-p", "0", "--workers", "2", "--access-log", "off", cwd=folder)
    url = running.url()
    eventually(2, lambda: len({fetch(url)[1] for _ in range(10)}))
    with ThreadPoolExecutor(8) as pool:
        counts = Counter(pool.map(lambda _: fetch(url)[1], range(200)))
    assert len(counts) == 2
    assert min(counts.values()) > 20, counts
    assert running.stop() == 0
    assert int(re.search(r"Stopped\. (\d+) requests", running.output)[1]) >= 210  # type: ignore[index]


def test_an_application_that_replaces_signal_handlers_is_steered_all_the_same(command: Command, folder: Path) -> None:
    (folder / "helper.py").write_text(
        "import signal\nVALUE = 1\n"
        "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)\n"
    )
    running = command("serve", "main", "-p", "0", "--workers", "2", cwd=folder)
    url = running.url()
    assert value(url) == "1"
    running.send_signal(signal.SIGHUP)
    running.line("reloaded")
    assert value(url) == "1"
    assert running.stop() == 0


def test_the_access_log_has_the_lines_of_all_workers(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-p", "0", "--workers", "2", "--access-log", "log", cwd=folder)
    url = running.url()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: fetch(url, f"/{number}"), range(100)))
    assert running.stop() == 0
    lines = (folder / "log").read_text().splitlines()
    assert sorted(int(re.search(r'"GET /(\d+) ', line)[1]) for line in lines) == list(range(100))  # type: ignore[index]


def test_a_unix_socket_outlives_the_children_and_not_the_parent(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-b", f"unix:{folder}/s", "--workers", "1", cwd=folder)
    running.line("Ctrl-C stops")
    running.send_signal(signal.SIGHUP)
    running.line("reloaded")
    eventually(2, lambda: (folder / "imports").read_text().count("\n"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{folder}/s")
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
    assert running.stop() == 0
    assert not (folder / "s").exists()


def test_an_object_can_not_be_reloaded() -> None:
    with pytest.raises(UsageError, match="name"):
        serve(lambda environ, start_response: [], port=0, reload=True)


def test_an_import_that_hangs_is_given_up_for_better_code(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-p", "0", "--reload", cwd=folder)
    url = running.url()
    running.line("Reloads on save")
    (folder / "helper.py").write_text("import time\nopen('began', 'w').close()\ntime.sleep(3600)\n")
    eventually(True, (folder / "began").exists)
    assert value(url) == "1"
    (folder / "main.py").write_text(dedent(APPLICATION) + "# changed, too\n")
    (folder / "helper.py").write_text("VALUE = 2\n")
    running.line(r"changed: helper\.py, main\.py; serving main:app")
    assert value(url) == "2"


def test_what_is_imported_in_a_request_is_watched_too(command: Command, folder: Path) -> None:
    (folder / "late.py").write_text("VALUE = 'a'\n")
    (folder / "main.py").write_text(
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/late':\n        import late\n"
        "    start_response('200 OK', [])\n    return [b'1']\n"
    )
    running = command("serve", "main", "-p", "0", "--reload", cwd=folder)
    url = running.url()
    running.line("Reloads on save")
    (folder / "late.py").write_text("VALUE = 'b'\n")  # nobody has imported it
    fetch(url, "/late")
    (folder / "late.py").write_text("VALUE = 'c'\n")
    running.line(r"changed: late\.py")
    assert len([line for line in running.read_lines if "changed" in line]) == 1


def test_the_shared_and_not_the_own_is_imported_by_the_parent(command: Command, folder: Path) -> None:
    """A program that prints is flushed before each fork, so that nothing is written twice."""
    (folder / "helper.py").write_text("import sched, webob\nVALUE = 1\n")
    (folder / "program.py").write_text(
        dedent("""
            import atexit, sys
            from microwsgi import serve

            print("printed once")
            atexit.register(lambda: print("ended once"))
            serve("main:app", port=0, reload=True)
            print(*[name in sys.modules for name in ("sched", "webob", "main", "helper")])
            """)
    )
    running = Running([sys.executable, "program.py"], cwd=folder, PYTHONUNBUFFERED="")
    try:
        url = running.url()
        assert value(url) == "1"
        for number in range(2, 5):
            (folder / "helper.py").write_text(f"import sched, webob\nVALUE = {number}\n")
            running.line("changed: helper.py; serving main:app")
        assert running.stop() == 0
    finally:
        running.end()
    assert "True True False False" in running.read_lines
    assert running.read_lines.count("printed once") == running.read_lines.count("ended once") == 1


def test_a_head_that_is_half_sent_goes_to_the_successor(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-p", "0", "--reload", cwd=folder)
    host, port = running.url().removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: 127")
        assert value(f"http://{host}:{port}") == "1", "so that the other one was accepted, too"
        (folder / "helper.py").write_text("VALUE = 2\n")
        running.line("changed: helper.py; serving main:app")
        client.sendall(b".0.0.1\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := client.recv(65536):
            answer += data
    assert answer.partition(b"\r\n\r\n")[2].split()[0] == b"2"


@pytest.mark.slow
def test_many_replacements_leave_nothing_open(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-p", "0", "--reload", cwd=folder)
    url = running.url()
    running.line("Reloads on save")

    def opened() -> list[list[str]]:
        """What parent and child have open, but for the numbers."""
        pids = (running.pid, fetch(url)[1].split()[1])
        links = [[os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()] for pid in pids]
        return [sorted(re.sub(r"\d+", "", link) for link in each) for each in links]

    before = opened()
    for number in range(20):
        (folder / "helper.py").write_text(f"VALUE = {number}\n")
        running.line("changed: helper.py; serving main:app")
    eventually(before, opened)


def test_several_processes_are_told_of_in_the_environ(command: Command, folder: Path) -> None:
    (folder / "main.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n"
        "    return [str(environ['wsgi.multiprocess']).encode()]\n"
    )
    assert fetch(command("serve", "main", "-p", "0", "--workers", "2", cwd=folder).url())[1] == "True"
    assert fetch(command("serve", "main", "-p", "0", "--reload", cwd=folder).url())[1] == "False"


def test_no_compiled_file_is_read_or_written_for_own_modules(command: Command, folder: Path) -> None:
    helper = folder / "helper.py"
    helper.write_text("VALUE = 9\n")
    status = helper.stat()
    stale = Path(py_compile.compile(str(helper), doraise=True) or "")
    helper.write_text("VALUE = 1\n")
    os.utime(helper, ns=(status.st_atime_ns, status.st_mtime_ns))
    told = [sys.executable, "-c", "import helper; print(helper.VALUE)"]
    assert subprocess.run(told, cwd=folder, capture_output=True, check=True).stdout == b"9\n", (
        "Python takes the stale one"
    )
    running = command("serve", "main", "-p", "0", "--reload", cwd=folder, PYTHONDONTWRITEBYTECODE="")
    url = running.url()
    assert value(url) == "1"
    for number in range(2, 6):
        helper.write_text(f"VALUE = {number}\n")
        os.utime(helper, ns=(status.st_atime_ns, status.st_mtime_ns))
        running.line("changed: helper.py; serving main:app")
        assert value(url) == str(number)
    assert [path.name for path in stale.parent.iterdir()] == [stale.name]


def test_a_connection_that_is_handed_over_is_still_one_to_its_address(command: Command, folder: Path) -> None:
    (folder / "main.py").write_text(
        "import helper\ndef app(environ, start_response):\n    start_response('200 OK', [])\n"
        "    return [f'{helper.VALUE} {environ[\"SERVER_NAME\"]}'.encode()]\n"
    )
    running = command("serve", "main", "-b", "127.0.0.1:0", "-b", "127.0.0.2:0", "--reload", cwd=folder)
    connections = [HTTPConnection(running.url().removeprefix("http://"), timeout=LIMIT) for _ in range(2)]
    running.line("Reloads on save")
    for connection, host in zip(connections, ("127.0.0.1", "127.0.0.2"), strict=True):
        connection.request("GET", "/")
        assert connection.getresponse().read() == f"1 {host}".encode()
    (folder / "helper.py").write_text("VALUE = 2\n")
    running.line("changed: helper.py; serving main:app")
    for connection, host in zip(connections, ("127.0.0.1", "127.0.0.2"), strict=True):
        before = connection.sock
        connection.request("GET", "/")
        assert connection.getresponse().read() == f"2 {host}".encode()
        assert connection.sock is before
        connection.close()


def test_a_handler_class_of_http_server_is_replaced_like_an_application(command: Command, folder: Path) -> None:
    (folder / "main.py").write_text(
        "from http.server import BaseHTTPRequestHandler\nimport helper\n"
        "class Handler(BaseHTTPRequestHandler):\n    protocol_version = 'HTTP/1.1'\n"
        "    def do_GET(self):\n        self.send_response(200)\n        self.send_header('Content-Length', '1')\n"
        "        self.end_headers()\n        self.wfile.write(str(helper.VALUE).encode())\n"
    )
    running = command("serve", "main:Handler", "-p", "0", "--reload", cwd=folder)
    connection = HTTPConnection(running.url().removeprefix("http://"), timeout=LIMIT)
    running.line("Reloads on save")
    for number in range(1, 4):
        connection.request("GET", "/")
        assert connection.getresponse().read() == str(number).encode()
        (folder / "helper.py").write_text(f"VALUE = {number + 1}\n")
        running.line("changed: helper.py; serving main:Handler")
    connection.close()


PROGRAM = """
    import threading, time
    from microwsgi import serve

    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    serve("main:app", port=0, graceful_timeout=2.0, access_log="off", {options})
    """


@pytest.mark.slow
def test_a_program_with_threads_has_spawned_children_that_do_the_same(folder: Path) -> None:
    (folder / "program.py").write_text(dedent(PROGRAM.format(options="reload=True")))
    running = Running([sys.executable, "program.py"], cwd=folder)
    try:
        url = running.url()
        running.line("Reloads on save")
        assert value(url) == "1"
        kept = HTTPConnection(url.removeprefix("http://"), timeout=LIMIT)
        kept.request("GET", "/")
        kept.getresponse().read()
        (folder / "helper.py").write_text("VALUE = 2\n")
        running.line("changed: helper.py; serving main:app")
        kept.request("GET", "/")
        assert kept.getresponse().read().split()[0] == b"2", "an idle connection is handed over"
        kept.close()
        (folder / "helper.py").write_text("VALUE = = 2\n")
        running.line("The last good version is still being served")
        assert value(url) == "2"
        (folder / "main.py").unlink()
        (folder / "helper.py").write_text("import os; os._exit(4)\n")
        (folder / "main.py").write_text("import helper\n")
        running.line("the process that imports the application ended with code 4")
        assert running.stop() == 0
    finally:
        running.end()
    pids = (folder / "imports").read_text().split()
    assert len(pids) == len(set(pids))


@pytest.mark.slow
def test_spawned_workers_are_replaced(folder: Path) -> None:
    (folder / "program.py").write_text(dedent(PROGRAM.format(options="workers=2")))
    running = Running([sys.executable, "program.py"], cwd=folder)
    try:
        url = running.url()
        eventually(2, lambda: len({fetch(url)[1] for _ in range(20)}))
        before = {fetch(url)[1] for _ in range(20)}
        running.send_signal(signal.SIGHUP)
        running.line("reloaded")
        assert not before & {fetch(url)[1] for _ in range(20)}
        assert running.stop(signal.SIGTERM) == 0
    finally:
        running.end()


def test_a_spawned_child_can_not_have_the_parents_ssl_context(folder: Path) -> None:
    (folder / "program.py").write_text(
        dedent(
            PROGRAM.format(options="workers=1, ssl_context=ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)")
        ).replace("import threading", "import ssl, threading")
    )
    running = Running([sys.executable, "program.py"], cwd=folder)
    assert running.wait() == 1
    assert "Use tls_cert and tls_key" in running.output


def test_without_either_there_is_no_parent_nor_anything_for_one(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-p", "0", cwd=folder)
    assert fetch(running.url())[1] == f"1 {running.pid}"
    code = "import sys, microwsgi.serving.serve; print(*(name for name in sys.modules if name.startswith('microwsgi')))"
    told = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    names = {name.rpartition(".")[2] for name in told.stdout.split()}
    assert "serving" in names
    assert not names & {"supervised", "supervisor", "worker", "channel", "watch", "notifier", "imports", "service"}
