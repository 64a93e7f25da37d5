"""The development CA: made once for a person and a machine, trusted once, and good for nothing but private names.

`microwsgi serve --tls` asks `Authority.leaf` for a certificate, and `microwsgi certs` shows, renews and trusts. Whoever got the
CA's key could still not pretend to be a public site to the one browser that trusts it: its name constraints (RFC 5280 4.2.1.10)
leave only names and addresses that nobody can have on the internet, and this machine's own.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import ssl
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from time import time

from microwsgi.errors import CertificateError
from microwsgi.options import Options
from microwsgi.server.procnet import own_addresses
from microwsgi.server.sockets import WILDCARDS, host_and_port
from microwsgi.tls.contexts import Pair, Shown, read
from microwsgi.tls.modssl import DAY, Certificate
from microwsgi.tls.signers import CLIENT, SERVER, best, kind, private

try:
    import fcntl

    HAS_LOCKS = True
except ImportError:  # Windows
    HAS_LOCKS = False

ZONES = ["localhost", "test", "internal", "local", "home.arpa"]
"""Names that are nobody's on the internet: RFC 6761 6.2 and 6.3, RFC 6762 3, RFC 8375, and ICANN's .internal."""
NETWORKS = [
    *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
    *("::1/128", "fc00::/7", "fe80::/10"),
]
"""Addresses of that kind: RFC 1122 3.2.1.3, RFC 1918, RFC 3927, RFC 4193, RFC 4291 2.5."""
HOST_NAME = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")
CA_DAYS = 3650
LEAF_DAYS = 90
"""Browsers take no leaf for more than 398 days, and the limit falls."""
RENEW_DAYS = 30
"""Days before the end in which a leaf is replaced."""
MOST_NAMES = 100
"""Names of a leaf: those of former runs are kept, so that two projects don't renew it in turn."""


def data_folder() -> str:
    """Where a person's data of microwsgi is."""
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        base = os.path.join(home, "Library", "Application Support")
    elif os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    else:
        base = os.path.join(home, ".local", "share")
    wanted = os.environ.get("XDG_DATA_HOME", "")
    return os.path.join(wanted if os.path.isabs(wanted) else base, "microwsgi")


