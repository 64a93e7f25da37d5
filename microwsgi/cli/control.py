"""`microwsgi status`, `stop`, `restart` and `logs`: servers in the background, by their address or their pid file.

Services that systemd has started have a pid file, too, in a folder that systemd creates for them.

Only the lock of a pid file is trusted: the number in the file may now be the pid of another program. Before a signal is sent,
the process is opened (pidfd), and then the lock is checked, so that no other process can receive the signal.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir

from microwsgi.daemon.background import address_of, file_name, log_folder, run_folders
from microwsgi.daemon.pidfile import holder
from microwsgi.errors import ServiceError, UsageError
from microwsgi.server.log import bytes_text
from microwsgi.serving.console import counted, duration
from microwsgi.support.typenames import Any

RUNNING, DEAD, STOPPED, UNKNOWN = 0, 1, 3, 4
"""The exit codes of `status` (LSB): running; dead, but the pid file is left; not running; unknown."""
NOT_RUNNING = 7
"""The exit code of `stop` and `restart` if the server is not running, as LSB has it for `reload`."""
ANSWER_TIME = 3.0
"""Seconds to wait for the answer to a query. The server waits for its workers for one second."""
FORCED_TIME = 2.0
"""Seconds within which a server must end that was told not to wait for requests; else it is killed."""
LOG_PAUSE = 0.2
"""Seconds between two attempts to read new lines of a log."""
LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}
"""Hosts that count as the same address."""


class Server:
    """A pid file, and the process that has locked it, if there is one. Raises ServiceError if the file can't be read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = address_of(os.path.basename(path).removesuffix(".pid"))
        self.descriptor = -1  # a pidfd: it refers to this process even if the pid is reused
        try:
            self.pid = holder(path)
        except OSError as error:
            raise ServiceError(f"{path} can't be read: {error.strerror}.") from None

    @property
    def was_killed(self) -> bool:
        """Whether the server was killed and left its pid file: a server that stops removes or empties it."""
        return not self.pid and os.path.exists(self.path) and os.path.getsize(self.path) > 0

    def ask(self, query: str, seconds: float) -> dict[str, Any]:
        """Send a query to the server. Return its answer, {} if it does not answer in time."""
        folder, name = os.path.split(os.path.abspath(self.path))
        with chdir(folder), socket.socket(socket.AF_UNIX) as connection:  # a socket's path may have 107 bytes
            connection.settimeout(seconds)
            received = b""
            try:
                connection.connect(f"{name.removesuffix('.pid')}.sock")
                connection.sendall(f"{query}\n".encode())
                while not received.endswith(b"\n"):
                    data = connection.recv(65536)
                    if not data:
                        return {}
                    received += data
            except OSError:
                return {}
        answer: dict[str, Any] = json.loads(received)
        return answer

    def signal(self, number: int) -> None:
        """Send a signal to this process and no other. Raises ServiceError."""
        try:
            if hasattr(os, "pidfd_open"):
                self.descriptor = os.pidfd_open(self.pid) if self.descriptor < 0 else self.descriptor
            if holder(self.path) != self.pid:
                return  # it has just ended
            if self.descriptor < 0:
                os.kill(self.pid, number)
            else:
                signal.pidfd_send_signal(self.descriptor, number)
        except PermissionError:
            raise ServiceError(
                f"process {self.pid} belongs to another user: you have no permission to stop or reload it."
            ) from None
        except ProcessLookupError:
            pass  # it has just ended

    def ends(self, seconds: float) -> bool:
        """Return whether the process ends within this time."""
        end = time.monotonic() + seconds
        while holder(self.path) == self.pid:
            left = end - time.monotonic()
            if left <= 0:
                return False
            if self.descriptor < 0:
                time.sleep(min(left, LOG_PAUSE))
            else:
                poll = select.poll()
                poll.register(self.descriptor, select.POLLIN)
                poll.poll(left * 1000)
        return True


# --- Finding the server -------------------------------------------------------------------------------------------------


def servers(words: list[str], options: Mapping[str, object]) -> list[Server]:
    """Return the servers that were named: by pid file, address or port; or all. Raises UsageError."""
    if len(words) > 1:
        raise UsageError(f"expected one server, not {len(words)}: {' '.join(words)}.")
    path = str(options.get("pid_file") or "")
    if not path and words and words[0].endswith(".pid"):
        path = words[0]
    if path:
        return [Server(path)]
    found = known_servers()
    if not words:
        return found
    exact = [each for each in found if each.name == words[0]]
    return exact or [each for each in found if matches(words[0], each.name)]


