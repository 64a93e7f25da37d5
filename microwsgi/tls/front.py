"""The server's interface to TLS: connections that begin with a handshake, and the certificates that are presented.

Imported only if TLS is used. `microwsgi.tls.handshake` does the handshakes; `microwsgi.tls.transport`
sends and receives afterwards.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable
from ssl import SSLContext, SSLObject, SSLSocket
from time import monotonic, time

from microwsgi.errors import CertificateError, UsageError
from microwsgi.options import Options
from microwsgi.options.declaration import BY_NAME
from microwsgi.server.connections import Connection
from microwsgi.server.context import ServerContext
from microwsgi.server.environ import Environ
from microwsgi.server.transport import Clock, Transport
from microwsgi.tls.authority import ZONES, development
from microwsgi.tls.contexts import PROTOCOLS, CertificateFiles, LoadedCertificate, store_sni
from microwsgi.tls.handshake import HandshakeConnection, HandshakeContext, HandshakePool, Redirector
from microwsgi.tls.modssl import Certificate, client_keys, connection_keys, server_keys
from microwsgi.tls.transport import TLSTransport
from microwsgi.wire.response import NAMES

CHECK_INTERVAL = 1.0
"""Seconds between two checks whether the certificate files have changed."""
EXPIRY_WARNING_DAYS = 14
"""The server warns if a certificate expires in fewer days than this."""
DEVELOPMENT_ZONES = tuple(f".{zone}" for zone in ZONES)
HSTS = ("Strict-Transport-Security", "strict-transport-security")
"""Spellings of the field name (RFC 6797 6.1) to look for in NAMES: applications use one of these two."""
MAX_ENVIRONS = 256
"""The maximum number of environs to keep. Most connections share one: values that differ, like the port, are not in it."""


class TLS:
    """The certificates and the handshakes of a server.

    The first certificate is presented to each client that asks for none of the names in the certificates.

    The files are checked at a handshake, at most once a second: a changed certificate is presented to later connections. One
    that can't be used is reported, and the old one stays in use. Raises CertificateError.
    """

    asked = False  # a check was requested while one was running
    warned = False  # about Strict-Transport-Security
    server_context: ServerContext  # set by `attach` or `start`

    def __init__(
        self,
        pairs: list[CertificateFiles],
        options: Options,
        renew: Callable[[], object] | None = None,
        hints: list[str] | None = None,
    ) -> None:
        self.pairs = pairs
        self.hints = hints or []  # lines for `notes`
        self.options = options
        self.renew = renew
        self.pool = HandshakePool()
        # Signatures of the files in use, of those last reported as unusable, and of those that failed once: these may be half
        # written.
        self.used_stamp = self.refused_stamp = self.failed_stamp = self.file_stamp()
        self.environs: dict[tuple[object, ...], tuple[Environ, Environ]] = {}
        self.checking = threading.Lock()
        self.next_check = monotonic() + CHECK_INTERVAL
        self.context, self.by_name, self.certificates = self.load()

    @classmethod
    def of(cls, context: SSLContext, options: Options) -> TLS:
        """Return a TLS with a context that the caller has created. Its sni_callback is set if there is none."""
        self = cls.__new__(cls)
        self.pairs, self.options, self.renew, self.hints = [], options, None, []
        self.pool = HandshakePool()
        self.used_stamp = self.refused_stamp = self.failed_stamp = ()
        self.environs = {}
        self.checking = threading.Lock()
        self.next_check = float("inf")
        if context.sni_callback is None:
            context.sni_callback = store_sni
        self.context, self.by_name, self.certificates = context, {}, [Certificate({})]
        return self

    # --- For the server -------------------------------------------------------------------------------------------------------

    def attach(self, context: ServerContext) -> None:
        """Use the error log of this server."""
        self.server_context = context

    def start(
        self,
        context: ServerContext,
        finish: Callable[..., object],
        new_connection: Callable[[Transport, Environ], Connection],
    ) -> None:
        """Begin to serve. `finish` is `Loop.finish`; `new_connection` makes a connection that speaks HTTP over a transport."""
        self.server_context = context
        self.new_http_connection = new_connection
        self.pool.start(finish)
        self.front = HandshakeContext(
            self.pool,
            self.wrap,
            self.secure_replacement,
            self.plain_replacement,
            self.reason,
            PROTOCOLS if self.pairs else frozenset(),
        )

    def new_connection(self, transport: Transport, base: Environ) -> Connection:
        """Return the connection of a client that may speak TLS, or plain HTTP."""
        return HandshakeConnection(transport, self.server_context, base, self.front)

    def secure_replacement(self, transport: TLSTransport, base: Environ) -> Connection:
        """Return the connection that continues after the handshake."""
        return self.new_http_connection(transport, self.environ(base, transport))

    def plain_replacement(self, transport: Transport, base: Environ) -> Connection:
        """Return the connection that continues with a client that does not speak TLS."""
        if not self.options.https_redirect:
            return self.new_http_connection(transport, base)
        return Redirector.new_connection(self.server_context, transport, base)

    def end(self) -> None:
        """End the threads of the pool."""
        self.pool.end()

    def wrap(self, transport: Transport) -> TLSTransport:
        """Return a TLS transport that replaces a plain one. Raises OSError."""
        transport.socket.getpeername()  # raises if the client has disconnected; wrap_socket would then close the descriptor
        return self.new_transport(self.wrap_socket(transport.socket), transport.client, transport.clock)

    def wrap_socket(self, connection: socket.socket) -> SSLSocket:
        """Return an SSLSocket whose handshake is still to be done. Raises OSError."""
        if monotonic() >= self.next_check:
            self.check_files()
        return self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def new_transport(self, connection: SSLSocket, client: tuple[str, str], clock: Clock) -> TLSTransport:
        """Return the transport of an SSLSocket."""
        return TLSTransport(connection, client if client[0] else "", self.options, clock)

    def handshake(self, connection: socket.socket) -> socket.socket:
        """Do the whole handshake on a socket with a timeout: for servers without a loop. Raises OSError."""
        secure = self.wrap_socket(connection)
        try:
            secure.do_handshake()
        except OSError:
            secure.close()
            raise
        return secure

    def names(self) -> list[str]:
        """Return the names in the certificates."""
        return [name for certificate in self.certificates for name in certificate.names]

    def transport(self, connection: socket.socket, address: object, context: ServerContext) -> Transport:
        """Return the transport of an SSLSocket whose handshake is done."""
        client = (str(address[0]), str(address[1])) if isinstance(address, tuple) else ("", "")
        transport = self.new_transport(connection, client, context.clock)  # type: ignore[arg-type]  # an SSLSocket, see above
        transport.handshake()  # returns at once; the transport then knows that the handshake is done
        return transport

    def environ(self, base: Environ, transport: Transport) -> Environ:
        """Return the base with the keys of mod_ssl; connections with the same values share one dict."""
        tls: SSLSocket = transport.socket  # type: ignore[assignment]  # see `transport`
        sni: str = getattr(tls, "sni", "")
        if not self.warned:
            self.warn_of_hsts(sni)
        client = tls.getpeercert(binary_form=True)
        # The day is part of the key because SSL_CLIENT_V_REMAIN changes with it.
        key = (id(base), sni, tls.version(), tls.cipher(), tls.session_reused, client, int(time()) // 86400)
        _, known = self.environs.get(key, (base, None))
        if known is None:
            shown = self.certificates[0] if tls.context is self.context else self.certificate_of(tls.context)
            known = {**base, "wsgi.url_scheme": "https", **connection_keys(tls), **server_keys(shown)}
            if client:
                # get_verified_chain: from Python 3.13 on; a resumed session has no chain.
                chain = [client, *getattr(tls, "get_verified_chain", list)()[1:]]
                known |= client_keys(Certificate(tls.getpeercert() or {}), [*map(ssl.DER_cert_to_PEM_cert, chain)])
            if len(self.environs) >= MAX_ENVIRONS:
                self.environs.clear()
            # The base is kept, too: while it exists, no other object can have its id, which is in the key.
            self.environs[key] = base, known
        return known

    def warn_of_hsts(self, name: str) -> None:
        """Warn once if the application sends Strict-Transport-Security to a developer's browser (RFC 6797).

        This is checked at a handshake, in the cache of response field names, so that it costs nothing for a request.
        """
        if f".{name.lower()}".endswith(DEVELOPMENT_ZONES) and any(spelled in NAMES for spelled in HSTS):
            self.warned = True
            self.log(
                f"WARNING: the application sends Strict-Transport-Security. Browsers will remember it for {name} and refuse "
                "plain http there, on every port, also for other projects: send it in production only."
            )

    def certificate_of(self, context: SSLContext | None) -> Certificate:
        """Return the certificate of a context that was chosen by server name (SNI)."""
        found = (each.certificate for each in self.by_name.values() if each.context is context)
        return next(found, Certificate({}))

    def reason(self, error: OSError) -> str:
        """Return why a handshake failed, and what to do."""
        name = getattr(error, "reason", None) or ""
        for known, text in REASONS:
            if known in name or known in str(error):
                return text
        return name.replace("_", " ").lower() or error.strerror or "unknown reason"

    def notes(self) -> list[str]:
        """Return lines for people: each certificate, reloaded if its file has changed, and warnings."""
        self.check_files()
        found = []
        for certificate in self.certificates:
            if certificate.until_text:
                found.append(f"Certificate: {certificate}.")
                if certificate.days_left < EXPIRY_WARNING_DAYS:
                    found.append("It expires soon. Renew it: new files are used without a restart.")
        found += self.hints
        if self.options.tls_keylog:
            found.append(
                f"WARNING: anybody who can read {self.options.tls_keylog} can decrypt all connections of this server "
                "(tls_keylog, SSLKEYLOGFILE)."
            )
        return found

    # --- Certificates -----------------------------------------------------------------------------------------------------

    def load(self) -> tuple[SSLContext, dict[str, LoadedCertificate], list[Certificate]]:
        """Return the first context, the loaded certificates by host name, and all certificates. Raises CertificateError."""
        shown = [LoadedCertificate(pair, self.options) for pair in self.pairs]
        by_name = {name: each for each in reversed(shown) for name in each.certificate.names}
        first = shown[0].context

        def choose(connection: SSLSocket | SSLObject, name: str | None, context: SSLContext) -> None:
            store_sni(connection, name, context)
            if name and (found := by_name.get(name.lower()) or by_name.get(f"*.{name.lower().partition('.')[2]}")):
                connection.context = found.context

        first.sni_callback = choose
        return first, by_name, [each.certificate for each in shown]

    def files(self) -> list[str]:
        """Return the paths of the files from which the contexts are created."""
        pairs = [name for pair in self.pairs for name in (pair.certificate_path, pair.key_path)]
        return [*pairs, *filter(None, [self.options.tls_password_file, self.options.tls_client_ca])]

    def file_stamp(self) -> tuple[object, ...]:
        """Return a value that changes when one of the files changes."""
        found: list[object] = []
        for name in self.files():
            try:
                status = os.stat(name)
            except OSError:
                found.append(None)
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    def check_files(self, *, asked: bool = False) -> None:
        """Load changed certificates if they are usable. If a person has `asked`, report unusable ones at the first failure."""
        self.asked = self.asked or asked
        # If `checking` is locked, do not wait: this thread may hold it, interrupted by a signal. If `self.asked` is set,
        # the holder checks again.
        while self.checking.acquire(blocking=False):
            try:
                asked, self.asked = self.asked, False
                self.next_check = monotonic() + CHECK_INTERVAL
                self.load_changed(asked=asked)
            finally:
                self.checking.release()
            if not self.asked:
                return

    def load_changed(self, *, asked: bool) -> None:
        """Load changed certificates. The caller holds `checking`."""
        try:
            if self.renew is not None:
                self.renew()
        except CertificateError as error:
            self.log(f"The development certificate can't be renewed: {error}")
        now = self.file_stamp()
        if now == self.used_stamp or (now == self.refused_stamp and not asked):
            return
        try:
            self.context, self.by_name, self.certificates = self.load()
        except CertificateError as error:
            # Report only if the same files fail twice: between two checks the key may be new and the certificate still old.
            if now == self.failed_stamp or asked:
                self.refused_stamp = now
                self.log(f"The changed certificate can't be used; the server continues with the old one: {error}")
            self.failed_stamp = now
            return
        self.used_stamp = self.refused_stamp = now
        self.environs.clear()
        self.log(f"A new certificate is used from here on: {self.certificates[0]}.")

    def log(self, text: str) -> None:
        """Write a line to the error log. Before `attach` or `start` there is no error log, and the line is lost."""
        context: ServerContext | None = getattr(self, "server_context", None)
        if context is not None:
            context.log_error(text)


def make_tls(options: Options, ssl_context: object = None) -> TLS:
    """Return the `tls` argument of `WSGIServer`, made from the options or from `ssl_context`.

    `ssl_context` has the values that Werkzeug accepts: an SSLContext, (certificate, key) or "adhoc". Raises CertificateError,
    and UsageError for options that contradict it.
    """
    if ssl_context is not None:
        refuse_both(options, CONTEXT_OPTIONS if isinstance(ssl_context, SSLContext) else CERTIFICATE_OPTIONS)
    if isinstance(ssl_context, SSLContext):
        return TLS.of(ssl_context, options)
    if ssl_context == "adhoc" or (options.tls and not options.tls_cert and ssl_context is None):
        pair, authority = development(options)
        return TLS([pair], options, authority.renew, authority.hints())
    certificates, keys = options.tls_cert, options.tls_key
    if isinstance(ssl_context, tuple) and len(ssl_context) == 2:  # certificate and key
        certificates, keys = (str(ssl_context[0]),), (str(ssl_context[1] or ssl_context[0]),)
    elif ssl_context is not None:
        raise UsageError('ssl_context must be an ssl.SSLContext, (certificate file, key file) or "adhoc".')
    if len(keys) > len(certificates):
        raise UsageError("--tls-key needs --tls-cert.")
    pairs = [
        CertificateFiles(name, key) for name, key in zip(certificates, [*keys, *[""] * len(certificates)], strict=False)
    ]
    return TLS(pairs, options)


CERTIFICATE_OPTIONS = ("tls_cert", "tls_key")
"""Options that can't be combined with an `ssl_context` that is (certificate, key)."""
CONTEXT_OPTIONS = (
    *CERTIFICATE_OPTIONS,
    "tls_password_file",
    "tls_min",
    "tls_client_ca",
    "tls_client_cert",
    "tls_keylog",
)
"""Options that can't be combined with an SSLContext, which has its own settings for all of them."""


