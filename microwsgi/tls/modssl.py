"""The environ keys for TLS: those of Apache's mod_ssl, which other WSGI servers have too.

`microwsgi.tls.front` adds them to the environ. A client can't forge them, because its header fields become `HTTP_...`.
docs/tls.md lists them.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from time import time

from microwsgi.server.environ import Environ
from microwsgi.support.typenames import Any
from microwsgi.wire.response import SERVER

DAY = 86400
NAMES = {
    "commonName": "CN",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "title": "T",
    "initials": "I",
    "givenName": "G",
    "surname": "S",
    "description": "D",
    "userId": "UID",
    "emailAddress": "Email",
    "domainComponent": "DC",
}
"""The parts of a distinguished name, as mod_ssl calls them."""
KINDS = {"email": "Email", "DNS": "DNS"}
"""The kinds of a certificate's alternative names that mod_ssl has keys for."""

MAX_NAMES = 6
"""The maximum number of a certificate's names that are shown; of the others only the number is."""
DN = tuple[tuple[tuple[str, str], ...], ...]


class Certificate:
    """The fields of a certificate, from the dict of SSLSocket.getpeercert. All are empty for an empty dict."""

    def __init__(self, fields: Mapping[str, Any], pem: str = "") -> None:
        self.subject: DN = fields.get("subject", ())
        self.issuer: DN = fields.get("issuer", ())
        found: tuple[tuple[str, str], ...] = fields.get("subjectAltName", ())
        # OpenSSL writes ::1 as 0:0:0:0:0:0:0:1, followed by a line feed.
        self.alternatives = [(k, ip_address(v.strip()).compressed if k == "IP Address" else v) for k, v in found]
        self.pem = pem
        self.version = str(fields.get("version", ""))
        self.serial = str(fields.get("serialNumber", ""))
        self.since_text = str(fields.get("notBefore", ""))
        self.until_text = str(fields.get("notAfter", ""))

    @property
    def names(self) -> list[str]:
        """The host names that the certificate is valid for."""
        return [value.lower() for kind, value in self.alternatives if kind == "DNS"]

    @property
    def days_left(self) -> int:
        """Whole days until the certificate expires."""
        return int((ssl.cert_time_to_seconds(self.until_text) - time()) // DAY)

    @property
    def expired(self) -> bool:
        """Whether the certificate has expired."""
        return bool(self.until_text) and self.days_left < 0

    def __str__(self) -> str:
        names = [value for _, value in self.alternatives] or [dn_text(self.subject)]
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        left = f"{self.days_left} {'day' if self.days_left == 1 else 'days'} left"
        return f"{', '.join(names[:MAX_NAMES])}{more}; by {first(self.issuer, 'commonName') or dn_text(self.issuer)}, {left}"


def first(name: DN, part: str) -> str:
    """Return the first value of this kind in a distinguished name; "" if there is none."""
    return next((value for key, value in pairs(name) if key == part), "")


def pairs(name: DN) -> Iterable[tuple[str, str]]:
    """Return the (kind, value) pairs of a distinguished name, in the order of the certificate."""
    return (pair for several in name for pair in several)


def dn_text(name: DN) -> str:
    """Return a distinguished name in the notation of RFC 4514: the most specific part first."""
    return ",".join(
        "+".join(f"{NAMES.get(key, key)}={escaped_value(value)}" for key, value in several)
        for several in reversed(name)
    )


def escaped_value(value: str) -> str:
    """Escape a value (RFC 4514 2.4)."""
    text = "".join(f"\\{character}" if character in '"+,;<>\\' else character for character in value).replace(
        "\0", "\\00"
    )
    if text.startswith(("#", " ")):
        text = f"\\{text}"
    return f"{text[:-1]}\\ " if text.endswith(" ") and len(value) > 1 else text


def latin(text: str) -> str:
    """Return a native string of PEP 3333: each byte of the UTF-8 text as a latin-1 character."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def connection_keys(connection: ssl.SSLSocket) -> Environ:
    """Return the keys of the connection."""
    cipher, _, bits = connection.cipher() or ("", "", 0)
    return {
        "HTTPS": "on",
        "SSL_PROTOCOL": (connection.version() or "").replace("TLSv1.0", "TLSv1"),
        "SSL_CIPHER": cipher,
        "SSL_CIPHER_USEKEYSIZE": str(bits),
        "SSL_CIPHER_ALGKEYSIZE": str(bits),
        "SSL_CIPHER_EXPORT": "false",
        "SSL_COMPRESS_METHOD": connection.compression() or "NULL",
        "SSL_SESSION_RESUMED": "Resumed" if connection.session_reused else "Initial",
        "SSL_SECURE_RENEG": "true",
        "SSL_TLS_SNI": latin(getattr(connection, "sni", "")),
        "SSL_VERSION_INTERFACE": SERVER,
        "SSL_VERSION_LIBRARY": ssl.OPENSSL_VERSION,
        "SSL_CLIENT_VERIFY": "NONE",
    }


def server_keys(certificate: Certificate) -> Environ:
    """Return the keys of the server's certificate. Empty for an SSLContext of the caller, whose certificate `ssl` hides."""
    if not certificate.serial:
        return {}
    return {**certificate_keys("SSL_SERVER", certificate), "SSL_SERVER_CERT": certificate.pem}


def client_keys(certificate: Certificate, chain: list[str]) -> Environ:
    """Return the keys of the client's certificate, which was verified in the handshake. `chain`, in PEM, begins with it."""
    keys = certificate_keys("SSL_CLIENT", certificate)
    keys |= {f"SSL_CLIENT_CERT_CHAIN_{number}": pem for number, pem in enumerate(chain[1:])}
    return {**keys, "SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": chain[0],
            "SSL_CLIENT_V_REMAIN": str(max(certificate.days_left, 0))}  # fmt: skip


def certificate_keys(prefix: str, certificate: Certificate) -> Environ:
    """Return the keys that server and client certificates have in common."""
    keys: Environ = {
        f"{prefix}_M_VERSION": certificate.version,
        f"{prefix}_M_SERIAL": certificate.serial,
        f"{prefix}_V_START": certificate.since_text,
        f"{prefix}_V_END": certificate.until_text,
        f"{prefix}_S_DN": latin(dn_text(certificate.subject)),
        f"{prefix}_I_DN": latin(dn_text(certificate.issuer)),
    }
    for side, name in (("S", certificate.subject), ("I", certificate.issuer)):
        keys |= numbered(f"{prefix}_{side}_DN", ((NAMES[key], value) for key, value in pairs(name) if key in NAMES))
    alternatives = [(KINDS[kind], value) for kind, value in certificate.alternatives if kind in KINDS]
    for wanted in KINDS.values():
        values = [value for kind, value in alternatives if kind == wanted]
        keys |= {f"{prefix}_SAN_{wanted}_{number}": latin(value) for number, value in enumerate(values)}
    return keys


def numbered(prefix: str, parts: Iterable[tuple[str, str]]) -> Environ:
    """Return a key for each part. Repeated keys get numbers as in mod_ssl: OU, OU_1, OU_2."""
    keys: Environ = {}
    for name, value in parts:
        key, number = f"{prefix}_{name}", 0
        while key in keys:
            number += 1
            key = f"{prefix}_{name}_{number}"
        keys[key] = latin(value)
    return keys