class Authority:
    """The CA in a folder; what is not there yet is made when it is asked for. Raises CertificateError."""

    def __init__(self, folder: str = "") -> None:
        self.folder = folder or data_folder()
        self.certificate = os.path.join(self.folder, "ca.pem")
        self.key = os.path.join(self.folder, "ca-key.pem")
        self.leaf_file = os.path.join(self.folder, "localhost.pem")
        self.zones_file = os.path.join(self.folder, "zones")
        self.trusted_file = os.path.join(self.folder, "trusted")
        self.renew_at = 0.0
        self.wanted: list[str] = []
        self.left_out: list[str] = []

    # --- The CA -----------------------------------------------------------------------------------------------------------

    def read(self) -> Certificate | None:
        """What the CA's certificate says, if there is one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(self.certificate)
        except (OSError, ssl.SSLError):
            return None
        return next((Certificate(each) for each in context.get_ca_certs()), None)

    def ensure(self) -> Certificate:
        """The CA, made if there is none, or if its time is over."""
        found = self.read()
        if found is not None and os.path.exists(self.key) and found.days_left > LEAF_DAYS:
            return found
        name = f"{user()}@{socket.gethostname()}"
        zones = [*ZONES, *machine_names()]
        certificate, key = best().authority(name, zones, NETWORKS, CA_DAYS)
        self.write(self.key, key)
        self.write(self.zones_file, "\n".join(zones))
        self.write(self.certificate, certificate)
        made = self.read()
        if made is None:
            raise CertificateError(
                f"{self.certificate} can't be read after it was written. Does another program write to the folder?"
            )
        return made

    def permits(self, name: str) -> bool:
        """Whether a certificate of this CA for this name or address would be accepted."""
        if kind(name) == "IP":
            address = ip_address(name)
            return any(address in ip_network(each) for each in NETWORKS if ip_network(each).version == address.version)
        bare = name.removeprefix("*.").lower()
        return any(bare == zone or bare.endswith(f".{zone}") for zone in self.zones())

    def zones(self) -> list[str]:
        """The zones that this CA may sign for."""
        try:
            with open(self.zones_file, encoding="utf-8") as file:
                return file.read().split()
        except OSError:
            return ZONES

    # --- What it signs ----------------------------------------------------------------------------------------------------

    def leaf(self, names: Iterable[str]) -> Pair:
        """A certificate for these names and addresses, and those of former runs, that is good for a while yet."""
        with self.locked():
            self.ensure()
            names = list(dict.fromkeys(names))
            self.wanted = [name for name in names if self.permits(name)]
            self.left_out = [name for name in names if name not in self.wanted]
            self.keep_or_make()
        return Pair(self.leaf_file)

    def keep_or_make(self) -> None:
        """Leave the leaf as it is if it will do."""
        present = self.read_leaf()
        known = [] if present is None else [value for _, value in present.alternatives]
        missing = {canonical(name) for name in self.wanted} - {canonical(name) for name in known}
        if present is None or missing or present.days_left <= RENEW_DAYS:
            every = list({canonical(name): name for name in [*self.wanted, *filter(self.permits, known)]}.values())
            certificate, key = best().leaf(self.pem(), every[:MOST_NAMES], SERVER, LEAF_DAYS)
            self.write(self.leaf_file, key + certificate)
            self.renew_at = time() + (LEAF_DAYS - RENEW_DAYS) * DAY
        else:
            self.renew_at = time() + (present.days_left - RENEW_DAYS) * DAY

    def read_leaf(self) -> Certificate | None:
        """What the leaf says, if there is one that can be used and is of this CA."""
        try:
            shown = Shown(Pair(self.leaf_file), Options())
            read(shown.context, self.pem()[0])
        except CertificateError:
            return None
        return shown.certificate

    def renew(self) -> None:
        """Replace the leaf, if its time has come; called once a second while it is served."""
        if time() >= self.renew_at:
            self.leaf(self.wanted)

    def renew_now(self) -> Certificate:
        """Replace the leaf, whatever is left of it."""
        with self.locked():
            self.ensure()
            present = self.read_leaf()
            known = [value for _, value in present.alternatives] if present else local_names()
            certificate, key = best().leaf(self.pem(), list(filter(self.permits, known)), SERVER, LEAF_DAYS)
            self.write(self.leaf_file, key + certificate)
        return Shown(Pair(self.leaf_file), Options()).certificate

    def client(self, name: str) -> str:
        """The file of a new certificate for a client, with its key."""
        with self.locked():
            self.ensure()
            certificate, key = best().leaf(self.pem(), [name], CLIENT, LEAF_DAYS)
            path = os.path.join(self.folder, f"client-{''.join(c if c.isalnum() else '-' for c in name)}.pem")
            self.write(path, key + certificate)
        return path

    def hints(self) -> list[str]:
        """What is worth telling who serves with it."""
        found = []
        if self.left_out:
            found.append(
                f"Not in the certificate, since the development CA is valid for private names only: {', '.join(self.left_out)}."
            )
        if not os.path.exists(self.trusted_file):
            found.append("To make browsers trust it: microwsgi certs trust")
        return found

    # --- Files ------------------------------------------------------------------------------------------------------------

    def pem(self) -> tuple[str, str]:
        """The CA's certificate and key."""
        try:
            with open(self.certificate, encoding="ascii") as one, open(self.key, encoding="ascii") as other:
                return one.read(), other.read()
        except OSError as error:
            raise CertificateError(f"{error.filename} can't be read: {error.strerror}.") from None

    def write(self, path: str, text: str) -> None:
        """A file of its owner's alone, all of it at once."""
        new = f"{path}.{os.getpid()}"
        try:
            with open(new, "w", encoding="utf-8", opener=private) as file:
                file.write(text)
            os.replace(new, path)
        except OSError as error:
            raise CertificateError(f"{path} can't be written: {error.strerror}.") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let two servers that start at once not make two CAs."""
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            os.chmod(self.folder, 0o700)
            lock = os.open(os.path.join(self.folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise CertificateError(f"{self.folder} can't be written: {error.strerror}.") from None
        try:
            if HAS_LOCKS:
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def development(options: Options) -> tuple[Pair, Authority]:
    """The pair for what these options serve."""
    authority = Authority()
    return authority.leaf(served_names(options)), authority


def served_names(options: Options) -> list[str]:
    """The names and addresses by which a client may ask for what is served."""
    found = local_names()
    for name in options.allow_host:
        if name.startswith("."):
            found += [name[1:], f"*{name}"]
        elif name != "*":
            found.append(name)
    for address in options.addresses:
        if address.startswith(("unix:", "fd://")):
            continue
        host, _ = host_and_port(address)
        if host in WILDCARDS:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            found += own_addresses(family)
        else:
            found.append(host.partition("%")[0])
    return found


def local_names() -> list[str]:
    """What this machine is called by itself."""
    return ["localhost", "*.localhost", "127.0.0.1", "::1", *machine_names()]


def machine_names() -> list[str]:
    """The machine's name, and what its neighbours find it by.

    A name of one label, like `dev`, is left out: it may be a top-level domain, and the CA would be good for all of that.
    """
    name = socket.gethostname().lower().rstrip(".")
    if name == "localhost" or kind(name) != "DNS" or not HOST_NAME.fullmatch(name):
        return []
    first, dot, _ = name.partition(".")
    return list(dict.fromkeys([*[name] * bool(dot), f"{first}.local"]))


def canonical(name: str) -> str:
    """One spelling for what is the same."""
    return ip_address(name).compressed if kind(name) == "IP" else name.lower()


def user() -> str:
    """Who asks."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return "user"