def refuse_both(options: Options, names: tuple[str, ...]) -> None:
    """Refuse options that are also given by `ssl_context`. Raises UsageError."""
    for name in names:
        if getattr(options, name) != BY_NAME[name].default:
            raise UsageError(f"ssl_context and {BY_NAME[name].label} can't be combined: leave one of them out.")


UNTRUSTED = "the client does not trust this certificate; with the development CA: microwsgi certs trust"
REASONS = (
    ("UNKNOWN_CA", UNTRUSTED),
    ("CERTIFICATE_UNKNOWN", UNTRUSTED),
    ("ALERT_BAD_CERTIFICATE", UNTRUSTED),
    ("ALERT_CERTIFICATE_EXPIRED", "the client considers this certificate expired: is the client's clock right?"),
    ("HTTP_REQUEST", "the client spoke plain HTTP: use https://"),
    ("UNSUPPORTED_PROTOCOL", "the client does not support the minimum TLS version of this server (--tls-min)"),
    ("VERSION_TOO_LOW", "the client does not support the minimum TLS version of this server (--tls-min)"),
    ("WRONG_VERSION_NUMBER", "what the client sent is not TLS"),
    ("NO_SHARED_CIPHER", "the client offers no cipher that is considered secure"),
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "the client sent no certificate, and --tls-client-ca requires one"),
    ("certificate has expired", "the client's certificate has expired"),
    ("certificate verify failed", "the client's certificate was not issued by a CA in --tls-client-ca"),
    ("UNEXPECTED_EOF", "the client disconnected during the handshake"),
    ("EOF occurred", "the client disconnected during the handshake"),
)
"""Parts of OpenSSL's messages, each with a message for people."""
