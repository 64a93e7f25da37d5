"""Create listening sockets from addresses such as 127.0.0.1:8000 and unix:PATH, and return the URLs of such sockets.

A failure raises ListenError, whose text says what to do. There are no reverse lookups of names: getfqdn, which http.server
calls, can wait half a minute for a name server that does not exist.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
from collections.abc import Callable
from contextlib import suppress

from microwsgi.errors import ListenError
from microwsgi.options.kinds import parse_port
from microwsgi.server.procnet import is_loopback, listening_process, own_addresses

USER_TIMEOUT = 60_000
"""Milliseconds without an acknowledgement after which TCP drops a connection; Linux waits for 15 minutes by default."""
ATTEMPTS = 20
"""Attempts to find a port that is free for both IPv4 and IPv6."""
PORTS_TO_TRY = 100
"""The number of ports above a port in use that are tried, to offer a free one."""

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # the addresses to use in a URL instead
NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
"""The addresses of localhost (RFC 6761 6.3). The hosts file of a container may lack one of them."""


class UnixListener(socket.socket):
    """A Unix socket that records the identity of its file, so that `unlink` removes only this file."""

    path = ""
    file_identity: tuple[int, int, int] | None = None

    def bind_file(self, path: str, mode: int, group: str) -> None:
        """Bind to a file with this mode, and with this group if it is not "". Raises OSError, LookupError."""
        umask = os.umask(0o177)
        try:
            self.bind(path)
        finally:
            os.umask(umask)
        self.path = os.path.abspath(path)  # the process may change its folder
        self.file_identity = file_identity(path)
        # No client can connect before `listen`, so none can use the socket while it has another mode or group.
        if group:
            shutil.chown(path, group=int(group) if group.isdigit() else group)
        os.chmod(path, mode)

    def unlink(self) -> None:
        """Remove the file, once, if this process created it and no other file has replaced it.

        A process that has dropped root's privileges may have no permission: then the next server replaces the file.
        """
        made, self.file_identity = self.file_identity, None
        if made is not None and file_identity(self.path) == made:
            with suppress(PermissionError):
                os.unlink(self.path)


def listen(address: str, backlog: int = 1024, *, mode: str = "", group: str = "") -> list[socket.socket]:
    """Return listening sockets: one, or for a host name one for each of its addresses, all with the same port.

    HOST:PORT, [V6]:PORT, unix:PATH, unix:@NAME (abstract, Linux) or fd://N. `mode`, in octal, and `group` are those of the
    file of a Unix socket. Raises ListenError.
    """
    if address.startswith("unix:"):
        return [listen_unix(address.removeprefix("unix:"), backlog, int(mode or "600", 8), group)]
    if address.startswith("fd://"):
        return [listen_descriptor(address.removeprefix("fd://"), backlog)]
    return listen_tcp(*host_and_port(address), backlog)


def accept_function(listener: socket.socket) -> Callable[[], tuple[socket.socket, object]]:
    """Return a function that does the same as `listener.accept`, in 60 % of its instructions.

    For each connection, `socket.socket.accept` looks the family and the type of the listener up in their enumerations.
    """
    if type(listener).accept is not socket.socket.accept:
        return listener.accept
    accept, family, kind, protocol = listener._accept, int(listener.family), int(listener.type), listener.proto  # type: ignore[attr-defined]  # tests/test_private_names.py

    def accept_one() -> tuple[socket.socket, object]:
        descriptor, address = accept()
        return socket.socket(family, kind, protocol, descriptor), address

    return accept_one


def unlink(listener: socket.socket) -> None:
    """Remove a Unix listener's file, if this process created it and no other file has replaced it."""
    if isinstance(listener, UnixListener):
        listener.unlink()


# --- TCP --------------------------------------------------------------------------------------------------------------


def host_and_port(address: str) -> tuple[str, int]:
    """Return the two parts of HOST:PORT or [V6]:PORT. Raises ListenError."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or not colon or (":" in host and not bracketed):
        raise ListenError(
            f"{address} is not an address to listen on.\n"
            "  Try:  127.0.0.1:8000, localhost:8000, [::1]:8000, 0.0.0.0:8000, unix:PATH, unix:@NAME or fd://N"
        )
    try:
        return host[1:-1] if bracketed else host, parse_port(port)
    except ValueError as error:
        raise ListenError(f"{address} is not an address to listen on: expected {error} after the colon.") from None


def listen_tcp(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Return a listening socket for each address of the host."""
    addresses = resolve(host, port)
    for _ in range(ATTEMPTS - 1):
        try:
            return bind_all(addresses, port, backlog)
        except OSError as error:
            # Port 0: the port that the kernel chose for one family may be in use in the other.
            if port or error.errno != errno.EADDRINUSE:
                raise refusal(error, host, port, addresses) from None
    raise ListenError(f"no port of {host} is free for both IPv4 and IPv6.")


