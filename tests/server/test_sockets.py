"""Addresses as people write them, sockets that listen, and the reasons why one can't be had."""

from __future__ import annotations

import errno
import grp
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microwsgi.errors import ListenError
from microwsgi.server import procnet, sockets
from microwsgi.server.sockets import USER_TIMEOUT, host_and_port, listen, loopback_only, unlink, url, urls
from tests.background import free_port
from tests.programs import absent
from tests.proxies import open_folder
from tests.running import environment, python
from tests.tables import Rows

LINUX = sys.platform == "linux"
ANYWHERE = "0.0.0.0"
Opener = Callable[..., list[socket.socket]]


@pytest.fixture
def opened() -> Iterator[Opener]:
    """`listen`, and what it opened is closed after the test."""
    everything: list[socket.socket] = []

    def open_them(address: str, backlog: int = 8) -> list[socket.socket]:
        listeners = listen(address, backlog)
        everything.extend(listeners)
        return listeners

    yield open_them
    for listener in everything:
        unlink(listener)
        listener.close()


@pytest.fixture
def ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        absent("ipv6", "this machine has no IPv6")


needs_ipv6 = pytest.mark.usefixtures("ipv6")


def refusal(address: str) -> str:
    with pytest.raises(ListenError) as caught:
        listen(address)
    return str(caught.value)


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


# --- TCP ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("[::1]:0", ("::1", 0)),
        ("a.b:65535", ("a.b", 65535)),
        ("[fe80::1%lo]:1", ("fe80::1%lo", 1)),
    ],
)
def test_host_and_port(address: str, parts: tuple[str, int]) -> None:
    assert host_and_port(address) == parts


@pytest.mark.parametrize(
    "address", ["8000", ":8000", "localhost", "localhost:", "::1:80", "[::1]", "[::1]80", "a:b", "a:+1", "", "a:\u0661"]
)
def test_what_is_no_address_is_told_what_is_one(address: str) -> None:
    assert refusal(address).startswith(f"{address} is not an address to listen on")


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "[::1]:65536", "localhost:-1"])
def test_a_port_out_of_range_is_refused_and_not_replaced(address: str) -> None:
    port = address.rpartition(":")[2]
    assert refusal(address) == f"invalid port {port}: expected 0 to 65535 (0 picks a free one)."


def test_a_listener_does_not_block_nor_wait_to_send(opened: Opener) -> None:
    (listener,) = opened("127.0.0.1:0")
    assert not listener.getblocking()
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), "accepted sockets inherit it"
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT


def test_a_system_without_a_limit_for_what_is_not_acknowledged_will_do(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)
    (listener,) = opened("127.0.0.1:0")
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@needs_ipv6
def test_localhost_is_both_loopbacks_on_one_port(opened: Opener) -> None:
    listeners = opened("localhost:0")
    assert [listener.family for listener in listeners] == [socket.AF_INET, socket.AF_INET6]
    assert len({port_of(listener) for listener in listeners}) == 1


