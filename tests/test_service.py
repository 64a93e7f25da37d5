"""A service among others: what systemd is told and passes, root's privileges, process 1 of a container."""

from __future__ import annotations

import grp
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPSConnection
from pathlib import Path
from textwrap import dedent

import pytest

from microwsgi.daemon.systemd import SystemdNotifier, passed_sockets
from microwsgi.prefork.children import REPORT_TIME
from tests.background import APPLICATION, Machine, ended, eventually, fetch, free_port, suspend
from tests.programs import absent, need
from tests.running import LIMIT, ROOT, Running, environment, microwsgi, python
from tests.tables import Rows

pytestmark = pytest.mark.slow  # real processes, started and stopped one after another

Command = Callable[..., Running]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Machine(tmp_path)  # writes the application
    return tmp_path


# --- systemd: what it is told -------------------------------------------------------------------------------------------


class Manager:
    """Who listens on NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.settimeout(LIMIT)
        self.heard: list[str] = []

    def hear(self, start: str) -> str:
        """The next message that begins so."""
        while not (message := self.socket.recv(4096).decode()).startswith(start):
            self.heard.append(message)
        self.heard.append(message)
        return message


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Manager, str]]:
    address = f"@microwsgi-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("only Linux has abstract sockets")
    manager = Manager(address)
    yield manager, address
    manager.socket.close()


def test_systemd_hears_when_it_serves_reloads_and_stops(
    command: Command, folder: Path, manager: tuple[Manager, str]
) -> None:
    systemd, address = manager
    running = command("serve", "site_a:app", "-p", "0", cwd=folder, NOTIFY_SOCKET=address)
    assert "STATUS=serving site_a:app at http://127.0.0.1:" in systemd.hear("READY=1")
    port = int(running.url().rpartition(":")[2])
    assert "NOTIFY_SOCKET" not in fetch(port, "/variables").split()
    running.send_signal(signal.SIGHUP)
    _, clock = systemd.hear("RELOADING=1").split("\n")
    assert int(clock.removeprefix("MONOTONIC_USEC=")) > 0
    systemd.hear("READY=1")
    (folder / "site_a.py").write_text("app = 1 / 0")
    running.send_signal(signal.SIGHUP)
    systemd.hear("RELOADING=1")
    assert "STATUS=The last good version is still being served; site_a.py:1: 'site_a' failed" in systemd.hear("READY=1")
    running.send_signal(signal.SIGTERM)
    systemd.hear("STOPPING=1")
    assert running.wait() == 0
    assert [message for message in systemd.heard if message.startswith("STOPPING")] == ["STOPPING=1"]


def test_the_watchdog_gets_signs_of_life_until_a_worker_hangs(command: Command, folder: Path) -> None:
    systemd = Manager(str(folder / "notify"))
    interval = {"WATCHDOG_USEC": "100000", "NOTIFY_SOCKET": str(folder / "notify")}
    running = command("serve", "site_a:app", "-p", "0", "--workers", "2", cwd=folder, **interval)
    systemd.hear("READY=1")
    worker = int(fetch(int(running.url().rpartition(":")[2])).split()[0])
    for _ in range(3):
        systemd.hear("WATCHDOG=1")
    suspend(worker)
    systemd.socket.settimeout(2 * REPORT_TIME)  # for so long its parent waits for an answer, and gives up
    signs = 0
    with suppress(TimeoutError):
        while signs < 20:
            systemd.hear("WATCHDOG=1")
            signs += 1
    assert signs < 20
    os.kill(worker, signal.SIGCONT)
    systemd.socket.settimeout(LIMIT)
    systemd.hear("WATCHDOG=1")
    systemd.socket.close()


def test_a_worker_that_is_retired_is_not_the_services_health(command: Command, folder: Path) -> None:
    """It hangs, and has a long request: systemd hears READY=1 after the reload, and WATCHDOG=1."""
    systemd = Manager(str(folder / "notify"))
    interval = {"WATCHDOG_USEC": "200000", "NOTIFY_SOCKET": str(folder / "notify")}
    running = command("serve", "site_a:app", "-p", "0", cwd=folder, **interval)
    systemd.hear("READY=1")
    worker = int(fetch(int(running.url().rpartition(":")[2])).split()[0])
    suspend(worker)
    running.send_signal(signal.SIGHUP)
    systemd.hear("RELOADING=1")
    for _ in range(10):
        systemd.hear("WATCHDOG=1")
    systemd.hear("READY=1")
    os.kill(worker, signal.SIGKILL)
    assert running.stop() == 0
    systemd.socket.close()


def test_a_service_of_systemd_is_asked_stopped_and_reloaded_by_the_commands(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    systemd = Manager(str(tmp_path / "notify"))
    made = tmp_path / "run" / "microwsgi" / "hello"
    made.mkdir(parents=True)
    made.parent.chmod(0o700)
    variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "RUNTIME_DIRECTORY": str(made), **machine.variables}
    running = Running(microwsgi("serve", "site_a:app", "-p", "0"), cwd=tmp_path, **variables)
    try:
        systemd.hear("READY=1")
        port = running.url().rpartition(":")[2]
        (state,) = machine.states()
        assert (state["pid"], state["name"]) == (running.pid, f"127.0.0.1:{port}")
        assert "serves the new code" in machine("restart", "--graceful", port)
        assert machine("stop", f"localhost:{port}") == f"127.0.0.1:{port} has stopped.\n"
        assert running.wait() == 0
    finally:
        running.end()
        systemd.socket.close()


UNIT = """
import sys
from microwsgi import cli
from microwsgi.serving import service
service.unit_name = lambda: "hello.service"  # systemd alone can put a process into a unit
sys.exit(cli.main(sys.argv[1:]))
"""


def test_the_log_and_the_restart_of_a_service_of_systemd_are_systemds(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    systemd = Manager(str(tmp_path / "notify"))
    made = tmp_path / "run" / "microwsgi" / "hello"
    made.mkdir(parents=True)
    made.parent.chmod(0o700)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "journalctl").write_text('#!/bin/sh\necho "journalctl $*"\n')
    (tmp_path / "bin" / "journalctl").chmod(0o755)
    variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "RUNTIME_DIRECTORY": str(made), **machine.variables}
    machine.variables["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    running = Running(python("-c", UNIT, "serve", "site_a:app", "-p", "0"), cwd=tmp_path, **variables)
    try:
        systemd.hear("READY=1")
        port = running.url().rpartition(":")[2]
        assert machine("logs", port, "-n", "7") == "journalctl --user --unit hello.service --lines 7\n"
        assert "Try:  systemctl restart hello.service" in machine("restart", port, code=1)
        assert "  Unit:      hello.service\n" in machine("status", port)
        assert running.stop() == 0
    finally:
        running.end()
        systemd.socket.close()


def test_what_is_meant_for_another_process_is_not_taken() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "NOTIFY_SOCKET": "@x"}
    assert passed_sockets(environ) == []
    assert SystemdNotifier(environ).interval == 0
    assert "NOTIFY_SOCKET" not in environ


def test_what_systemd_does_not_take_at_once_is_sent_when_it_does() -> None:
    """Its queue of datagrams is short, and without READY=1 it would end a service that serves."""
    address = f"@microwsgi-full-{os.getpid()}"
    manager = Manager(address)
    notifier = SystemdNotifier({"NOTIFY_SOCKET": address})
    try:
        sent = 0
        while notifier.next_timeout() == float("inf"):
            notifier.notify(f"STATUS={sent}")
            sent += 1
        notifier.notify("READY=1")
        for _ in range(sent - 1):
            manager.hear("STATUS=")
        assert notifier.next_timeout() < float("inf")
        notifier.write_queued()
        assert notifier.next_timeout() == float("inf")
        assert manager.hear("READY=1") == "READY=1"
        manager.socket.close()
        notifier.notify("STOPPING=1")
        assert notifier.next_timeout() == float("inf"), "nobody is there any more"
    finally:
        notifier.close()
        manager.socket.close()


# --- systemd: what it passes --------------------------------------------------------------------------------------------


ACTIVATE = """
    import fcntl, os, sys
    passed = [fcntl.fcntl(int(text), fcntl.F_DUPFD, 20) for text in sys.argv[1:3]]
    for target, descriptor in enumerate(passed, 3):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.execv(sys.argv[3], sys.argv[3:])
    """
"""As systemd starts a service: its sockets are the descriptors from 3 on."""


@pytest.mark.parametrize("how", [(), ("-p", "1"), ("-b", "fd://web")], ids=["all", "instead", "by name"])
def test_passed_sockets_are_served(folder: Path, how: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ports = [each.getsockname()[1] for each in (first, second)]
        for each in (first, second):
            os.set_inheritable(each.fileno(), True)
        numbers = [str(each.fileno()) for each in (first, second)]
        variables = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "other:web"}
        process = subprocess.Popen(
            [sys.executable, "-c", dedent(ACTIVATE), *numbers, *microwsgi("serve", "site_a:app", *how)],
            cwd=folder,
            env=environment(**variables),
            close_fds=False,
            stderr=subprocess.PIPE,
            text=True,
        )
    with ended(process):
        assert process.stderr is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        assert f":{ports[1]}/" in said
        assert (f":{ports[0]}/" in said) == ("-b" not in how)
        assert not {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} & {*fetch(ports[1], "/variables").split()}
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0


def test_systemds_own_tool_activates_it(folder: Path) -> None:
    activate, port = need("systemd-socket-activate"), free_port()
    listen = [activate, "-l", f"127.0.0.1:{port}", "--fdname=web", f"--setenv=PYTHONPATH={ROOT}"]
    running = Running([*listen, *microwsgi("serve", "site_a:app", "-b", "fd://web")], cwd=folder)
    try:
        eventually(lambda: can_connect(port))
        assert fetch(port)
        assert running.stop(signal.SIGTERM) == 0
    finally:
        running.end()


def can_connect(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


UNITS = (
    ("--workers", "2"),
    ("-b", "0.0.0.0:80", "--app-dir", "with space"),
    ("-b", "unix:/run/lab/web.sock", "--socket-mode", "660", "--socket-group", "daemon", "--user", "daemon"),
    ("--tls", "--forwarded-allow-ips", "127.0.0.1,unix", "--umask", "077"),
)


def unit(folder: Path, *options: str) -> str:
    """What `microwsgi unit` prints."""
    command = microwsgi("unit", *options)
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_systemd_accepts_the_units(folder: Path) -> None:
    analyze = need("systemd-analyze")
    (folder / "with space").mkdir()
    (folder / "with space" / "site_a.py").write_text("print('imported')\ndef app(environ, start_response): ...\n")
    with Rows() as rows:
        for options in UNITS:
            with rows(*options):
                for name, more in (("hello.service", ()), ("hello.socket", ("--socket",))):
                    (folder / name).write_text(unit(folder, "site_a:app", *options, *more))
                files = [str(folder / "hello.service"), str(folder / "hello.socket")]
                verified = subprocess.run([analyze, "verify", *files], capture_output=True, text=True, check=False)
                assert (verified.returncode, verified.stderr) == (0, "")
                safe = [analyze, "security", "--offline=true", "--threshold=35", files[0]]
                judged = subprocess.run(safe, capture_output=True, text=True, check=False)
                assert judged.returncode == 0, judged.stdout[-300:]


def test_a_unit_has_a_user_folders_and_groups_by_systemds_own_lines(folder: Path) -> None:
    service, socket_unit = (unit(folder, "site_a:app", *UNITS[2], *more) for more in ((), ("--socket",)))
    lines = service.splitlines()
    for line in ("User=daemon", "SupplementaryGroups=daemon", "RuntimeDirectory=microwsgi/%N lab", "StateDirectory=%N"):
        assert line in lines
    assert "DynamicUser=yes" not in lines
    assert "--user" not in service
    assert {"SocketMode=660", "SocketGroup=daemon"} <= set(socket_unit.splitlines())
    assert "DynamicUser=yes" in unit(folder, "site_a:app").splitlines()


def test_a_unit_that_can_not_work_is_refused(folder: Path) -> None:
    with Rows() as rows:
        for said, options in (
            ("there is no module 'nosuch'", ["nosuch:app"]),
            ("systemctl reload", ["site_a:app", "--reload"]),
            ("the journal", ["site_a:app", "--log-file", "log"]),
            ("leave the option out", ["site_a:app", "--pid-file", "/run/x.pid"]),
            ("no such user or group: no-such", ["site_a:app", "--user", "no-such"]),
            ("no such user or group", ["site_a:app", "--socket-group", "no-such"]),
            ("can't write to the directory", ["site_a:app", "-b", "unix:/srv/web.sock"]),
            ("can't write to the directory", ["site_a:app", "-b", "unix:/run/web.sock"]),
            ("can't write --access-log", ["site_a:app", "--access-log", "/var/log/x"]),
            ("--forwarded-allow-ips", ["site_a:app", "--proxy-protocol"]),
        ):
            with rows(*options):
                command = microwsgi("unit", *options)
                done = subprocess.run(
                    command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
                )
                assert (done.returncode != 0, done.stdout) == (True, "")
                assert said in done.stderr


def test_unit_names_the_paths_that_the_service_can_not_read_or_does_not_see(folder: Path) -> None:
    """Systemd makes the user, unless --user names one: then its groups count, too."""

    def notes(*options: str) -> str:
        command = microwsgi("unit", "site_a:app", *options)
        return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True).stderr

    real = os.path.realpath(folder)
    unreadable = f"the user of the service can't read {real}."
    assert f"the service does not see {real}: it has its own /tmp" in notes()
    folder.chmod(0o755)
    assert unreadable not in notes() + notes("--user", "daemon")
    folder.chmod(0o750)
    assert unreadable in notes()
    assert unreadable in notes("--user", "daemon")
    assert unreadable not in notes("--user", "root")
    if os.getuid() == 0:
        os.chown(folder, 0, grp.getgrnam("daemon").gr_gid)
        assert unreadable in notes()
        assert unreadable not in notes("--user", "daemon")
        assert unreadable not in notes("--group", "daemon")


def test_in_the_environment_of_the_unit_an_application_writes_and_tls_works(folder: Path) -> None:
    """What systemd does with the unit, by a manager of our own: folders, variables, the notification."""
    (folder / "writer.py").write_text(
        "import os\n\n\ndef app(environ, start_response):\n    open('data', 'a').write('x')\n"
        "    start_response('200 OK', [])\n    return [os.getcwd().encode()]\n"
    )
    port = free_port()
    text = unit(folder, "writer:app", "-p", str(port), "--tls")
    state, run = folder / "var" / "web", folder / "runtime"
    for each in (state, run):
        each.mkdir(parents=True)
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("Environment"))
    replaced = {"%S": str(folder / "var"), "%N": "web"}
    command, place = (
        re.sub("%[SN]", lambda match: replaced[match[0]], found[key]) for key in ("ExecStart", "WorkingDirectory")
    )
    assert "Environment=HOME=%S/%N" in text
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(run / "notify"))
        manager.settimeout(LIMIT)
        variables = {"HOME": str(state), "RUNTIME_DIRECTORY": str(run), "NOTIFY_SOCKET": str(run / "notify")}
        process = subprocess.Popen(
            shlex.split(command), cwd=place, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
        )
        with ended(process):
            while b"READY=1" not in manager.recv(4096):
                pass
            context = ssl.create_default_context(cafile=str(next(state.rglob("ca.pem"))))
            connection = HTTPSConnection("127.0.0.1", port, timeout=LIMIT, context=context)
            connection.request("GET", "/")
            assert connection.getresponse().read() == str(state).encode()
            connection.close()
            assert (state / "data").read_text() == "x"
            process.terminate()
            assert process.wait(LIMIT) == 0


# --- Root ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def roots() -> Iterator[Machine]:
    """Root's, in a folder that all may read, with a Python and a copy of the package that all may read."""
    if os.geteuid():
        absent("root", "only root has privileges to drop")
    python = "/usr/bin/python3"
    new_enough = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if not os.path.exists(python) or subprocess.run(new_enough, check=False).returncode:
        absent("system python", "there is no Python 3.11 that all users may read")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(ROOT / "microwsgi", folder / "microwsgi", ignore=shutil.ignore_patterns("__pycache__"))
        machine = Machine(folder, [python, "-m", "microwsgi"], PYTHONPATH=name, PYTHONDONTWRITEBYTECODE="1")
        yield machine
        machine.end()


