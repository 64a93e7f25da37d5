"""`--daemon`, `status`, `stop`, `reload`, `logs`: exit codes that are true, pid files that can't lie, logs that rotate."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from microwsgi.cli.control import Server
from microwsgi.daemon import launch
from microwsgi.daemon.pidfile import holder
from microwsgi.errors import ServiceError
from tests.background import Machine, ended, eventually, fetch, free_port, gone
from tests.programs import need
from tests.running import LIMIT, Running, environment, microwsgi

pytestmark = pytest.mark.slow  # real processes, started and stopped one after another

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.end()


# --- Start --------------------------------------------------------------------------------------------------------------


def test_it_serves_when_the_command_returns_and_says_where(machine: Machine) -> None:
    said = machine("serve", "site_a:app", "--daemon", "-p", "0")
    port = int(said.split("http://127.0.0.1:")[1].split("/")[0])
    assert fetch(port)
    (pid,) = machine.pids()
    assert said.startswith(f"microwsgi serves site_a:app in the background, as process {pid}\n")
    assert f"microwsgi stop 127.0.0.1:{port}" in said
    assert "microwsgi 0" in machine.log()


@LINUX
def test_it_is_detached_from_all_that_the_shell_had(machine: Machine) -> None:
    with open(machine.folder / "kept", "w") as kept:
        os.set_inheritable(kept.fileno(), True)
        machine.start("--umask", "077")
        os.set_inheritable(kept.fileno(), False)
    (state,) = machine.states()
    (pid,) = machine.pids()
    (worker,) = [worker["pid"] for worker in state["workers"]]  # type: ignore[attr-defined]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[1]) != os.getpid()  # the parent: init, or who adopts in its place
    assert int(fields[3]) == pid  # a session of its own
    assert int(fields[4]) == 0  # without a terminal
    for each in (pid, worker):
        opened = {fd: os.readlink(f"/proc/{each}/fd/{fd}") for fd in os.listdir(f"/proc/{each}/fd")}
        assert opened["0"] == "/dev/null"
        assert opened["1"] == opened["2"]
        assert opened["1"].endswith(".log")
        assert not any("kept" in target or target.startswith("pipe:") for target in opened.values()), opened
    assert not any(target.endswith(".pid") for target in opened.values())  # the parent's alone


def test_the_folder_is_kept_or_the_one_asked_for_and_own_paths_are_those_that_were_typed(machine: Machine) -> None:
    (machine.folder / "elsewhere").mkdir()
    (machine.folder / "options.toml").write_text('access_log = "access"\nlog_file = "log"\npid_file = "x.pid"\n')
    assert f" {machine.folder} " in fetch(machine.start())
    port = machine.start("--config", "options.toml", "--chdir", "elsewhere", "--umask", "022")
    assert re.search(rf" {machine.folder}/elsewhere \S+ 22$", fetch(port))
    for name in ("access", "log", "x.pid", "x.sock"):
        assert (machine.folder / name).exists(), name


def test_a_substitution_returns_at_once_though_a_descriptor_is_inherited(machine: Machine) -> None:
    """`X=$(microwsgi ... 3>&1)`: whoever keeps the pipe open keeps the shell waiting."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    command = microwsgi("serve", "site_a:app", "--daemon", "-p", "0")
    subprocess.run(
        command,
        cwd=machine.folder,
        env=environment(**machine.variables),
        pass_fds=[writer],
        capture_output=True,
        check=True,
    )
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.parametrize(
    ("app", "code", "reason"),
    [
        ("bad:app", 3, "ZeroDivisionError: division by zero"),
        ("nothing:app", 3, "there is no module 'nothing'"),
        ("dies:app", 3, "the process that imports the application was killed by SIGKILL"),
    ],
)
def test_an_application_that_cannot_be_loaded_is_no_start(machine: Machine, app: str, code: int, reason: str) -> None:
    machine.write("bad.py", "def f():\n    return 1 / 0\nf()\n")
    machine.write("dies.py", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    said = machine("serve", app, "--daemon", "-p", str(free_port()), code=code)
    assert reason in said
    if app == "bad:app":
        assert 'bad.py", line 2, in f' in said  # the traceback
    assert "Log:" in said
    assert not [*machine.folder.glob("run/microwsgi/*")]


def test_a_port_in_use_is_no_start(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = machine("serve", "site_a:app", "--daemon", "-p", str(port), code=4)
    assert f"port {port} is already in use" in said


def test_what_can_not_be_written_is_no_start(machine: Machine) -> None:
    assert "can't be written: Is a directory" in machine("serve", "--daemon", "--log-file", ".", code=2)
    assert "can't be written: No such file" in machine("serve", "site_a:app", "--daemon", "--pid-file", "no/x", code=1)
    assert "can't change to --chdir no" in machine("serve", "site_a:app", "--daemon", "--chdir", "no", code=2)
    assert "can't be combined" in machine("serve", "site_a:app", "--daemon", "--reload", code=2)


def test_a_run_folder_where_others_may_write_is_refused(machine: Machine) -> None:
    folder = machine.folder / "run" / "microwsgi"
    folder.mkdir()
    folder.chmod(0o777)
    assert "belongs to another" in machine("serve", "site_a:app", "--daemon", "-p", "1234", code=2)
    folder.rmdir()
    folder.symlink_to(machine.folder)
    assert "belongs to another" in machine("status", code=2)
    folder.unlink()


def test_a_start_that_is_killed_is_not_taken_for_one(machine: Machine) -> None:
    machine.write(
        "kills.py", "import os, signal\nprint('farewell', flush=True)\nos.kill(os.getppid(), signal.SIGKILL)\n"
    )
    said = machine("serve", "kills:app", "--daemon", "-p", "0", code=1)
    assert "the server ended with exit code -9 before it was ready" in said
    assert "farewell" in said


def test_a_second_start_is_refused_with_the_pid(machine: Machine) -> None:
    port = free_port()
    machine.start("-p", str(port))
    (pid,) = machine.pids()
    said = machine("serve", "site_a:app", "--daemon", "-p", str(port), code=1)
    assert f"microwsgi is already running as process {pid}" in said
    assert fetch(port)
    assert machine.pids() == [pid]


@pytest.mark.parametrize("left", ["", "999999\n", pytest.param(f"{os.getpid()}\n", id="the tests' pid"), "nonsense"])
def test_a_stale_pid_file_is_no_obstacle_and_no_stranger_is_signalled(machine: Machine, left: str) -> None:
    """What a killed server leaves; a number that is another program's by now: here that of the tests themselves."""
    (machine.folder / "x.pid").write_text(left)
    assert "x.pid is not running." in machine("stop", "x.pid", code=7)
    machine("restart", "--graceful", "x.pid", code=7)
    machine("status", "x.pid", code=1 if left else 3)
    machine.start("--pid-file", "x.pid")
    machine("status", "--pid-file", "x.pid")
    assert machine("stop", "x.pid") == "x has stopped.\n"
    assert not (machine.folder / "x.pid").exists()


def test_after_a_kill_the_children_end_and_it_starts_again(machine: Machine) -> None:
    port = free_port()
    machine.start("-p", str(port), "--workers", "2")
    workers = [worker["pid"] for worker in machine.states()[0]["workers"]]  # type: ignore[attr-defined]
    os.kill(machine.pids()[0], signal.SIGKILL)
    for pid in workers:
        eventually(lambda pid=pid: gone(pid), "a worker has outlived its parent")  # type: ignore[misc]
    assert "it was killed and left its pid file" in machine("status", code=1)
    machine.start("-p", str(port))
    assert fetch(port)


def test_a_killed_worker_is_replaced(machine: Machine) -> None:
    port = machine.start("--workers", "2")
    victim = int(fetch(port).split()[0])
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: f"Worker {victim} was killed by SIGKILL" in machine.log())
    eventually(lambda: {worker["state"] for worker in machine.states()[0]["workers"]} == {"serving"})  # type: ignore[attr-defined]
    assert len(machine.states()[0]["workers"]) == 2  # type: ignore[arg-type]


# --- Status, stop, reload, logs -----------------------------------------------------------------------------------------


def test_status_shows_what_it_does(machine: Machine) -> None:
    assert machine("status", code=3) == "No server is running in the background.\n"
    port = machine.start("--workers", "2")
    fetch(port)
    with pytest.raises(AssertionError, match="500"):
        fetch(port, "/fail")
    keeps = HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    keeps.request("GET", "/")
    keeps.getresponse().read()
    (state,) = json.loads(machine("status", str(port), "--json"))
    assert (state["requests"], state["errors"], state["connections"], state["running"]) == (3, 1, 1, 0)
    assert state["urls"] == [f"http://127.0.0.1:{port}/"]
    assert len(state["workers"]) == 2
    if sys.platform == "linux":
        assert 1e6 < state["memory"] < 1e9
    text = machine("status")
    assert f"127.0.0.1:{port} runs as process {machine.pids()[0]}, up" in text
    assert "  3 requests, 1 error, 0 running, 1 connection\n" in text
    keeps.close()
    machine("status", str(port + 1), code=3)


def test_the_counts_outlive_the_workers(machine: Machine) -> None:
    port = machine.start()
    fetch(port)
    machine("restart", "--graceful")
    fetch(port)
    eventually(lambda: machine.states()[0]["requests"] == 2)


def test_stop_lets_a_request_finish_and_returns_when_it_has_ended(machine: Machine) -> None:
    port = machine.start("--graceful-timeout", "60")
    (pid,) = machine.pids()
    answers: list[str] = []
    client = threading.Thread(target=lambda: answers.append(fetch(port, "/gate")))
    client.start()
    eventually((machine.folder / "began").exists)
    stop = subprocess.Popen(
        microwsgi("stop"), cwd=machine.folder, env=environment(**machine.variables), stdout=subprocess.PIPE
    )
    with ended(stop):
        eventually(lambda: "waiting for 1 request" in machine.log())
        assert stop.poll() is None
        (machine.folder / "go").touch()
        assert stop.wait(LIMIT) == 0
        assert gone(pid)
    client.join(LIMIT)
    assert answers
    assert not [*machine.folder.glob("run/microwsgi/*")]


def test_stop_minds_no_idle_and_no_half_sent_connection(machine: Machine) -> None:
    port = machine.start("--graceful-timeout", "60")
    idle = HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    idle.request("GET", "/")
    idle.getresponse().read()
    with socket.create_connection(("127.0.0.1", port)) as half_sent:
        half_sent.sendall(b"GET / HT")
        assert "has stopped" in machine("stop", "--wait", "20")
    idle.close()


def test_stop_says_what_it_waits_for_and_can_be_told_not_to(machine: Machine) -> None:
    port = machine.start("--graceful-timeout", "600")
    (pid,) = machine.pids()
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"GET /gate HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    eventually((machine.folder / "began").exists)
    assert "microwsgi stop --force" in machine("stop", "--wait", "0.1", code=1)
    machine("stop", "--force")
    assert gone(pid)
    client.close()


def test_a_start_that_is_interrupted_leaves_nothing(machine: Machine) -> None:
    machine.write(
        "slow.py", "import os, time\nprint(os.getpid(), file=open('began', 'w'), flush=True)\ntime.sleep(60)\n"
    )
    start = subprocess.Popen(
        microwsgi("serve", "slow:app", "--daemon", "-p", "0", "--pid-file", "x.pid"),
        cwd=machine.folder,
        env=environment(**machine.variables),
        stderr=subprocess.DEVNULL,
    )
    eventually(lambda: (machine.folder / "began").exists() and (machine.folder / "began").read_text())
    pids = [int((machine.folder / "began").read_text()), int((machine.folder / "x.pid").read_text())]
    start.send_signal(signal.SIGINT)
    assert start.wait(LIMIT)
    for pid in pids:
        eventually(lambda pid=pid: gone(pid), "it still runs")  # type: ignore[misc]
    assert not (machine.folder / "x.pid").exists()


def test_a_start_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "START_TIME", 0.05)
    reader, writer = os.pipe()
    process = subprocess.Popen([need("sleep"), "60"])
    with pytest.raises(ServiceError, match=r"was not ready within 0\.05 s, and was stopped"):
        launch.wait_for_message(reader, process)
    assert process.returncode == -signal.SIGTERM
    os.close(reader)
    os.close(writer)


