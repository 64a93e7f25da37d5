"""microwsgi/serving/retyped.py: the command in a hint is the one that was typed, with one thing changed."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import microwsgi
from microwsgi.errors import ListenError
from microwsgi.serving.retyped import with_application, with_suggestions
from tests.running import Running, environment
from tests.tables import Rows

Command = Callable[..., Running]


def test_another_application() -> None:
    hint = "no.\n  Try:  microwsgi serve 'a:b()'   (remark)"
    rows = [
        (["/venv/bin/microwsgi", "dev", "x:y", "-p", "9000"], "x:y", "microwsgi dev 'a:b()' -p 9000   (remark)"),
        (["microwsgi", "dev", "-p", "9000", "x:y"], "x:y", "microwsgi dev -p 9000 'a:b()'   (remark)"),
        (
            ["microwsgi", "stack", "-d", "a b", "x:y", "/path"],
            "x:y",
            "microwsgi stack -d 'a b' 'a:b()' /path   (remark)",
        ),
        (["microwsgi", "check"], "", "microwsgi check 'a:b()'   (remark)"),
        (["program.py", "dev", "x:y"], "x:y", "microwsgi serve 'a:b()'   (remark)"),
        (["/usr/lib/pip/__main__.py", "check"], "", "microwsgi serve 'a:b()'   (remark)"),
        (
            [str(Path(microwsgi.__file__).with_name("__main__.py")), "dev", "x:y"],
            "x:y",
            "python -m microwsgi dev 'a:b()'   (remark)",
        ),
    ]
    found = [
        (with_application(hint, spec, arguments), f"no.\n  Try:  {expected}") for arguments, spec, expected in rows
    ]
    assert [pair for pair in found if pair[0] != pair[1]] == []


def test_another_port_and_another_host() -> None:
    port = ListenError("no.", port=8000, free_port=8001, holder=12)
    host = ListenError("no.", wrong_host="192.0.2.1")
    rows: list[tuple[ListenError, str, list[str]]] = [
        (
            port,
            "microwsgi serve a:b",
            ["microwsgi serve a:b -p 8001", "kill 12                       (stop that program)"],
        ),
        (port, "microwsgi dev a:b -p 8000 --debug", ["microwsgi dev a:b -p 8001 --debug"]),
        (port, "microwsgi dev -p8000 a:b", ["microwsgi dev -p8001 a:b"]),
        (port, "microwsgi serve --port=8000", ["microwsgi serve --port=8001"]),
        (port, "microwsgi serve --port 8000 a:b --workers 8000", ["microwsgi serve --port 8001 a:b --workers 8000"]),
        (
            port,
            "microwsgi serve -b 127.0.0.1:8000 -b [::1]:9000",
            ["microwsgi serve -b 127.0.0.1:8001 -b '[::1]:9000'"],
        ),
        (port, "microwsgi serve --bind=[::1]:8000 .", ["microwsgi serve '--bind=[::1]:8001' ."]),
        (port, "other.py a:b", ["kill 12   (stop that program)"]),
        (
            host,
            "microwsgi serve a:b --host 192.0.2.1 -p 80",
            [
                "microwsgi serve a:b --host 127.0.0.1 -p 80   (only this machine)",
                "microwsgi serve a:b --host 0.0.0.0 -p 80     (every interface)",
            ],
        ),
        (host, "microwsgi serve -b 192.0.2.1:80", ["microwsgi serve -b 127.0.0.1:80   (only this machine)"]),
        (host, "microwsgi serve . -b 192.0.2.1", ["microwsgi serve . -b 127.0.0.1   (only this machine)"]),
        (host, "microwsgi serve --host=192.0.2.1", ["microwsgi serve --host=127.0.0.1   (only this machine)"]),
        (host, "microwsgi dev", ["microwsgi dev --host 127.0.0.1   (only this machine)"]),
        (host, "program.py", []),
    ]
    with Rows() as table:
        for error, typed, expected in rows:
            with table(typed):
                lines = str(with_suggestions(error, typed.split())).splitlines()
                assert [re.sub("^  Try:|^ +", "", line).strip() for line in lines[1:]][: len(expected)] == expected


def test_the_command_that_is_offered_serves(command: Command, tmp_path: Path) -> None:
    """By each way to serve: in one process, with a parent, and in the background."""
    (tmp_path / "hello.py").write_text("from wsgiref.simple_server import demo_app as app\n")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken, Rows() as rows:
        port = str(taken.getsockname()[1])
        for words in (
            ["serve", "hello:app", "-p", port, "--access-log", "off"],
            ["dev", "hello:app", f"-b127.0.0.1:{port}"],
            ["serve", "hello:app", "--daemon", "-p", port, "--pid-file", str(tmp_path / "pid")],
        ):
            with rows(*words):
                refused = command(*words, cwd=tmp_path)
                assert refused.wait() == 4
                found = re.search(r"; (\d+) is free\.\n  Try:  (?:python -m )?microwsgi (.*)\n", refused.output)
                assert found, refused.output
                assert found[2] == " ".join(words).replace(port, found[1])
                if "--daemon" not in words:  # that one is told on its way through a pipe
                    offered = command(*found[2].split(), cwd=tmp_path)
                    assert offered.url().endswith(f":{found[1]}")
                    offered.stop()


def test_a_program_is_offered_no_command_that_nobody_typed(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        code = "import sys; from microwsgi import serve; serve(lambda environ, start: [], port=int(sys.argv[1]))"
        program = tmp_path / "program.py"
        program.write_text(code)
        done = subprocess.run(
            [sys.executable, str(program), str(taken.getsockname()[1])],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert re.search(r"ListenError: port \d+ is already in use.*; \d+ is free\.\n", done.stderr)
    assert "microwsgi serve" not in done.stderr
