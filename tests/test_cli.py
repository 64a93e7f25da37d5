"""The command line as a person meets it: help, mistakes, the banner, exit codes."""

from __future__ import annotations

import io
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from email.message import Message
from http.client import HTTPConnection, HTTPSConnection
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from urllib.parse import urlsplit

import pytest

from microwsgi import __version__
from microwsgi.cli import main
from microwsgi.cli.table import COMMANDS, DEMO
from microwsgi.errors import UsageError
from microwsgi.options.declaration import OPTIONS
from microwsgi.serving import assembly
from microwsgi.serving import serve as serving
from microwsgi.serving.console import colored, counted, duration
from microwsgi.serving.loader import load
from microwsgi.serving.retyped import WITH_APP
from tests.running import Running, environment, microwsgi
from tests.tls.authority import Authority

Command = Callable[..., Running]
HELLO = """
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]
    """


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an application."""
    (tmp_path / "hello.py").write_text(dedent(HELLO))
    return tmp_path


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing from outside: in CI a MICROWSGI_TEST_ variable is there."""
    for name in [*os.environ]:
        if name.startswith("MICROWSGI_") or name in {"PORT", "NO_COLOR", "FORCE_COLOR"}:
            monkeypatch.delenv(name)


def fetch(url: str) -> bytes:
    client = HTTPConnection(url.removeprefix("http://").partition("/")[0], timeout=10)
    client.request("GET", "/")
    try:
        return client.getresponse().read()
    finally:
        client.close()