def test_where_the_system_does_not_tell_who_has_a_lock_the_locked_file_does(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.start("--pid-file", "x.pid")
    path = str(machine.folder / "x.pid")
    pid = holder(path)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert holder(path) == pid == machine.pids()[0]
    machine("stop", "x.pid")
    (machine.folder / "x.pid").write_text(f"{pid}\n")
    assert holder(path) == 0


def test_who_has_not_the_lock_gets_no_signal(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks the server has ended, and its pid is another program's: here that of the tests."""
    machine.start("--pid-file", "x.pid")
    server = Server(str(machine.folder / "x.pid"))
    server.pid = os.getpid()
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        server.signal(signal.SIGUSR1)
        os.close(server.descriptor)
        monkeypatch.delattr(os, "pidfd_open")
        server.descriptor = -1
        server.signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == []


def test_without_pidfds_a_stop_waits_too(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.start("--pid-file", "x.pid")
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    server = Server(str(machine.folder / "x.pid"))
    assert not server.ends(0)
    server.signal(signal.SIGTERM)
    assert server.ends(LIMIT)


def test_a_stop_of_what_does_not_run_fails_and_says_what_does(machine: Machine) -> None:
    assert machine("stop") == "No server is running in the background.\n"
    port = machine.start()
    for command in ("stop", "restart"):
        said = machine(command, "127.0.0.1:1", code=7)
        assert said == f"127.0.0.1:1 is not running.\n  127.0.0.1:{port} runs as process {machine.pids()[0]}.\n"


def test_localhost_and_its_numbers_are_one_address(machine: Machine) -> None:
    port = machine.start()
    for name in (f"localhost:{port}", f"http://[::1]:{port}/", f"https://localhost:{port}", str(port)):
        machine("status", name)
    machine("status", f"127.0.0.2:{port}", code=3)
    assert machine("stop", f"localhost:{port}") == f"127.0.0.1:{port} has stopped.\n"


def test_restart_starts_it_in_the_same_way(machine: Machine) -> None:
    (machine.folder / "elsewhere").mkdir()
    port = free_port()
    machine.start("-p", str(port), "--workers", "2", "--umask", "022", "--chdir", "elsewhere")
    before, (pid,) = fetch(port).split()[1:], machine.pids()
    said = machine("restart", f"localhost:{port}")
    assert said.startswith("microwsgi serves site_a:app in the background")
    assert fetch(port).split()[1:] == before
    assert machine.pids() != [pid]
    assert len(machine.states()[0]["workers"]) == 2  # type: ignore[arg-type]


def test_what_was_not_started_with_daemon_is_not_restarted(command: Callable[..., Running], machine: Machine) -> None:
    running = command("serve", "site_a:app", "-p", "0", "--pid-file", "x.pid", cwd=machine.folder)
    running.url()
    assert "was not started with --daemon" in machine("restart", "x.pid", code=1)
    assert machine("status", "x.pid")
    assert running.stop() == 0


def test_status_tells_folder_options_user_and_python(machine: Machine) -> None:
    port = machine.start("--workers", "2", "--full-traceback")
    said = machine("status", str(port))
    assert f"  Directory: {machine.folder}\n" in said
    assert "--workers 2 --daemon\n" in said
    assert re.search(rf"^  User:      \S+, Python \d\.\d+\.\d+\S* \({sys.executable}\)$", said, re.MULTILINE)


@LINUX
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_start_with_closed_standard_streams_returns(machine: Machine, closed: str) -> None:
    """With all three closed, the pipe to the background process would be descriptor 0, 1 or 2."""
    port = free_port()
    line = f'"$@" {closed}'
    command = microwsgi("serve", "site_a:app", "--daemon", "-p", str(port))
    done = subprocess.run(
        [need("sh"), "-c", line, "sh", *command],
        cwd=machine.folder,
        env=environment(**machine.variables),
        timeout=60,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0
    assert fetch(port)


def test_several_are_told_apart(machine: Machine) -> None:
    first, second = machine.start(), machine.start()
    assert "several servers are running; name one" in machine("stop", code=2)
    machine("stop", str(first))
    machine("status", f"127.0.0.1:{second}")
    machine("stop", f"http://127.0.0.1:{second}/")


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0"])
def test_it_goes_by_the_name_that_was_typed(machine: Machine, host: str) -> None:
    where = f"{host}:{free_port()}"
    said = machine("serve", "site_a:app", "--daemon", "-b", where)
    stop = said.rpartition("Stop:  microwsgi ")[2].split()
    assert stop == ["stop", where]
    assert machine(*stop) == f"{where} has stopped.\n"


def test_a_server_on_a_unix_socket_has_its_files_too(machine: Machine) -> None:
    machine.start("-b", "unix:s")
    (state,) = machine.states()
    assert state["urls"] == [f"unix:{machine.folder}/s"]
    machine("stop")
    assert not (machine.folder / "s").exists()


def test_reload_serves_new_code_or_says_why_not(machine: Machine) -> None:
    port = machine.start()
    before = fetch(port)
    assert "serves the new code" in machine("restart", "--graceful")
    assert fetch(port) != before
    machine.write("site_a.py", "app = 1 / 0")
    said = machine("restart", "--graceful", code=1)
    assert "ZeroDivisionError" in said
    assert said.endswith("The last good version is still being served.\n")
    assert fetch(port)


def test_a_graceful_restart_is_answered_when_the_error_is_served_instead(
    command: Callable[..., Running], machine: Machine
) -> None:
    machine.write("site_a.py", "app = 1 / 0")
    running = command(
        "serve", "site_a:app", "-p", "0", "--pid-file", "x.pid", "--reload", "--reload-error-page", cwd=machine.folder
    )
    running.line("every request is answered with status 500")
    said = machine("restart", "--graceful", "x.pid", code=1)
    assert "ZeroDivisionError" in said
    assert said.endswith("Requests are answered with an error page.\n")


@pytest.mark.slow
def test_reload_under_load_fails_no_request(machine: Machine) -> None:
    port = machine.start("--workers", "2")
    failures: list[object] = []
    done = threading.Event()
    asked = [0, 0]

    def ask(index: int) -> None:
        while not done.is_set():
            try:
                fetch(port)
                asked[index] += 1
            except (OSError, AssertionError) as error:
                failures.append(error)

    clients = [threading.Thread(target=ask, args=(index,)) for index in range(2)]
    for client in clients:
        client.start()
    for _ in range(5):
        machine("restart", "--graceful")
    done.set()
    for client in clients:
        client.join(LIMIT)
    assert failures == []
    assert min(asked) > 20


# --- The log ------------------------------------------------------------------------------------------------------------


def test_a_log_that_was_moved_is_opened_anew(machine: Machine) -> None:
    port = machine.start("--log-file", "log", "--access-log", "access")
    fetch(port, "/one")
    log, access = machine.folder / "log", machine.folder / "access"
    eventually(lambda: "/one" in access.read_text())
    log.rename(machine.folder / "log.1")
    access.unlink()
    os.kill(machine.pids()[0], signal.SIGUSR1)
    eventually(lambda: log.exists() and access.exists())
    fetch(port, "/two")
    eventually(lambda: "/two" in log.read_text() and "/two" in access.read_text())
    assert "/two" not in (machine.folder / "log.1").read_text()
    assert oct(log.stat().st_mode)[-3:] == "640"


def test_a_log_that_can_not_be_opened_anew_is_written_on(machine: Machine) -> None:
    (machine.folder / "logs").mkdir()
    port = machine.start("--log-file", "logs/log")
    with open(machine.folder / "logs" / "log") as old:
        (machine.folder / "logs").rename(machine.folder / "moved")
        os.kill(machine.pids()[0], signal.SIGUSR1)
        eventually(lambda: old.seek(0) == 0 and "continues with the old file" in old.read())
        fetch(port, "/still")
        eventually(lambda: old.seek(0) == 0 and "/still" in old.read())


def test_logrotate_loses_no_line(machine: Machine) -> None:
    logrotate = need("logrotate")
    port = machine.start("--log-file", "log")
    (pid,) = machine.pids()
    config = machine.write(
        "rotate.conf",
        f"""
        {machine.folder}/log {{
            rotate 5
            su {os.getuid()} {os.getgid()}
            postrotate
                kill -USR1 {pid}
            endscript
        }}
        """,
    )
    for number in range(200):
        fetch(port, f"/{number}")
        if number % 80 == 79:
            subprocess.run([logrotate, "--force", "--state", "state.logrotate", config], cwd=machine.folder, check=True)
    machine("stop")
    text = "".join(path.read_text() for path in machine.folder.glob("log*"))
    assert len(re.findall(r'"GET /\d+ HTTP/1.1" 200', text)) == 200
    assert (machine.folder / "log.2").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_costs_the_log_and_nothing_else(machine: Machine) -> None:
    port = machine.start("--log-file", "/dev/full")
    for path in ("/", "/fail", "/"):
        connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        connection.request("GET", path)
        assert connection.getresponse().status == (500 if path == "/fail" else 200), path
        connection.close()
    machine("restart", "--graceful")
    machine("stop")


def test_usr2_writes_the_state_as_json(machine: Machine) -> None:
    port = machine.start()
    fetch(port)
    os.kill(machine.pids()[0], signal.SIGUSR2)
    eventually(lambda: '{"pid"' in machine.log())
    (line,) = [line for line in machine.log().splitlines() if line.startswith('{"pid"')]
    assert json.loads(line)["requests"] == 1


def test_logs_shows_the_end_and_follows_through_a_rotation(machine: Machine) -> None:
    assert "no log of this server" in machine("logs", code=1)
    port = machine.start("--log-file", "log")
    fetch(port, "/one")
    eventually(lambda: "/one" in (machine.folder / "log").read_text())
    assert len(machine("logs", "-n", "1").splitlines()) == 1
    follow = subprocess.Popen(
        microwsgi("logs", "--follow"), env=environment(**machine.variables), stdout=subprocess.PIPE, text=True
    )
    with ended(follow):
        assert follow.stdout is not None
        while "/one" not in follow.stdout.readline():
            pass
        (machine.folder / "log").rename(machine.folder / "log.1")
        os.kill(machine.pids()[0], signal.SIGUSR1)
        eventually((machine.folder / "log").exists)
        fetch(port, "/two")
        while "/two" not in follow.stdout.readline():
            assert follow.poll() is None
        follow.send_signal(signal.SIGINT)
        assert follow.wait(LIMIT) == 0


def test_logs_shows_what_a_server_said_that_is_gone(machine: Machine) -> None:
    port = free_port()
    machine.start("-p", str(port))
    os.kill(machine.pids()[0], signal.SIGKILL)
    for words in ((), (f"127.0.0.1:{port}",)):
        eventually(lambda words=words: "serving site_a:app" in machine("logs", *words))  # type: ignore[misc]
    machine("logs", "127.0.0.1:1", code=1)


def test_a_socket_of_the_shell_goes_with_it(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = microwsgi("serve", "site_a:app", "--daemon", "-b", f"fd://{listener.fileno()}")
        subprocess.run(
            command,
            cwd=machine.folder,
            env=environment(**machine.variables),
            pass_fds=[listener.fileno()],
            capture_output=True,
            check=True,
        )
        port = listener.getsockname()[1]
    assert fetch(port)
    machine("stop")


# --- The lock -----------------------------------------------------------------------------------------------------------


def test_of_many_starts_at_once_one_succeeds(machine: Machine) -> None:
    command = microwsgi("serve", "site_a:app", "--daemon", "-p", str(free_port()))
    settings = {"cwd": machine.folder, "env": environment(**machine.variables)}
    starts = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **settings)  # type: ignore[call-overload]
        for _ in range(4)
    ]
    codes = sorted(start.wait(60) for start in starts)
    assert codes == [0, 1, 1, 1]


def test_time_is_not_waited_for_when_nothing_listens(machine: Machine) -> None:
    """A killed server's socket file is there still: who asks it is told so at once."""
    machine.start()
    os.kill(machine.pids()[0], signal.SIGKILL)
    start = time.monotonic()
    machine("status", code=1)
    assert time.monotonic() - start < LIMIT