def resolve(host: str, port: int) -> list[tuple[int, str]]:
    """Return the families and addresses of a host. Numeric addresses and localhost need no name server."""
    if host.lower() == "localhost":
        return list(LOOPBACK)
    try:
        found = socket.getaddrinfo(encoded_host(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise ListenError(f"there is no host named {host}.", wrong_host=host) from None
    # getnameinfo with numbers only is no look-up; it adds the zone without which a link-local address can't be bound.
    return list(dict.fromkeys((family, socket.getnameinfo(where, NUMERIC)[0]) for family, _, _, _, where in found))


def encoded_host(host: str) -> str | bytes:
    """Return a host for getaddrinfo, as bytes if it is ASCII: for a str, getaddrinfo loads the IDNA codec, which takes 1 ms."""
    return host.encode() if host.isascii() else host


def bind_all(addresses: list[tuple[int, str]], port: int, backlog: int) -> list[socket.socket]:
    """Bind all addresses to one port, or none. A family that this system lacks is left out if there is another."""
    listeners: list[socket.socket] = []
    lacking: OSError | None = None
    for family, host in addresses:
        try:
            listener = bind(family, host, port)
        except OSError as error:
            if error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                lacking = error
                continue
            close_all(listeners)
            raise
        port = listener.getsockname()[1]
        listeners.append(listener)
    if lacking is not None and not listeners:
        raise lacking
    try:
        for listener in listeners:
            listener.listen(backlog)
    except OSError:
        close_all(listeners)
        raise
    return listeners


def tune(listener: socket.socket) -> None:
    """Set the socket options that accepted sockets inherit."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # RFC 5482; Linux has it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)


def bind(family: int, host: str, port: int) -> socket.socket:
    """Return a bound socket that does not listen yet."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows it would let two programs use the same port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tune(listener)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has its own listener
        listener.setblocking(False)
        listener.bind(socket.getaddrinfo(encoded_host(host), port, family, socket.SOCK_STREAM)[0][4])
    except OSError:
        listener.close()
        raise
    return listener


def close_all(listeners: list[socket.socket]) -> None:
    """Close the sockets."""
    for listener in listeners:
        listener.close()


# --- Unix sockets, and sockets of the parent process ------------------------------------------------------------------


def listen_unix(path: str, backlog: int, mode: int, group: str) -> socket.socket:
    """Return a listening Unix socket. Users who may write to its file may connect; the file of a dead server is replaced."""
    if not path.removeprefix("@"):
        raise ListenError("unix: needs a path, like unix:/tmp/app.sock, or a name, like unix:@app.")
    if not hasattr(socket, "AF_UNIX"):
        raise ListenError(f"unix:{path} can't be used: this system has no Unix sockets.")
    abstract = path.startswith("@")
    listener = UnixListener(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    try:
        if abstract:
            listener.bind("\0" + path[1:])
        else:
            remove_stale_socket(path)
            listener.bind_file(path, mode, group)
        listener.listen(backlog)
    except LookupError:
        listener.unlink()
        listener.close()
        raise ListenError(f"there is no group {group} (--socket-group).") from None
    except OSError as error:
        listener.unlink()
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ListenError(f"another server listens on unix:{path}.") from None
        if error.errno == errno.EPERM and group:
            raise ListenError(
                f"this user can't set the group of unix:{path} to {group}: only root and members of that group can."
            ) from None
        reason = "the path is longer than 107 bytes" if error.errno is None else error.strerror
        raise ListenError(f"can't listen on unix:{path}: {reason}.") from None
    except ListenError:
        listener.close()
        raise
    return listener


def remove_stale_socket(path: str) -> None:
    """Remove a socket file on which no process listens. Raises ListenError for any other existing file."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"{path} exists and is not a socket; it was not changed.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # connecting to a running server with a full backlog would block
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:
            raise ListenError(f"another server listens on unix:{path}.") from None
        else:
            raise ListenError(f"another server listens on unix:{path}.")


def file_identity(path: str) -> tuple[int, int, int] | None:
    """Return device, inode and pid, which identify a file and its creator; None if there is no such file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, os.getpid()


def listen_descriptor(text: str, backlog: int) -> socket.socket:
    """Return the socket that the parent process has passed as this descriptor."""
    try:
        listener = socket.socket(fileno=int(text))
    except (ValueError, OverflowError, OSError):
        raise ListenError(
            f"fd://{text} is not a socket: expected the number of a socket inherited from the parent process."
        ) from None
    try:
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.listen(backlog)
        if listener.family in {socket.AF_INET, socket.AF_INET6}:
            tune(listener)
    except OSError as error:
        listener.detach()  # the descriptor belongs to the parent
        raise ListenError(f"fd://{text} is a socket that can't listen: {error.strerror}.") from None
    listener.setblocking(False)
    return listener


# --- Error messages ---------------------------------------------------------------------------------------------------


def refusal(error: OSError, host: str, port: int, addresses: list[tuple[int, str]]) -> ListenError:
    """Return a ListenError that says why, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return port_in_use(port, addresses)
    if error.errno in {errno.EACCES, errno.EPERM}:
        low = " (ports below 1024 are reserved for root)" if port < 1024 else ""
        return ListenError(
            f"this user has no permission to listen on port {port}{low}.",
            port=port,
            free_port=next_free(max(port, 8079), addresses),
        )
    if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
        return ListenError(f"{host} is not an address of this machine.", wrong_host=host)
    return ListenError(f"can't listen on {host}:{port}: {error.strerror}.")


def port_in_use(port: int, addresses: list[tuple[int, str]]) -> ListenError:
    """Return the ListenError for a port in use: which process uses the port, and which port is free."""
    pid, command = listening_process(port, addresses) or (0, "")
    if pid == os.getpid():
        return ListenError(f"port {port} is given twice.")
    by = f" by PID {pid} ({command})" if pid else ""
    free = next_free(port, addresses)
    free_text = f"; {free} is free" if free else ""
    return ListenError(f"port {port} is already in use{by}{free_text}.", port=port, free_port=free, holder=pid)


def next_free(port: int, addresses: list[tuple[int, str]]) -> int:
    """Return the next free port; 0 if none of the next ports is free."""
    for other in range(port + 1, min(port + PORTS_TO_TRY, 65535) + 1):
        try:
            close_all(bind_all(addresses, other, 1))
        except OSError:
            continue
        return other
    return 0


# --- From sockets to URLs ---------------------------------------------------------------------------------------------


def url(listener: socket.socket, scheme: str = "http") -> str:
    """Return the URL of a listening socket; for a Unix socket, its address in the format of `listen`."""
    address = listener.getsockname()
    if isinstance(address, tuple):
        host = str(address[0])
        return tcp_url(WILDCARDS.get(host, host), address[1], scheme)
    name = os.fsdecode(address)
    return f"unix:@{name[1:]}" if name.startswith("\0") else f"unix:{name}"


def tcp_url(host: str, port: int, scheme: str) -> str:
    """Return a URL, with brackets around an IPv6 address, and without the default port of the scheme."""
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}/" if port == {"http": 80, "https": 443}[scheme] else f"{scheme}://{name}:{port}/"


def urls(listeners: list[socket.socket], scheme: str = "http") -> list[str]:
    """Return the URLs of all listeners. A wildcard has one URL for each address of this machine."""
    found: list[str] = []
    for listener in listeners:
        address = listener.getsockname()
        if isinstance(address, tuple) and address[0] in WILDCARDS:
            found += [tcp_url(host, address[1], scheme) for host in own_addresses(listener.family)]
        else:
            found.append(url(listener, scheme))
    for port in {listener.getsockname()[1] for listener in listeners if listener.family == socket.AF_INET6}:
        both = [tcp_url(host, port, scheme) for _, host in LOOPBACK]
        if all(each in found for each in both):
            found = [tcp_url("localhost", port, scheme), *(each for each in found if each not in both)]
    return found


def loopback_only(listeners: list[socket.socket]) -> bool:
    """Return whether only this machine can reach the sockets."""
    addresses = [listener.getsockname() for listener in listeners]
    return all(not isinstance(address, tuple) or is_loopback(address[0]) for address in addresses)