# --- Help and mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["help"], *([command.name, "--help"] for command in COMMANDS)]
)
def test_help_is_short_and_ends_with_two_examples(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 80
    assert lines[-3] == "Examples:"
    assert all(line.startswith("  microwsgi ") for line in lines[-2:])


@pytest.mark.parametrize("arguments", [["--help"], *([each.name, "--help-all"] for each in COMMANDS)])
def test_help_fits_on_a_terminal_of_80_columns(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(arguments)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_help_has_the_options_that_people_use_first_and_help_all_has_those_of_the_command_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = [option for option in OPTIONS if option.is_common]
    assert len(common) == 10
    for arguments, options in (["--help"], common), (["--help-all"], [each for each in OPTIONS if each.has_flag]):
        main(["serve", *arguments])
        text = capsys.readouterr().out
        assert re.findall(r"^  (?:-\w, |    )--(?:\[no-\])?([a-z-]+)", text, re.MULTILINE) == [
            *(option.flag[2:] for option in options),
            "show-config",
            *(["help-all"] if arguments == ["--help"] else []),
        ]
        joined = " ".join(text.split())
        for option in options:
            assert option.help in joined
    assert "(default: 8000)" in joined


def test_an_option_without_a_flag_is_refused_with_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--min-body-rate", "4"]) == 2
    assert capsys.readouterr().err.endswith("\n  Try:  MICROWSGI_MIN_BODY_RATE=VALUE microwsgi serve ...\n")


def test_help_is_quick_and_imports_no_server() -> None:
    code = "import sys; from microwsgi.cli import main; main(['serve', '--help']); print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", code]
    imported = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stderr.split()
    assert {"http.server", "webob", "socket", "typing", "inspect", "dataclasses", "logging", "pdb"}.isdisjoint(imported)


def test_a_bare_application_is_served_without_webob_and_what_is_slow(folder: Path) -> None:
    code = "import sys; import microwsgi.serving.serve; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    imported = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout.split()
    assert {"webob", "typing", "inspect", "dataclasses", "logging", "pdb", "argparse"}.isdisjoint(imported)


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    assert capsys.readouterr().out.startswith(f"microwsgi {__version__} on Python 3.")


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_help_of_a_command_is_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", name]) == main([name, "--help"]) == 0
    first, second = re.split(r"(?<=.)^(?=Usage)", capsys.readouterr().out, flags=re.MULTILINE | re.DOTALL)
    assert first == second


def test_a_reader_that_leaves_is_no_error() -> None:
    with subprocess.Popen(
        microwsgi("serve", "--help"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before anything was written: it starts up
        assert process.stderr.read() == b""


def test_nothing_said_is_answered_with_the_help_and_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("Usage: microwsgi COMMAND")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("serv", "there is no command serv; did you mean serve?\n  Try:  microwsgi --help"),
        ("zzz", "there is no command zzz.\n  Try:  microwsgi --help"),
        ("version", "there is no command version.\n  Try:  microwsgi --version"),
        ("-v", "there is no command -v.\n  Try:  microwsgi --version"),
        ("hello:app -p 1", "there is no command hello:app.\n  Try:  microwsgi serve hello:app -p 1"),
        ("hello.py", "there is no command hello.py.\n  Try:  microwsgi serve hello.py"),
        ("--port 1", "there is no command --port.\n  Try:  microwsgi serve --port 1"),
        ("serve --prot 1", "there is no option --prot; did you mean --port?\n  Try:  microwsgi serve --help"),
        ("serve --prot=1", "there is no option --prot; did you mean --port?\n  Try:  microwsgi serve --help"),
        ("serve --thread 1", "there is no option --thread; did you mean --threads?\n  Try:  microwsgi serve --help"),
        (
            "serve --no-full-tracebak",
            "there is no option --no-full-tracebak; did you mean --no-full-traceback?\n  Try:  microwsgi serve --help",
        ),
        ("serve a:b --port", "-p/--port: expected one argument.\n  Try:  microwsgi serve --help"),
        (
            "serve --full-traceback=1",
            "--full-traceback: ignored explicit argument '1'.\n  Try:  microwsgi serve --help",
        ),
        ("serve a b", "expected one application, not 2: a b."),
        (
            "serve 8080",
            (
                "to set the port, use -p.\n  Try:  microwsgi serve -p 8080\n"
                "        microwsgi serve . -p 8080   (the files of this directory)"
            ),
        ),
        ("dev hello:app 8080", "to set the port, use -p.\n  Try:  microwsgi dev hello:app -p 8080"),
        ("serve -d docs", "-d is not an option: write the directory alone.\n  Try:  microwsgi serve docs"),
        (
            "serve --directory docs -p 0",
            "--directory is not an option: write the directory alone.\n  Try:  microwsgi serve docs -p 0",
        ),
        (
            "dev --directory=docs -p 0",
            "--directory is not an option: write the directory alone.\n  Try:  microwsgi dev docs -p 0",
        ),
        (
            "serve 8080 -b 127.0.0.1 --debug",
            (
                "to set the port, use -p.\n  Try:  microwsgi serve -p 8080 -b 127.0.0.1 --debug\n"
                "        microwsgi serve . -p 8080 -b 127.0.0.1 --debug   (the files of this directory)"
            ),
        ),
        (
            "serve --host 127.0.0.1:5000",
            (
                "invalid --host 127.0.0.1:5000: expected a host without a port: "
                "--host 127.0.0.1 --port 5000, or --bind 127.0.0.1:5000."
            ),
        ),
        (
            "serve --host [::1]:5000",
            (
                "invalid --host [::1]:5000: expected a host without a port: "
                "--host [::1] --port 5000, or --bind [::1]:5000."
            ),
        ),
        (
            "dev --host 192.0.2.1 -p 0",
            (
                "192.0.2.1 is not an address of this machine.\n"
                "  Try:  microwsgi dev --host 127.0.0.1 -p 0   (only this machine)\n"
                "        microwsgi dev --host 0.0.0.0 -p 0     (every interface)"
            ),
        ),
        ("serve --threads 0", "invalid --threads 0: expected a whole number, 1 or more."),
        ("serve -b a:1 -p 1", "--bind has host and port in it: leave out --host and --port, or --bind."),
        (
            "serve hello --access-log /nowhere/log -p 0",
            "--access-log /nowhere/log can't be written: No such file or directory.",
        ),
    ],
)
def test_a_mistake_is_a_sentence_with_the_cure_and_exit_code_2(
    folder: Path, arguments: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["microwsgi", *arguments.split()])
    code = main([*arguments.split(), "--app-dir", str(folder)] if "hello " in arguments else arguments.split())
    assert code == (4 if "192.0.2.1" in arguments else 2)
    assert capsys.readouterr().err == f"microwsgi: {said}\n"


EXAMPLES = [example for command in COMMANDS for example in command.examples]


def test_the_examples_name_what_every_folder_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard library's demo_app, or the current folder: no file of the clone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    applications = set()
    for example in EXAMPLES:
        _, name, *words = shlex.split(example.partition(" | ")[0])
        command = next(command for command in COMMANDS if command.name == name)
        found, typed = command.parse(words)
        for option in command.options:
            if option.name in typed:
                option.parse(typed[option.name])
        if name in WITH_APP:
            applications.add(found[0])
    assert applications == {DEMO, "."}
    assert [callable(load(each)) for each in applications] == [True, True]


@pytest.mark.parametrize(
    "example", [each for each in EXAMPLES if each.split()[1] in {"stack", "check", "eject", "routes", "unit"}]
)
def test_an_example_runs_in_an_empty_folder(example: str, tmp_path: Path) -> None:
    words = shlex.split(example.removeprefix("microwsgi ").removesuffix(" | less"))
    done = subprocess.run(
        microwsgi(*words), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode in ({0, 1} if words[0] == "stack" else {0}), done.stdout + done.stderr


def test_a_folder_is_served_as_http_server_does(command: Command, tmp_path: Path) -> None:
    """With a bare address for -b, too; and over TLS, with ranges, entity tags and the index of a folder."""
    (tmp_path / "hello.txt").write_text("hello")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "index.html").write_text("<p>index")
    (tmp_path / ".hidden").write_text("hidden")
    authority = Authority(tmp_path.parent)
    certificate = authority.leaf("127.0.0.1")
    for typed in (
        ["."],
        [".", "-b", "127.0.0.1"],
        [str(tmp_path), "--host", "127.0.0.1"],
        [".", "--tls-cert", certificate],
    ):
        running = command("serve", *typed, "-p", "0", cwd=tmp_path)
        url = urlsplit(running.url())
        client: HTTPConnection = (
            HTTPSConnection(str(url.hostname), url.port, timeout=10, context=authority.client())
            if "--tls-cert" in typed
            else HTTPConnection(str(url.hostname), url.port, timeout=10)
        )

        def ask(path: str, client: HTTPConnection = client, **fields: str) -> tuple[int, bytes, Message]:
            client.request("GET", path, headers={name.replace("_", "-"): value for name, value in fields.items()})
            response = client.getresponse()
            return response.status, response.read(), response.headers

        status, body, _ = ask("/")
        assert status == 200
        assert re.findall(b'<a href="(.*?)">', body) == [b"./sub/", b"./hello.txt"]
        status, body, headers = ask("/hello.txt")
        assert (status, body, headers["Accept-Ranges"]) == (200, b"hello", "bytes")
        assert ask("/hello.txt", If_None_Match=headers["ETag"])[0] == 304
        status, body, headers = ask("/hello.txt", Range="bytes=1-3")
        assert (status, body, headers["Content-Range"]) == (206, b"ell", "bytes 1-3/5")
        assert ask("/sub/")[1] == b"<p>index"
        assert (ask("/sub")[0], ask("/.hidden")[0], ask("/../x")[0]) == (308, 404, 404)
        client.close()
        assert running.stop() == 0


def test_the_hint_of_a_load_error_repeats_what_was_typed(command: Command, folder: Path) -> None:
    """Also where the application is loaded in a child process."""
    running = command("dev", "helo:app", "-p", "0", "--log-slow-requests", "3", cwd=folder)
    typed = "dev hello:app -p 0 --log-slow-requests 3"
    running.line(f"Try:  microwsgi {typed}$|Try:  python -m microwsgi {typed}$")
    running.stop()
    checked = command("check", "helo:app", "/path", cwd=folder)
    assert checked.wait() == 3
    assert re.search(r"microwsgi check hello:app /path\n", checked.output + "\n")


@pytest.mark.parametrize("flag", ["--help", "--help-all"])
def test_the_help_of_unit_leaves_out_what_systemd_does(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["unit", flag])
    shown = capsys.readouterr().out
    assert "--workers" in shown
    assert [name for name in ("--reload", "--daemon", "--pid-file", "--log-file") if name in shown] == []


def test_the_help_of_dev_has_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    main(["dev", "--help"])
    main(["dev", "--help-all"])
    for text in capsys.readouterr().out.split("Usage:")[1:]:
        assert re.search(r"--\[no-\]reload +load new code as soon as a file is saved\s+\(default: on\)", text)
        assert re.search(r"--\[no-\]debug .*\s.* \(default: on\)", text)
    assert re.search(r"--log-slow-requests SECONDS\s[^-]*\(default: 5\)", text)


def test_a_prefix_is_not_taken_for_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--access", "x"]) == 2
    assert "--access-log" in capsys.readouterr().err


def test_the_real_command_ends_with_these_codes(command: Command, folder: Path) -> None:
    assert command("serve", "nothing:app", "-p", "0", cwd=folder).wait() == 3
    assert command("serve", "--zzz", cwd=folder).wait() == 2
    assert command("serve", "--port", "99999", cwd=folder).wait() == 4


def test_a_port_in_use_is_learnt_before_the_application_is_loaded(command: Command, folder: Path) -> None:
    (folder / "never.py").write_text("print('imported')")
    first = command("serve", "hello:app", "-p", "0", cwd=folder)
    port = first.url().rpartition(":")[2]
    second = command("serve", "never:app", "-p", port, cwd=folder)
    assert second.wait() == 4
    assert re.match(rf"microwsgi: port {port} is already in use", second.output)
    assert "imported" not in second.output


def test_traceback_shows_all_frames(command: Command, folder: Path) -> None:
    (folder / "bad.py").write_text("1 / 0")
    short, long = (
        command("serve", "bad", "-p", "0", cwd=folder),
        command("serve", "bad", "-p", "0", "--full-traceback", cwd=folder),
    )
    assert short.wait() == long.wait() == 3
    assert "import_module" not in short.output
    assert "import_module" in long.output


def test_an_application_that_cannot_be_loaded_leaves_no_unix_socket(command: Command, folder: Path) -> None:
    assert command("serve", "nothing:app", "-b", f"unix:{folder}/s", cwd=folder).wait() == 3
    assert not (folder / "s").exists()


# --- Serving ------------------------------------------------------------------------------------------------------------


def test_the_banner_says_what_where_and_how_to_stop(command: Command, folder: Path) -> None:
    running = command("serve", "hello", "-p", "0", cwd=folder)
    url = running.url()
    running.line("Ctrl-C stops")
    assert running.read_lines[0] == f"microwsgi {__version__} serving hello:app"
    assert re.fullmatch(r"  http://127\.0\.0\.1:\d+/ +\(only this machine\)", running.read_lines[1])
    assert len(running.read_lines) == 3
    assert fetch(url) == b"hello"


def test_a_wildcard_lists_what_reaches_it_and_who(command: Command, folder: Path) -> None:
    running = command("serve", "hello", "--host", "0.0.0.0", "-p", "0", cwd=folder)
    running.line("Ctrl-C stops")
    assert "//0.0.0.0" not in running.output
    assert re.search(r"http://127\.0\.0\.1:\d+/", running.output)
    assert "This is a development server" in running.output
    for line in running.read_lines:
        assert ("http://" in line and "127.0.0.1" not in line) == ("every machine on your network" in line)


def test_the_banner_comes_after_the_application_is_loaded(command: Command, folder: Path) -> None:
    (folder / "slow.py").write_text("print('loaded', flush=True)\n" + dedent(HELLO))
    running = command("serve", "slow", "-p", "0", cwd=folder)
    running.line("Ctrl-C stops")
    assert running.read_lines[0] == "loaded"


def test_variables_are_options_and_the_command_line_is_above_them(command: Command, folder: Path) -> None:
    running = command("serve", "hello", cwd=folder, PORT="0", MICROWSGI_ACCESS_LOG="off")
    fetch(running.url())
    running.stop()
    assert "GET / HTTP" not in running.output
    above = command("serve", "hello", "--access-log", "-", "-p", "0", cwd=folder, PORT="1", MICROWSGI_ACCESS_LOG="off")
    fetch(above.url())
    above.stop()
    assert '"GET / HTTP/1.1" 200 5' in above.output


def test_the_access_log_goes_to_a_file_in_the_format_asked_for(command: Command, folder: Path) -> None:
    running = command("serve", "hello", "-p", "0", "--access-log", "log", "--log-format", "json", cwd=folder)
    fetch(running.url())
    running.stop()
    assert '"status": 200' in (folder / "log").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_costs_the_log_and_nothing_else(command: Command, folder: Path) -> None:
    running = command("serve", "hello", "-p", "0", "--access-log", "/dev/full", cwd=folder)
    assert fetch(running.url()) == b"hello"
    assert running.stop() == 0
    assert (
        "The last lines of the access log are lost: 1 record was not written: No space left on device."
        in running.read_lines
    )


@pytest.mark.parametrize("closed", ["1", "2"])
def test_without_a_standard_stream_it_serves_too(folder: Path, closed: str) -> None:
    """As some supervisors start programs: Python has None for sys.stdout or sys.stderr then."""
    running = Running(["sh", "-c", f"exec {sys.executable} -m microwsgi serve hello -b unix:s {closed}>&-"], cwd=folder)
    try:
        end = time.monotonic() + 10
        with socket.socket(socket.AF_UNIX) as client:
            while client.connect_ex(str(folder / "s")):
                assert time.monotonic() < end, running.output
                time.sleep(0.005)
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert running.stop() == 0
    finally:
        running.end()


def test_a_handler_class_of_http_server_is_served(command: Command, folder: Path) -> None:
    source = """
        from http.server import BaseHTTPRequestHandler
        class RequestHandler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"old")
        """
    (folder / "httpsrv.py").write_text(dedent(source))
    assert fetch(command("serve", "httpsrv:RequestHandler", "-p", "0", cwd=folder).url()) == b"old"


@pytest.mark.parametrize("count", [1, 2])
def test_several_addresses_are_served_at_once(command: Command, folder: Path, count: int) -> None:
    running = command("serve", "hello", *["-b", "127.0.0.1:0"] * count, "-b", f"unix:{folder}/s", cwd=folder)
    running.line("Ctrl-C stops")
    urls = re.findall(r"http://127\S+/(?= )", running.output)
    assert [fetch(url) for url in urls] == [b"hello"] * count
    assert f"curl --unix-socket {folder}/s http://localhost/" in running.output
    assert running.stop() == 0
    assert not (folder / "s").exists()


def test_python_m_microwsgi_and_a_program_of_ones_own_are_the_same(command: Command, folder: Path) -> None:
    source = "from microwsgi import serve\n" + dedent(HELLO) + "serve(app, port=0)\nprint('and on')\n"
    (folder / "program.py").write_text(source)
    running = Running([sys.executable, "program.py"], cwd=folder)
    try:
        assert fetch(running.url()) == b"hello"
        assert running.read_lines[0] == f"microwsgi {__version__} serving program.py:app"
        assert running.stop() == 0
        assert "and on" in running.output
    finally:
        running.end()


def test_serve_refuses_what_is_no_application_and_no_option() -> None:
    with pytest.raises(UsageError, match="takes an application or its name, not int"):
        serving.serve(42, port=0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no option prot; did you mean port"):
        serving.serve("hello", prot=0)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="Use microwsgi serve --daemon"):
        serving.serve("hello", daemon=True)


def test_serve_works_in_a_thread_where_no_signal_can_be_listened_to(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    servers = []
    made = assembly.make

    def make(*arguments: object) -> object:
        servers.append(made(*arguments))  # type: ignore[arg-type]
        return servers[-1]

    monkeypatch.setattr(serving, "make", make)
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.syspath_prepend(folder)
    thread = threading.Thread(
        target=serving.serve, args=("hello",), kwargs={"port": 0, "app_dir": str(folder), "access_log": "off"}
    )
    thread.start()
    end = time.monotonic() + 10
    while "Ctrl-C" not in said.getvalue() and time.monotonic() < end:
        time.sleep(0.001)
    try:
        assert fetch(f"http://127.0.0.1:{servers[0].server_port}/") == b"hello"
    finally:
        servers[0].shutdown()
        thread.join(10)
    assert not thread.is_alive()


# --- Colour and words -------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("when", "stream", "variables", "expected"),
    [
        ("auto", Terminal(), {}, True),
        ("auto", io.StringIO(), {}, False),
        ("auto", Terminal(), {"NO_COLOR": "1"}, False),
        ("auto", Terminal(), {"NO_COLOR": ""}, True),
        ("auto", Terminal(), {"TERM": "dumb"}, False),
        ("auto", io.StringIO(), {"FORCE_COLOR": "1"}, True),
        ("auto", Terminal(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ("always", io.StringIO(), {"NO_COLOR": "1"}, True),
        ("never", Terminal(), {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colour(when: str, stream: io.StringIO, variables: dict[str, str], expected: bool) -> None:
    assert colored(when, stream, variables) is expected


def test_no_colour_in_a_pipe_and_colour_when_it_is_asked_for(command: Command, folder: Path) -> None:
    plain = command("serve", "hello", "-p", "0", cwd=folder)
    plain.line("Ctrl-C stops")
    assert "\033" not in plain.output
    colorful = command("serve", "hello", "-p", "0", "--color", "always", cwd=folder)
    colorful.line("Ctrl-C stops")
    assert "\033[1mhello:app\033[0m" in colorful.output


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min"), (3600 * 3 + 300, "3 h 5 min"), (2e5, "2 days")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_of_things() -> None:
    assert [counted(number, "request") for number in range(3)] == ["0 requests", "1 request", "2 requests"]


def test_all_commands_can_be_imported() -> None:
    for each in COMMANDS:
        module, _, name = each.function.partition(":")
        assert callable(getattr(import_module(module), name))
