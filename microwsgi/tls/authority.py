"""The development CA: created once for a user on a machine, trusted once, and valid for private names only.

`microwsgi serve --tls` gets its certificate from `Authority.leaf`; `microwsgi certs` shows, renews and trusts them. A stolen
CA key can't be used to impersonate a public site: the name constraints of the CA (RFC 5280 4.2.1.10) permit only names and
addresses that do not exist on the internet, and those of this machine.
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
from microwsgi.tls.contexts import CertificateFiles, LoadedCertificate, read
from microwsgi.tls.modssl import DAY, Certificate
from microwsgi.tls.signers import CLIENT, SERVER, best_signer, kind, private

try:
    import fcntl

    HAS_LOCKS = True
except ImportError:  # Windows
    HAS_LOCKS = False

ZONES = ["localhost", "test", "internal", "local", "home.arpa"]
"""Domains that nobody can own on the internet: RFC 6761 6.2 and 6.3, RFC 6762 3, RFC 8375, and ICANN's .internal."""
NETWORKS = [
    *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
    *("::1/128", "fc00::/7", "fe80::/10"),
]
"""Addresses that do not exist on the internet: RFC 1122 3.2.1.3, RFC 1918, RFC 3927, RFC 4193, RFC 4291 2.5."""
HOST_NAME = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")
CA_DAYS = 3650
LEAF_DAYS = 90
"""Browsers reject certificates that are valid for too long, and the limits are being lowered."""
RENEW_DAYS = 30
"""A leaf that is valid for fewer days is replaced."""
MAX_LEAF_NAMES = 100
"""The maximum number of names in a leaf. Names of earlier runs are kept, so that two projects don't replace it alternately."""