def low_port() -> int:
    """One that only root may open."""
    for port in range(1023, 600, -1):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no low port is free")


def test_root_binds_and_nobody_serves(roots: Machine) -> None:
    port = low_port()
    roots("serve", "site_a:app", "--daemon", "-p", str(port), "--user", "nobody", "--log-file", "log")
    worker, _, who, _ = fetch(port).split()
    assert who.startswith("65534:")
    (pid,) = roots.pids()
    for each in (pid, int(worker)):
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{each}/status").read_text().splitlines())
        assert set(status["Uid"].split()) == {"65534"}
        assert set(status["Gid"].split()) == {who.partition(":")[2]}
        assert "0" not in status["Groups"].split()
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    roots("restart", "--graceful")
    assert fetch(port).split()[0] != worker
    assert roots("status").startswith(f"127.0.0.1:{port} runs as process {pid}")
    roots("stop")
    roots("status", code=3)  # the folder is root's: the pid file is empty, not gone
    roots("serve", "site_a:app", "--daemon", "-p", str(port), "--user", "nobody", "--log-file", "log")


def test_the_key_is_roots_and_a_new_one_that_the_user_may_read_is_taken(roots: Machine) -> None:
    openssl = need("openssl")

    def certify(name: str) -> None:
        command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        files = [
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-subj",
            f"/CN={name}",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ]
        subprocess.run([*command, *files], cwd=roots.folder, check=True, capture_output=True)

    certify("first")
    assert (roots.folder / "key.pem").stat().st_mode & 0o077 == 0
    port = free_port()
    tls = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"]
    said = roots("serve", "site_a:app", "--daemon", "-p", str(port), "--user", "nobody", *tls)
    assert f"https://127.0.0.1:{port}/" in said
    assert "Certificate: " in roots("status")
    first = ssl.get_server_certificate(("127.0.0.1", port))
    certify("second")
    os.chown(roots.folder / "key.pem", 65534, 65534)
    eventually(lambda: ssl.get_server_certificate(("127.0.0.1", port)) != first)