def known_servers() -> list[Server]:
    """Return all servers that have a pid file in one of the run folders. Raises UsageError."""
    own, *others = run_folders()
    found = [Server(os.path.join(own, name)) for name in pid_files(own)]
    for folder in others:
        for name in pid_files(folder):
            try:
                found.append(Server(os.path.join(folder, name)))
            except ServiceError:
                continue  # a service of another user
    return found


def pid_files(folder: str) -> list[str]:
    """Return the names of the pid files in a folder."""
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(".pid"))
    except OSError:
        return []


def matches(wanted: str, name: str) -> bool:
    """Return whether a server has this address or port."""
    wanted = wanted.removeprefix("http://").removeprefix("https://").rstrip("/")
    host, _, port = wanted.rpartition(":")
    its_host, _, its_port = name.rpartition(":")
    if not host:
        return wanted in {name, its_port}
    return port == its_port and (host == its_host or {host, its_host} <= LOOPBACK)


def find_running(words: list[str], options: Mapping[str, object]) -> Server | None:
    """Return the running server that was named; None if there is none. Raises UsageError if there are several."""
    running = [each for each in servers(words, options) if each.pid]
    if len(running) > 1:
        raise UsageError(f"several servers are running; name one ({', '.join(each.name for each in running)}).")
    return running[0] if running else None


def print_not_running(words: list[str], options: Mapping[str, object]) -> None:
    """Print that a server is not running, and which servers are running."""
    meant = str(options.get("pid_file") or "") or "".join(words)
    lines = [f"{meant} is not running." if meant else "No server is running in the background."]
    lines += [f"  {each.name} runs as process {each.pid}." for each in known_servers() if each.pid and meant]
    print("\n".join(lines), file=sys.stderr)


# --- Commands -----------------------------------------------------------------------------------------------------------


def status_command(words: list[str], options: dict[str, object]) -> int:
    """Run `microwsgi status`."""
    try:
        found = servers(words, options)
    except ServiceError as error:
        print(f"microwsgi: {error}", file=sys.stderr)
        return UNKNOWN
    states = [
        {"name": each.name, "pid": each.pid, **(each.ask("state", ANSWER_TIME) if each.pid else {})} for each in found
    ]
    if options["json"]:
        print(json.dumps(states))
    else:
        for server, state in zip(found, states, strict=True):
            print(describe(server, state))
        if not found:
            print(f"{words[0]} is not running." if words else "No server is running in the background.")
    if found and all(each.pid for each in found):
        return RUNNING
    return DEAD if any(each.was_killed for each in found) else STOPPED


def stop_command(words: list[str], options: dict[str, object]) -> int:
    """Run `microwsgi stop`. Raises UsageError."""
    server = find_running(words, options)
    if server is None:
        print_not_running(words, options)
        return NOT_RUNNING if words or options.get("pid_file") else 0
    stop(server, options)
    print(f"{server.name} has stopped.")
    return 0


def stop(server: Server, options: Mapping[str, object]) -> None:
    """Stop a server, and wait until it has ended. Raises ServiceError."""
    wait = float(str(options["wait"]))
    server.signal(signal.SIGTERM)
    if options["force"]:
        for number in (signal.SIGTERM, signal.SIGKILL):  # after a second TERM the server ends without waiting
            server.signal(number)
            if server.ends(FORCED_TIME):
                break
    elif not server.ends(wait):
        raise ServiceError(
            f"{server.name} has not ended within {wait:g} s: it is still finishing requests.\n"
            f"  Try:  microwsgi stop --force {server.name}"
        )


def restart_command(words: list[str], options: dict[str, object]) -> int:
    """Run `microwsgi restart`: stop a server, and start it again with the same command in the same folder."""
    server = find_running(words, options)
    if server is None:
        print_not_running(words, options)
        return NOT_RUNNING
    if options["graceful"]:
        return restart_gracefully(server, float(str(options["wait"])))
    state = server.ask("state", ANSWER_TIME)
    command: list[str] = state.get("command", [])
    if unit := state.get("unit"):
        raise ServiceError(f"systemd has started {server.name}.\n  Try:  systemctl restart {unit}")
    if not command:
        why = "was not started with --daemon" if state else "does not answer"
        raise ServiceError(f"{server.name} {why}, so its command line is not known: stop it, and start it yourself.")
    stop(server, options)
    return subprocess.run(command, cwd=str(state["started_in"]), check=False).returncode  # its own command line