def data_folder() -> str:
    """Return the folder for the data of this user."""
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
    """The CA with its files in a folder. Missing files are created when they are needed. Raises CertificateError."""

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
        """Return the CA's certificate; None if it is missing or unreadable."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(self.certificate)
        except (OSError, ssl.SSLError):
            return None
        return next((Certificate(each) for each in context.get_ca_certs()), None)

    def ensure(self) -> Certificate:
        """Return the CA's certificate. Create the CA if there is none, or if it would expire before a new leaf."""
        found = self.read()
        if found is not None and os.path.exists(self.key) and found.days_left > LEAF_DAYS:
            return found
        name = f"{user()}@{socket.gethostname()}"
        zones = [*ZONES, *machine_names()]
        certificate, key = best_signer().authority(name, zones, NETWORKS, CA_DAYS)
        self.write(self.key, key)
        self.write(self.zones_file, "\n".join(zones))
        self.write(self.certificate, certificate)
        made = self.read()
        if made is None:
            raise CertificateError(
                f"{self.certificate} can't be read after it was written. Does another program write to the directory?"
            )
        return made

    def permits(self, name: str) -> bool:
        """Return whether the name constraints permit a name or address."""
        if kind(name) == "IP":
            address = ip_address(name)
            return any(address in ip_network(each) for each in NETWORKS if ip_network(each).version == address.version)
        bare = name.removeprefix("*.").lower()
        return any(bare == zone or bare.endswith(f".{zone}") for zone in self.zones())

    def zones(self) -> list[str]:
        """Return the zones that the CA is constrained to."""
        try:
            with open(self.zones_file, encoding="utf-8") as file:
                return file.read().split()
        except OSError:
            return ZONES

    # --- Certificates that it signs ---------------------------------------------------------------------------------------

    def leaf(self, names: Iterable[str]) -> CertificateFiles:
        """Return a certificate for these names and addresses and those of earlier runs, valid for at least RENEW_DAYS."""
        with self.locked():
            self.ensure()
            names = list(dict.fromkeys(names))
            self.wanted = [name for name in names if self.permits(name)]
            self.left_out = [name for name in names if name not in self.wanted]
            self.keep_or_make()
        return CertificateFiles(self.leaf_file)

    def keep_or_make(self) -> None:
        """Keep the server certificate if it is valid and has all names; otherwise create another."""
        present = self.read_leaf()
        known = [] if present is None else [value for _, value in present.alternatives]
        missing = {canonical(name) for name in self.wanted} - {canonical(name) for name in known}
        if present is None or missing or present.days_left <= RENEW_DAYS:
            every = list({canonical(name): name for name in [*self.wanted, *filter(self.permits, known)]}.values())
            certificate, key = best_signer().leaf(self.pem(), every[:MAX_LEAF_NAMES], SERVER, LEAF_DAYS)
            self.write(self.leaf_file, key + certificate)
            self.renew_at = time() + (LEAF_DAYS - RENEW_DAYS) * DAY
        else:
            self.renew_at = time() + (present.days_left - RENEW_DAYS) * DAY

    def read_leaf(self) -> Certificate | None:
        """Return the server certificate if it is usable and was issued by this CA."""
        try:
            shown = LoadedCertificate(CertificateFiles(self.leaf_file), Options())
            read(shown.context, self.pem()[0])
        except CertificateError:
            return None
        return shown.certificate

    def renew(self) -> None:
        """Replace the server certificate if it expires soon. Called once a second while the server runs."""
        if time() >= self.renew_at:
            self.leaf(self.wanted)

    def renew_now(self) -> Certificate:
        """Replace the server certificate now."""
        with self.locked():
            self.ensure()
            present = self.read_leaf()
            known = [value for _, value in present.alternatives] if present else local_names()
            certificate, key = best_signer().leaf(self.pem(), list(filter(self.permits, known)), SERVER, LEAF_DAYS)
            self.write(self.leaf_file, key + certificate)
        return LoadedCertificate(CertificateFiles(self.leaf_file), Options()).certificate

    def client(self, name: str) -> str:
        """Create a client certificate with its key; return the path of the file."""
        with self.locked():
            self.ensure()
            certificate, key = best_signer().leaf(self.pem(), [name], CLIENT, LEAF_DAYS)
            path = os.path.join(self.folder, f"client-{''.join(c if c.isalnum() else '-' for c in name)}.pem")
            self.write(path, key + certificate)
        return path

    def hints(self) -> list[str]:
        """Return hints for the person who starts the server."""
        found = []
        if self.left_out:
            found.append(
                "These names are not in the certificate, because the development CA is valid for private names only: "
                f"{', '.join(self.left_out)}."
            )
        if not os.path.exists(self.trusted_file):
            found.append("To make browsers trust it: microwsgi certs trust")
        return found

    # --- Files ------------------------------------------------------------------------------------------------------------

    def pem(self) -> tuple[str, str]:
        """Return the CA's certificate and key, in PEM."""
        try:
            with open(self.certificate, encoding="ascii") as one, open(self.key, encoding="ascii") as other:
                return one.read(), other.read()
        except OSError as error:
            raise CertificateError(f"{error.filename} can't be read: {error.strerror}.") from None

    def write(self, path: str, text: str) -> None:
        """Write a file that only its owner can read, atomically."""
        new = f"{path}.{os.getpid()}"
        try:
            with open(new, "w", encoding="utf-8", opener=private) as file:
                file.write(text)
            os.replace(new, path)
        except OSError as error:
            raise CertificateError(f"{path} can't be written: {error.strerror}.") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold a file lock, so that two servers that start at the same time do not create two CAs."""
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


def development(options: Options) -> tuple[CertificateFiles, Authority]:
    """Return the certificate and key for a server with these options."""
    authority = Authority()
    return authority.leaf(served_names(options)), authority


def served_names(options: Options) -> list[str]:
    """Return the names and addresses under which clients can reach the server."""
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
    """Return the names and addresses by which this machine can be reached from itself."""
    return ["localhost", "*.localhost", "127.0.0.1", "::1", *machine_names()]


def machine_names() -> list[str]:
    """Return the names of this machine, also those that other machines of the network use.

    A name of one label, like `dev`, is left out: if it is a top-level domain, the CA could sign for all names below it.
    """
    name = socket.gethostname().lower().rstrip(".")
    if name == "localhost" or kind(name) != "DNS" or not HOST_NAME.fullmatch(name):
        return []
    first, dot, _ = name.partition(".")
    return list(dict.fromkeys([*[name] * bool(dot), f"{first}.local"]))


def canonical(name: str) -> str:
    """Return the canonical spelling of a name or address."""
    return ip_address(name).compressed if kind(name) == "IP" else name.lower()


def user() -> str:
    """Return the name of the user who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return "user"