@needs_ipv6
def test_localhost_tries_on_until_a_port_is_free_in_both_families(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sockets.bind
    refused: list[int] = []

    def bind(family: int, host: str, port: int) -> socket.socket:
        if family == socket.AF_INET6 and len(refused) < 3:
            refused.append(port)
            raise OSError(errno.EADDRINUSE, "taken")
        return real(family, host, port)

    monkeypatch.setattr(sockets, "bind", bind)
    assert len(opened("localhost:0")) == 2
    assert len(refused) == 3


@needs_ipv6
def test_localhost_with_one_family_taken_is_refused_and_leaves_nothing_open(opened: Opener) -> None:
    for _ in range(20):
        (taken,) = opened("[::1]:0")
        port = port_of(taken)
        assert refusal(f"localhost:{port}").startswith(f"port {port} is ")
        try:
            opened(f"127.0.0.1:{port}")
        except ListenError:
            continue  # another program on this machine has it
        return
    pytest.fail("the other family is not free after a refusal")


@pytest.mark.parametrize("reason", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_localhost_without_ipv6_is_the_other_one(opened: Opener, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    real = sockets.bind

    def bind(family: int, host: str, port: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(reason, "no IPv6")
        return real(family, host, port)

    monkeypatch.setattr(sockets, "bind", bind)
    assert [listener.family for listener in opened("localhost:0")] == [socket.AF_INET]
    assert refusal("[::1]:0").startswith("::1 is not an address of this machine.")


@needs_ipv6
def test_the_wildcards_of_both_families_can_share_a_port(opened: Opener) -> None:
    (v6,) = opened(f"[::]:{free_port()}")
    assert v6.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    opened(f"0.0.0.0:{port_of(v6)}")


def test_no_name_is_looked_up_for_numbers_and_none_in_reverse(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a name server was asked")

    for name in ("getfqdn", "gethostbyaddr", "gethostbyname", "gethostbyname_ex"):
        monkeypatch.setattr(socket, name, fail)
    opened("127.0.0.1:0")
    urls(opened("0.0.0.0:0") + opened("localhost:0"))


# --- TCP that can't be ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not LINUX, reason="only Linux tells who listens, in /proc")
@pytest.mark.parametrize("address", ["127.0.0.1", ANYWHERE, "localhost"])
def test_a_port_in_use_names_the_process_and_a_free_port(address: str) -> None:
    code = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=1); input()"
    command = [sys.executable, "-c", code, "\033[31m"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        lines = refusal(f"{address}:{port}").split("\n")
        assert lines[0].startswith(
            f"port {port} is already in use by PID {other.pid} ({sys.executable} -c import socket"
        )
        assert "\033" not in lines[0], "a program's name must not write on our terminal"
        free = re.search(r"; (\d+) is free\.$", lines[0])
        assert free
        assert len(lines) == 1, "the command line makes commands of it: tests/test_retyped.py"
        for listener in listen(f"{address}:{free[1]}"):
            listener.close()
        other.communicate("\n")


def test_a_port_that_we_have_ourselves(opened: Opener) -> None:
    (listener,) = opened("127.0.0.1:0")
    port = port_of(listener)
    assert refusal(f"127.0.0.1:{port}") in {f"port {port} is given twice.", f"port {port} is already in use."}


@pytest.mark.skipif(not LINUX, reason="only Linux tells who listens, in /proc")
def test_another_address_on_the_same_port_is_not_taken_for_the_holder(opened: Opener) -> None:
    (listener,) = opened("127.0.0.1:0")
    port = port_of(listener)
    assert procnet.listening_process(port, [(socket.AF_INET, "127.0.0.2")]) is None
    assert procnet.listening_process(port, [(socket.AF_INET, "127.0.0.1")])
    assert procnet.listening_process(port, [(socket.AF_INET, ANYWHERE)])
    assert procnet.listening_process(port, [(socket.AF_INET6, "::")])


def test_without_proc_the_port_is_still_said_to_be_in_use(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "listening_process", lambda *_: None)
    (listener,) = opened("127.0.0.1:0")
    port = port_of(listener)
    assert re.fullmatch(rf"port {port} is already in use; \d+ is free\.", refusal(f"127.0.0.1:{port}"))


@pytest.mark.parametrize(
    ("number", "port", "message"),
    [
        (
            errno.EACCES,
            80,
            "this user has no permission to listen on port 80 (ports below 1024 are reserved for root).",
        ),
        (errno.EACCES, 8000, "this user has no permission to listen on port 8000."),
        (errno.ENOBUFS, 8000, f"can't listen on 127.0.0.1:8000: {os.strerror(errno.ENOBUFS)}."),
    ],
)
def test_other_reasons(monkeypatch: pytest.MonkeyPatch, number: int, port: int, message: str) -> None:
    def bind(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(sockets, "bind", bind)
    assert refusal(f"127.0.0.1:{port}") == message


def test_an_address_of_another_machine() -> None:
    assert refusal("203.0.113.9:0") == "203.0.113.9 is not an address of this machine."


@pytest.mark.parametrize("host", ["a..b", "x" * 300])
def test_a_name_of_no_host(host: str) -> None:
    assert refusal(f"{host}:0").startswith(f"there is no host named {host}.")


# --- Unix sockets, and those of the parent ------------------------------------------------------------------------------------


def test_a_unix_socket_is_its_users_alone_and_goes_with_the_server(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "s"
    (listener,) = opened(f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert url(listener) == f"unix:{path}"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    unlink(listener)
    assert not path.exists()
    unlink(listener)


def test_a_unix_socket_has_the_mode_and_the_group_that_the_options_say(tmp_path: Path) -> None:
    path = tmp_path / "s"
    own = grp.getgrgid(os.getgid()).gr_name
    other = 65534 if os.geteuid() == 0 else os.getgid()
    with Rows() as rows:
        for mode, group, expected in (
            ("600", "", (0o600, os.getgid())),
            ("660", own, (0o660, os.getgid())),
            ("0666", str(other), (0o666, other)),
        ):
            with rows(mode, group):
                (listener,) = listen(f"unix:{path}", mode=mode, group=group)
                status = path.stat()
                assert (stat.S_IMODE(status.st_mode), status.st_gid) == expected
                unlink(listener)
                listener.close()


def test_a_group_that_does_not_exist_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="there is no group no-such-group"):
        listen(f"unix:{tmp_path}/s", group="no-such-group")
    assert not (tmp_path / "s").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_only_root_and_members_may_give_a_socket_to_a_group() -> None:
    """As the user nobody, in a process of its own."""
    with open_folder() as folder:
        folder.chmod(0o777)
        program = (
            "import grp, os; from microwsgi.server.sockets import listen\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            f"try: listen('unix:{folder}/s', group='daemon')\nexcept Exception as error: print(error)"
        )
        said = subprocess.run(
            python("-c", program), env=environment(), capture_output=True, text=True, check=True
        ).stdout
        assert "only root and members of that group can" in said
        assert not (folder / "s").exists()


def test_a_unix_socket_is_removed_where_it_was_made(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (listener,) = opened("unix:s")
    monkeypatch.chdir("/")
    unlink(listener)
    assert not (tmp_path / "s").exists()


def test_a_file_that_is_not_ours_any_more_stays(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "s"
    (first,) = opened(f"unix:{path}")
    path.unlink()
    opened(f"unix:{path}")
    unlink(first)
    assert path.exists()


def test_a_child_does_not_remove_its_parents_socket(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (listener,) = opened(f"unix:{tmp_path}/s")
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: 0)
        unlink(listener)
    assert (tmp_path / "s").exists()


def test_the_socket_of_a_dead_server_is_replaced(opened: Opener, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/s")
    opened(f"unix:{tmp_path}/s")


@pytest.mark.parametrize("waiting", [0, 3])
def test_the_socket_of_a_living_server_stays_even_if_its_backlog_is_full(
    opened: Opener, tmp_path: Path, waiting: int
) -> None:
    path = f"{tmp_path}/s"
    opened(f"unix:{path}", 1)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(waiting)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(path)
    assert refusal(f"unix:{path}") == f"another server listens on unix:{path}."
    for client in clients:
        client.close()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    assert refusal(f"unix:{path}") == f"{path} exists and is not a socket; it was not changed."
    assert path.read_text() == "precious"


@pytest.mark.parametrize("address", ["unix:", "unix:@"])
def test_a_unix_socket_has_a_name(address: str) -> None:
    assert refusal(address).startswith("unix: needs a path")


def test_paths_that_can_not_be() -> None:
    assert refusal(f"unix:/tmp/{'x' * 200}").endswith(": the path is longer than 107 bytes.")
    assert refusal("unix:/nowhere/s") == "can't listen on unix:/nowhere/s: No such file or directory."


@pytest.mark.skipif(not LINUX, reason="abstract names are Linux's")
def test_an_abstract_name(opened: Opener) -> None:
    name = f"@microwsgi-test-{os.getpid()}"
    (listener,) = opened(f"unix:{name}")
    assert url(listener) == f"unix:{name}"
    assert refusal(f"unix:{name}") == f"another server listens on unix:{name}."
    unlink(listener)


@pytest.mark.parametrize("listens", [True, False])
def test_a_descriptor_of_the_parent(opened: Opener, listens: bool) -> None:
    parent = socket.socket()
    parent.bind(("127.0.0.1", 0))
    if listens:
        parent.listen()
    descriptor = parent.detach()
    (listener,) = opened(f"fd://{descriptor}")
    assert listener.fileno() == descriptor
    assert not listener.getblocking()
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    socket.create_connection(listener.getsockname()).close()


def test_what_is_no_descriptor_of_a_listener(tmp_path: Path) -> None:
    for number in ("x", "-1", "999999", "1" * 30):
        assert refusal(f"fd://{number}").startswith(f"fd://{number} is not a socket")
    with (tmp_path / "f").open("w") as file:
        assert refusal(f"fd://{file.fileno()}").startswith(f"fd://{file.fileno()} is not a socket")
    one, other = socket.socketpair()
    with one, other:
        assert refusal(f"fd://{one.fileno()}").startswith(f"fd://{one.fileno()} is a socket that can't listen")


# --- URLs -----------------------------------------------------------------------------------------------------------------


@needs_ipv6
def test_urls_are_to_be_clicked(opened: Opener) -> None:
    (v4,), (v6,) = opened("127.0.0.1:0"), opened("[::1]:0")
    while port_of(v6) == port_of(v4):  # the same port would be one address, localhost
        (v6,) = opened("[::1]:0")
    assert urls([v4, v6]) == [f"http://127.0.0.1:{port_of(v4)}/", f"http://[::1]:{port_of(v6)}/"]
    assert url(v6, "https") == f"https://[::1]:{port_of(v6)}/"


@needs_ipv6
def test_localhost_is_one_url(opened: Opener) -> None:
    listeners = opened("localhost:0")
    assert urls(listeners) == [f"http://localhost:{port_of(listeners[0])}/"]


@needs_ipv6
def test_a_wildcard_is_never_a_url(opened: Opener) -> None:
    (v4,), (v6,) = opened("0.0.0.0:0"), opened("[::]:0")
    assert url(v4) == f"http://127.0.0.1:{port_of(v4)}/"
    assert urls([v4])[0] == url(v4)
    assert urls([v6])[0] == url(v6)
    assert not {ANYWHERE, "[::]"} & set(re.findall(r"//(.*):", "\n".join(urls([v4, v6]))))


def test_all_addresses_of_the_machine_are_among_those_of_a_wildcard(opened: Opener) -> None:
    (listener,) = opened("0.0.0.0:0")
    outward = procnet.source_address(socket.AF_INET)
    assert not outward or f"http://{outward}:{port_of(listener)}/" in urls([listener])


def test_without_proc_the_outward_address_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[str]:
        raise FileNotFoundError

    monkeypatch.setattr(procnet, "fib_addresses", fail)
    outward = procnet.source_address(socket.AF_INET)
    assert procnet.own_addresses(socket.AF_INET) == ["127.0.0.1", *filter(None, [outward])]


def test_a_port_that_the_scheme_implies_is_left_out() -> None:
    assert sockets.tcp_url("::1", 80, "http") == "http://[::1]/"
    assert sockets.tcp_url("a", 443, "https") == "https://a/"
    assert sockets.tcp_url("a", 443, "http") == "http://a:443/"


def test_who_else_can_reach_it(opened: Opener, tmp_path: Path) -> None:
    here = opened("localhost:0") + opened(f"unix:{tmp_path}/s") + opened("127.0.0.2:0")
    assert loopback_only(here)
    assert not loopback_only([*here, *opened("0.0.0.0:0")])
