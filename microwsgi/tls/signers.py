"""Create development certificates, with the openssl command, or with the cryptography package if the command is missing.

`microwsgi.tls.authority` decides what the certificates contain.
"""

from __future__ import annotations

import datetime as dt
import os
import secrets
import shutil
import subprocess
from ipaddress import ip_address, ip_network
from tempfile import TemporaryDirectory

from microwsgi.errors import CertificateError

SERVER, CLIENT = "serverAuth", "clientAuth"
"""The extended key usages of certificates."""
LIMIT = 30.0
"""Time limit of the openssl command in seconds. It needs a tenth of a second."""
MISSING = (
    "a development certificate needs the openssl command or the cryptography package, and neither is installed.\n"
    "  Try:  pip install 'microwsgi[tls]'"
)

CA_CONFIG = """\
[req]
distinguished_name = dn
x509_extensions = ext
prompt = no
utf8 = yes
[dn]
O = microwsgi development CA
CN = {name}
[ext]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical, {constraints}
"""
LEAF_CONFIG = """\
[req]
distinguished_name = dn
prompt = no
utf8 = yes
[dn]
O = microwsgi development certificate
CN = {name}
[ext]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = {usage}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {alternatives}
"""


def best_signer() -> Signer:
    """Return the signer that is available. Raises CertificateError if there is none."""
    path = shutil.which("openssl")
    if path:
        return OpenSSL(path)
    try:
        import cryptography  # noqa: F401 - optional: the extra [tls]
    except ImportError:
        raise CertificateError(MISSING) from None
    return Cryptography()


class Signer:
    """Creates certificates with P-256 keys, in PEM. Raises CertificateError."""

    def authority(self, name: str, zones: list[str], networks: list[str], days: int) -> tuple[str, str]:
        """Return a CA's certificate and key. The CA may sign for names in these zones and addresses in these networks."""
        raise NotImplementedError

    def leaf(self, ca: tuple[str, str], names: list[str], usage: str, days: int) -> tuple[str, str]:
        """Return a certificate for names, addresses and e-mail addresses, and its key. `ca`: PEM of the CA that signs it."""
        raise NotImplementedError