def restart_gracefully(server: Server, wait: float) -> int:
    """Run `microwsgi restart --graceful`. Return 0 when the new code serves. Raises UsageError."""
    answer = server.ask("reload", wait)
    if not answer:
        raise ServiceError(
            f"{server.name} has not reported that it serves the new code.\n  Try:  microwsgi logs {server.name}"
        )
    if answer["error"]:
        raise ServiceError(answer["error"])
    print(f"{server.name} serves the new code.")
    return 0


def logs_command(words: list[str], options: dict[str, object]) -> int:
    """Run `microwsgi logs`: print the end of a log, and with --follow new lines, also after rotation. Raises UsageError."""
    server = find_running(words, options)
    state = server.ask("state", ANSWER_TIME) if server else {}
    if server and state.get("unit") and not state["log"]:
        return journal(server, str(state["unit"]), options)
    path = str(state.get("log", "")) if server else last_log(words)
    if not path:
        raise ServiceError("no log of this server was found.\n  Try:  microwsgi status")
    try:
        for text in lines(path, int(str(options["lines"])), follow=bool(options["follow"])):
            sys.stdout.write(text)
            sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    except OSError as error:
        raise ServiceError(f"{path} can't be read: {error.strerror}.") from None
    return 0


# --- Logs and descriptions ----------------------------------------------------------------------------------------------


def journal(server: Server, unit: str, options: Mapping[str, object]) -> int:
    """Show the journal of a systemd unit. Raises ServiceError."""
    own = [] if server.path.startswith("/run/microwsgi/") else ["--user"]
    command = ["journalctl", *own, "--unit", unit, "--lines", str(options["lines"])]
    try:
        return subprocess.run([*command, *(["--follow"] if options["follow"] else [])], check=False).returncode
    except OSError as error:
        raise ServiceError(f"{' '.join(command)} can't be run: {error.strerror}.") from None


def last_log(words: list[str]) -> str:
    """Return the log of a server that has ended, from the default folder: that of an address, or the newest."""
    folder = log_folder()
    name = f"{file_name(words[0])}.log" if words else ""
    try:
        found = [
            os.path.join(folder, each) for each in os.listdir(folder) if each == name or (not words and ".log" in each)
        ]
    except OSError:
        found = []
    return max(found, key=os.path.getmtime, default="")


def describe(server: Server, state: Mapping[str, Any]) -> str:
    """Return the description of a server's state."""
    if not server.pid:
        killed = "; it was killed and left its pid file" if server.was_killed else ""
        return f"{server.name} is not running{killed}."
    lines = [f"{server.name} runs as process {server.pid}"]
    if "uptime" not in state:
        return f"{lines[0]}, and does not answer."
    workers: list[dict[str, object]] = state["workers"]
    urls: list[str] = state["urls"]
    given: dict[str, str] = state["options"]
    lines[0] += f", up {duration(float(str(state['uptime'])))}: {state['application']}"
    lines += [f"  {each}" for each in urls]
    counts = [counted(state["requests"], "request"), counted(state["errors"], "error")]
    counts += [f"{state['running']} running", counted(state["connections"], "connection")]
    lines.append(f"  {', '.join(counts)}")
    pids = ", ".join(
        f"{worker['pid']}{'' if worker['state'] == 'serving' else ' ' + str(worker['state'])}" for worker in workers
    )
    size = f", {bytes_text(state['memory'])} of memory" if state["memory"] else ""
    lines.append(f"  {counted(len(workers), 'worker')} ({pids}){size}")
    notes: list[str] = state["tls"]
    lines += [f"  {note}" for note in notes]
    lines.append(f"  Directory: {state['folder']}")
    lines.append(f"  Options:   {' '.join(f'{flag} {value}'.rstrip() for flag, value in given.items())}")
    lines.append(f"  User:      {state['user']}, Python {state['python']}")
    if state["unit"]:
        lines.append(f"  Unit:      {state['unit']}")
    if state["log"]:
        lines.append(f"  Log:       {state['log']}")
    return "\n".join(lines)


def lines(path: str, last: int, *, follow: bool) -> Iterator[str]:
    """Yield the last lines of a file; then, forever, text that is written to it, or to the file that replaces it."""
    log = open(path, encoding="utf-8", errors="replace")  # not in a `with`: it may be replaced
    yield "".join(log.readlines()[-last:] if last else [])
    while follow:
        if text := log.read():
            yield text
            continue
        time.sleep(LOG_PAUSE)  # there is no portable notification of new data in a file
        try:
            moved = not os.path.samestat(os.stat(path), os.fstat(log.fileno()))
        except FileNotFoundError:
            continue
        if moved:
            yield log.read()
            log.close()
            log = open(path, encoding="utf-8", errors="replace")
    log.close()