def test_a_unix_socket_of_another_user_keeps_the_group_of_the_proxy_and_ends_quietly(roots: Machine) -> None:
    """The folder is root's, so the user can't remove the file at the end: the next server replaces it."""
    path = roots.folder / "web.sock"
    options = ("-b", f"unix:{path}", "--user", "nobody", "--socket-mode", "660", "--socket-group", "daemon")
    for _ in range(2):
        roots("serve", "site_a:app", "--daemon", *options)
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (
            0o660,
            65534,
            grp.getgrnam("daemon").gr_gid,
        )
        roots("stop", f"unix:{path}")
    assert "Traceback" not in roots.log()


def test_a_group_alone_and_what_is_not_there(roots: Machine) -> None:
    port = free_port()
    roots("serve", "site_a:app", "--daemon", "-p", str(port), "--group", "nogroup")
    assert " 0:65534 " in fetch(port)
    assert "no such user or group: no-such" in roots("serve", "site_a:app", "-p", "0", "--user", "no-such", code=2)


def test_a_python_that_only_root_may_read_is_named(roots: Machine) -> None:
    (roots.folder / "secret").mkdir(mode=0o700)
    source = f"""
        import os
        from microwsgi.daemon.privileges import Identity
        identity = Identity("nobody", "")
        os.__file__ = "{roots.folder}/secret/os.py"
        identity.drop_privileges()
        """
    command = [roots.python[0], "-c", dedent(source)] if roots.python else []
    done = subprocess.run(
        command, env=environment(**roots.variables), cwd=roots.folder, capture_output=True, text=True, check=False
    )
    assert f"the user nobody can't read {roots.folder}/secret, the library of this Python" in done.stderr


