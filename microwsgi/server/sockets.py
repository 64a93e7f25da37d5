"""Addresses: from what people write to sockets that listen, and from sockets to what people can click.

HOST:PORT, [V6]:PORT, unix:PATH, unix:@NAME (abstract) and fd://N. What can't be listened on is a ListenError that says why,
and what to do. Names are resolved for nobody but the operator: no reverse look-up is ever made, it may take half a minute.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from microwsgi.errors import ListenError

LAST_PORT = 65535
LISTENING = "0A"
"""TCP_LISTEN in /proc/net/tcp."""


def listen(address: str, backlog: int) -> list[socket.socket]:
    """The sockets that listen on an address: two for `localhost`, one for each of its IP addresses. Raises ListenError."""
    if address.startswith("unix:"):
        return [listen_unix(address.removeprefix("unix:"), backlog)]
    if address.startswith("fd://"):
        return [inherited(address.removeprefix("fd://"))]
    host, port = split(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise ListenError(f"There is no address for the name {host!r}: try 127.0.0.1 or localhost.") from None
    families = {family: where for family, _, _, _, where in reversed(found)}
    if host != "localhost":
        families = dict([(found[0][0], found[0][4])])
    return listen_together(families, port, backlog)


def split(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [V6]:PORT. Raises ListenError."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise ListenError(f"{address!r} is no address: write HOST:PORT, [V6]:PORT, unix:PATH or fd://N.")
    if int(port) > LAST_PORT:
        raise ListenError(f"Port {port} is not possible: ports go from 0 to {LAST_PORT} (0 picks a free one).")
    return host, int(port)


def listen_together(families: dict[int, tuple[object, ...]], port: int, backlog: int) -> list[socket.socket]:
    """A socket for each family, all on one port, also where the system picks it."""
    for _ in range(10):
        listeners: list[socket.socket] = []
        for family, where in sorted(families.items()):
            chosen = listeners[0].getsockname()[1] if listeners else port
            try:
                listeners.append(listen_tcp(family, (where[0], chosen, *where[2:]), backlog))
            except OSError as error:
                if listeners and not port and error.errno == errno.EADDRINUSE:
                    break  # free for the first family, taken for the second: have another one picked
                if listeners and error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                    continue  # `localhost` without IPv6
                for listener in listeners:
                    listener.close()
                raise ListenError(why_not(error, str(where[0]), chosen)) from None
        else:
            return listeners
        for listener in listeners:
            listener.close()
    raise ListenError("No port is free for IPv4 and IPv6 together: name one with --port.")


def listen_tcp(family: int, where: tuple[object, ...], backlog: int) -> socket.socket:
    """One listening socket. Raises OSError."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows it would let two servers have one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it: one call less each
        listener.bind(where)
        listener.listen(backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def listen_unix(path: str, backlog: int) -> socket.socket:
    """A Unix socket that only its owner's group can reach; a leading @ is an abstract name, which no file has."""
    if not hasattr(socket, "AF_UNIX"):
        raise ListenError("This system has no Unix sockets: use HOST:PORT.")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.startswith("@"):
            listener.bind("\0" + path[1:])
        else:
            make_way(Path(path))
            mask = os.umask(0o117)
            try:
                listener.bind(path)
            finally:
                os.umask(mask)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        reason = "another program has it" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
        raise ListenError(f"The Unix socket {path} can't be made: {reason}.") from None
    except ListenError:
        listener.close()
        raise
    return listener


def make_way(path: Path) -> None:
    """Remove the socket file of a server that is dead; whatever else is there stays."""
    if not path.exists() and not path.is_symlink():
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise ListenError(f"{path} is there already and is no socket: name another path, or remove it.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except OSError as error:
            raise ListenError(f"{path} can't be used: {error.strerror}.") from None
        else:
            raise ListenError(f"{path} is in use by another server: name another path, or stop that one.")


def unlink(listener: socket.socket) -> None:
    """Remove the file of a Unix socket that we listened on, if the one there now is still ours."""
    if listener.family != getattr(socket, "AF_UNIX", None) or listener.fileno() < 0:
        return
    path = listener.getsockname()
    if isinstance(path, str) and path and os.path.exists(path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(path)
            except OSError:
                return
        # Connected, and we are the ones who listen there: nobody else could without removing the file first.
        if listening_inode(path) in {None, os.fstat(listener.fileno()).st_ino}:
            os.unlink(path)


def listening_inode(path: str) -> int | None:
    """The socket that listens on a path, as the kernel lists it; None where it doesn't."""
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as table:
            rows = [line.split(maxsplit=7) for line in table]
    except OSError:
        return None
    inodes = [int(row[6]) for row in rows if len(row) == 8 and row[7].strip() == path and row[3] == "00010000"]  # noqa: PLR2004
    return inodes[-1] if inodes else None


def inherited(number: str) -> socket.socket:
    """A listening socket that the process was started with."""
    try:
        listener = socket.socket(fileno=int(number))
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except (ValueError, OSError):
        raise ListenError(f"fd://{number} is no socket that this process was started with.") from None
    if not listening:
        listener.detach()
        raise ListenError(f"fd://{number} is a socket, but does not listen.")
    listener.setblocking(False)
    return listener


def why_not(error: OSError, host: str, port: int) -> str:
    """What to tell who can't have an address, and what to try."""
    if error.errno == errno.EADDRINUSE:
        owner = who_has(port)
        free = f"\n  Try:  microwsgi serve --port {next_free(host, port)} ..."
        if owner is None:
            return f"Port {port} is already in use.{free}"
        number, command = owner
        return f"Port {port} is already in use by PID {number}:\n  {command}{free}\n        kill {number}              (stop that program)"
    if error.errno == errno.EACCES:
        return (
            f"This user may not open port {port} (ports below 1024 are kept for root)."
            f"\n  Try:  microwsgi serve --port {8000 + port % 1000} ..."
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{host} is not an address of this machine."
            "\n  Try:  microwsgi serve --host 127.0.0.1   (only this machine)"
            "\n        microwsgi serve --host 0.0.0.0     (every interface)"
        )
    return f"{host}:{port} can't be listened on: {error.strerror}."


def who_has(port: int) -> tuple[int, str] | None:
    """The process that listens on a port, as (pid, command), where the system tells: Linux does, of one's own processes."""
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            rows = [line.split() for line in table.read_text(encoding="ascii").splitlines()[1:]]
        except OSError:
            continue
        inodes |= {f"socket:[{row[9]}]" for row in rows if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port}
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if any(os.readlink(link) in inodes for link in (process / "fd").iterdir()):
                return int(process.name), (process / "cmdline").read_text().replace("\0", " ").strip()[:200]
        except OSError:
            continue
    return None


def next_free(host: str, port: int) -> int:
    """A port above this one that nobody has."""
    for candidate in range(port + 1, min(port + 100, LAST_PORT)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            return candidate
    return 0


def url(listener: socket.socket, scheme: str = "http") -> str:
    """What to click, or to type; a wildcard is shown as this machine."""
    address = listener.getsockname()
    if not isinstance(address, tuple):
        return f"unix:{address}" if isinstance(address, str) else f"unix:@{address[1:].decode(errors='replace')}"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])  # noqa: S104 - compared, not bound
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{address[1]}/"


def reachable(listener: socket.socket, scheme: str = "http") -> list[str]:
    """The URLs of a socket that listens on every interface: this machine, and the address that others know it by."""
    address = listener.getsockname()
    urls = [url(listener, scheme)]
    if isinstance(address, tuple) and address[0] in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        family, beacon = (socket.AF_INET, "192.0.2.1") if address[0] == "0.0.0.0" else (socket.AF_INET6, "2001:db8::1")  # noqa: S104
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((beacon, 9))  # sends nothing: the system only says which address it would send from
                host = probe.getsockname()[0]
            except OSError:
                return urls
        urls.append(f"{scheme}://{f'[{host}]' if ':' in host else host}:{address[1]}/")
    return urls