class OpenSSL(Signer):
    """A signer that runs the command openssl: OpenSSL 1.1.1 or newer, or LibreSSL."""

    def __init__(self, path: str) -> None:
        self.path = path

    def authority(self, name: str, zones: list[str], networks: list[str], days: int) -> tuple[str, str]:
        permitted = [f"permitted;DNS:{zone}" for zone in zones]
        permitted += [f"permitted;IP:{net.network_address}/{net.netmask}" for net in map(ip_network, networks)]
        config = CA_CONFIG.format(name=plain(name), constraints=",".join(permitted))
        with TemporaryDirectory(prefix="microwsgi-") as folder:
            self.key(folder)
            write(folder, "config", config)
            self.run(folder, "req", "-x509", "-new", "-sha256", "-key", "key", "-config", "config", "-out", "cert",
                     "-set_serial", serial(), "-days", str(days))  # fmt: skip
            return read(folder, "cert"), read(folder, "key")

    def leaf(self, ca: tuple[str, str], names: list[str], usage: str, days: int) -> tuple[str, str]:
        alternatives = ",".join(f"{kind(name)}:{name}" for name in names)
        config = LEAF_CONFIG.format(name=plain(names[0]), usage=usage, alternatives=alternatives)
        with TemporaryDirectory(prefix="microwsgi-") as folder:
            self.key(folder)
            write(folder, "config", config)
            write(folder, "ca", ca[0])
            write(folder, "ca-key", ca[1])
            self.run(folder, "req", "-new", "-sha256", "-key", "key", "-config", "config", "-out", "request")
            self.run(folder, "x509", "-req", "-sha256", "-in", "request", "-CA", "ca", "-CAkey", "ca-key", "-out", "cert",
                     "-set_serial", serial(), "-days", str(days), "-extfile", "config", "-extensions", "ext")  # fmt: skip
            return read(folder, "cert"), read(folder, "key")

    def key(self, folder: str) -> None:
        """Create a key in the file `key`."""
        self.run(folder, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key")

    def run(self, folder: str, *arguments: str) -> None:
        """Run an openssl command. Raises CertificateError."""
        try:
            done = subprocess.run(  # the openssl of PATH, with our own arguments
                [self.path, *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LIMIT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CertificateError(f"{self.path} {arguments[0]} can't be run: {error}.") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["(no message)"]
            raise CertificateError(f"{self.path} {arguments[0]} failed: {said[-1]}")


class Cryptography(Signer):
    """A signer that uses the cryptography package, which contains its own OpenSSL."""

    def authority(self, name: str, zones: list[str], networks: list[str], days: int) -> tuple[str, str]:
        from cryptography import x509  # optional: the extra [tls]

        permitted: list[x509.GeneralName] = [x509.DNSName(zone) for zone in zones]
        permitted += [x509.IPAddress(ip_network(net)) for net in networks]
        return self.signed(
            ("microwsgi development CA", name),
            days,
            [
                (x509.BasicConstraints(ca=True, path_length=0), True),
                (key_usage("key_cert_sign", "crl_sign"), True),
                (x509.NameConstraints(permitted, None), True),
            ],
            None,
        )

    def leaf(self, ca: tuple[str, str], names: list[str], usage: str, days: int) -> tuple[str, str]:
        from cryptography import x509  # optional: the extra [tls]
        from cryptography.x509.oid import ExtendedKeyUsageOID

        purpose = ExtendedKeyUsageOID.SERVER_AUTH if usage == SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
        makers = {"IP": lambda name: x509.IPAddress(ip_address(name)), "DNS": x509.DNSName, "email": x509.RFC822Name}
        return self.signed(
            ("microwsgi development certificate", names[0]),
            days,
            [
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (key_usage("digital_signature"), True),
                (x509.ExtendedKeyUsage([purpose]), False),
                (x509.SubjectAlternativeName([makers[kind(name)](name) for name in names]), False),
            ],
            ca,
        )

    def signed(
        self, subject: tuple[str, str], days: int, extensions: list[tuple[object, bool]], ca: tuple[str, str] | None
    ) -> tuple[str, str]:
        """Return a certificate and its key, signed by the CA, or self-signed."""
        from cryptography import x509  # optional: the extra [tls]
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject[0]),
                x509.NameAttribute(NameOID.COMMON_NAME, plain(subject[1])),
            ]
        )
        issuer, signing_key = name, key
        if ca is not None:
            issuer = x509.load_pem_x509_certificate(ca[0].encode()).subject
            signing_key = serialization.load_pem_private_key(ca[1].encode(), None)  # type: ignore[assignment]  # ours is EC
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(int(serial(), 16))
            .not_valid_before(now)
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)  # type: ignore[arg-type]  # x509's
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())
        made = builder.add_extension(identifier, critical=False).sign(signing_key, hashes.SHA256())
        pem, format_ = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        text = key.private_bytes(pem, format_, serialization.NoEncryption()).decode()
        return made.public_bytes(pem).decode(), text


def key_usage(*uses: str) -> object:
    """Return a key usage extension that allows only these usages."""
    from cryptography import x509  # optional: the extra [tls]

    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{use: use in uses for use in every})


def kind(name: str) -> str:
    """Return the kind of an alternative name, in the notation of openssl's configuration."""
    if "@" in name:
        return "email"
    try:
        ip_address(name)
    except ValueError:
        return "DNS"
    return "IP"


def plain(text: str) -> str:
    """Return a name without characters that are special in openssl's configuration, at most 64 characters long."""
    return "".join(letter for letter in text if letter.isalnum() or letter in " -_.*@:")[:64]


def serial() -> str:
    """Return a random serial number (RFC 5280 4.1.2.2)."""
    return f"0x{secrets.randbits(158) | 1 << 158:x}"


def write(folder: str, name: str, text: str) -> None:
    """Write a file that only this user can read."""
    with open(os.path.join(folder, name), "w", encoding="utf-8", opener=private) as file:
        file.write(text)


def private(path: str, flags: int) -> int:
    """Open a file, as the `opener` of open(). A new file is created with mode 0600."""
    return os.open(path, flags, 0o600)


def read(folder: str, name: str) -> str:
    """Return the content of a file."""
    with open(os.path.join(folder, name), encoding="ascii") as file:
        return file.read()
