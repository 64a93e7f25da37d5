"""SSL contexts for certificates in files. Each mistake has its own message here: OpenSSL's message is always "PEM lib".

`microwsgi.tls.front` has one context for each pair of files, and replaces it when they change.
"""

from __future__ import annotations

import os
import ssl
from ssl import SSLContext, SSLObject, SSLSocket

from microwsgi.errors import CertificateError
from microwsgi.options import Options
from microwsgi.tls.modssl import Certificate

ALPN = ["http/1.1", "http/1.0"]  # curl --http1.0 offers the latter only
PROTOCOLS = frozenset(name.encode() for name in ALPN)
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption, as RFC 9325 4.2 recommends. All ciphers of TLS 1.3 have both."""
NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, which ssl has no name for: an expired certificate can be read, too."""


class CertificateFiles:
    """The paths of a file with a certificate and its chain, and of a file with its key."""

    def __init__(self, certificate_path: str, key_path: str = "") -> None:
        self.certificate_path = certificate_path
        self.key_path = key_path or certificate_path


class LoadedCertificate:
    """An SSL context, and the certificate that it presents. Raises CertificateError if a client would refuse it."""

    def __init__(self, pair: CertificateFiles, options: Options) -> None:
        self.context = context = new_context(options)
        text = load(context, pair, options)
        self.certificate = read(context, text)
        if self.certificate.expired:
            raise CertificateError(
                f"{pair.certificate_path} has expired, on {self.certificate.until_text}: a client would refuse it."
            )
        if options.tls_client_ca:
            verify_clients(context, options)


def new_context(options: Options) -> SSLContext:
    """Return a context with the recommendations of RFC 9325: at least TLS 1.2, no compression, no renegotiation."""
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if options.tls_min == "1.3" else ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(ALPN)
    if options.tls_keylog:
        try:
            # ssl would create a file that other users can read.
            os.close(os.open(options.tls_keylog, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
            context.keylog_filename = options.tls_keylog
        except OSError as error:
            raise CertificateError(f"tls_keylog {options.tls_keylog} can't be written: {error.strerror}.") from None
    return context


def load(context: SSLContext, pair: CertificateFiles, options: Options) -> str:
    """Load certificate and key into the context; return the text of the certificate file.

    Raises CertificateError with a message that says what to do.
    """
    text, key = content(pair.certificate_path, "--tls-cert"), content(pair.key_path, "--tls-key")
    if "-----BEGIN CERTIFICATE-----" not in text:
        if "PRIVATE KEY-----" in text:
            raise CertificateError(
                f"{pair.certificate_path} contains a key but no certificate: are --tls-cert and --tls-key swapped?"
            )
        raise CertificateError(
            f"{pair.certificate_path} contains no certificate in PEM. To convert DER to PEM: openssl x509 -inform der."
        )
    if "PRIVATE KEY-----" not in key:
        if pair.key_path == pair.certificate_path:
            raise CertificateError(f"{pair.certificate_path} contains no private key: add --tls-key FILE.")
        raise CertificateError(f"{pair.key_path} contains no private key in PEM.")
    encrypted = "ENCRYPTED" in key
    if encrypted and not options.tls_password_file:
        raise CertificateError(f"{pair.key_path} is encrypted: add --tls-password-file FILE.")
    password = (
        content(options.tls_password_file, "--tls-password-file").partition("\n")[0].rstrip("\r") if encrypted else ""
    )
    try:
        context.load_cert_chain(pair.certificate_path, pair.key_path, password)
    except ssl.SSLError as error:
        reason = error.reason or ""
        if "MISMATCH" in reason:
            raise CertificateError(f"{pair.key_path} is not the key of {pair.certificate_path}.") from None
        if "TOO_SMALL" in reason or "TOO_WEAK" in reason:
            raise CertificateError(
                f"{pair.certificate_path} is too weak ({reason.lower().replace('_', ' ')})."
            ) from None
        if encrypted:
            raise CertificateError(
                f"the password in {options.tls_password_file} does not open {pair.key_path}."
            ) from None
        raise CertificateError(f"{pair.certificate_path} or {pair.key_path} is damaged ({reason}).") from None
    return text


def content(name: str, option: str) -> str:
    """Return the text of a file. Raises CertificateError."""
    try:
        with open(name, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise CertificateError(f"{option} {name} can't be read: {error.strerror}.") from None


def read(context: SSLContext, text: str) -> Certificate:
    """Return the fields of a certificate, read from a handshake between this context and a client in memory.

    The handshake also proves that the certificate works. The client trusts the first certificate of `text`. Raises
    CertificateError.
    """
    client = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
    end = "-----END CERTIFICATE-----"
    pem = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]
    client.load_verify_locations(cadata=pem)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there), context.wrap_bio(there, back, server_side=True)]
    for _ in range(3):
        for each in ends:
            try:
                each.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                raise CertificateError(f"a client would refuse the certificate ({error.reason}).") from None
    return Certificate(ends[0].getpeercert() or {}, f"{pem}\n")


def verify_clients(context: SSLContext, options: Options) -> None:
    """Request from clients a certificate issued by --tls-client-ca; --tls-client-cert decides whether it is required."""
    content(options.tls_client_ca, "--tls-client-ca")
    try:
        context.load_verify_locations(options.tls_client_ca)
    except ssl.SSLError:
        raise CertificateError(f"--tls-client-ca {options.tls_client_ca} contains no certificate in PEM.") from None
    context.verify_mode = ssl.CERT_REQUIRED if options.tls_client_cert == "required" else ssl.CERT_OPTIONAL


def store_sni(connection: SSLSocket | SSLObject, name: str | None, context: SSLContext) -> None:
    """Store the server name (SNI) that a client requests, as `sni_callback`: `ssl` keeps the name only in a client."""
    vars(connection)["sni"] = name or ""