def test_who_is_not_root_has_nothing_to_drop(roots: Machine) -> None:
    source = (
        "import os; os.setgid(65534); os.setuid(65534); from microwsgi.daemon.privileges import Identity; Identity({})"
    )
    command = [*(roots.python or [])[:1], "-c"]
    settings = {"env": environment(**roots.variables), "cwd": roots.folder, "capture_output": True, "text": True}
    refused = subprocess.run([*command, source.format("'root', ''")], check=False, **settings)  # type: ignore[call-overload]
    assert "--user and --group work only if root" in refused.stderr
    subprocess.run([*command, source.format("'nobody', ''")], check=True, **settings)  # type: ignore[call-overload]


# --- Process 1 ----------------------------------------------------------------------------------------------------------


def test_process_1_of_a_container_reaps_orphans_and_replaces_workers(folder: Path) -> None:
    unshare = [need("unshare"), "--pid", "--fork", "--kill-child"]
    if os.geteuid():
        unshare.append("--map-root-user")
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        absent("namespaces", "this user may not make a PID namespace")
    (folder / "site_a.py").write_text(APPLICATION.replace("\n    ", "\n"))
    running = Running([*unshare, *microwsgi("serve", "site_a:app", "-p", "0")], cwd=folder)
    try:
        port = int(running.url().rpartition(":")[2])
        (first,) = children(running.pid)
        (worker,) = children(first)
        for _ in range(3):
            fetch(port, "/orphan")
        eventually(lambda: children(first) == [worker], "an orphan was not reaped")
        os.kill(worker, signal.SIGKILL)
        running.line("was killed by SIGKILL")
        assert fetch(port)
        os.kill(first, signal.SIGTERM)
        assert running.wait() == 0
    finally:
        running.end()


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
