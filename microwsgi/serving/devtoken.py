"""The token of the project: only clients that have it see the details of exceptions.

The terminal prints the address with the token. A browser that opens it gets a cookie, which remains valid after restarts; a
program may send the token in a header field. The client's address proves nothing: behind a proxy on this machine all
clients have 127.0.0.1.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from microwsgi.errors import ClientError
from microwsgi.server.exchange import Exchange
from microwsgi.support import lazy

PARAMETER = "token"
"""The query parameter with the token."""
FIELD = "Microwsgi-Token"
"""The header field in which a program sends the token."""
KEY = "HTTP_MICROWSGI_TOKEN"
YEAR = 365 * 86400
FIELDS = "Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n"
HINT = f"To see the details here, open the address with the token that the terminal prints, or send the token as {FIELD}.\n"


class SignedIn(ClientError):
    """The request had the token: the browser is sent to the same address without it, and gets the cookie (RFC 6265)."""

    status = "303 See Other"

    def __init__(self, location: str, cookie: str) -> None:
        super().__init__("This browser sees the details of exceptions from now on.")
        self.fields = f"Location: {location}\r\nSet-Cookie: {cookie}\r\n" + FIELDS


class DevToken:
    """The token of the project in a folder; "" if it can't be stored, and then no client sees details."""

    def __init__(self, project: str) -> None:
        name = lazy.hashlib.sha256(os.path.realpath(project).encode("utf-8", "surrogateescape")).hexdigest()[:12]
        self.cookie = f"microwsgi_{name}"
        self.path = os.path.join(state_folder(), "microwsgi", "tokens", name)
        try:
            self.token = kept_token(self.path)
        except OSError:
            self.token = ""

    @property
    def hint(self) -> str:
        """The text for a client without the token, in addition to the id in the log."""
        return (
            HINT
            if self.token
            else f"Error details are disabled: the token can't be stored in {self.path}. Set XDG_STATE_HOME.\n"
        )

    @property
    def query(self) -> str:
        """The query part of the address that the terminal prints."""
        return f"?{PARAMETER}={self.token}" if self.token else ""

    def allows(self, environ: Mapping[str, object]) -> bool:
        """Return whether a request has the token, in the cookie or in the field."""
        cookies = (part.strip().partition("=") for part in str(environ.get("HTTP_COOKIE", "")).split(";"))
        given = [value for name, _, value in cookies if name == self.cookie]
        return any(map(self.is_token, [*given, str(environ.get(KEY, ""))]))

    def sign_in(self, exchange: Exchange) -> None:
        """Give the cookie to a browser that has opened the printed address. Raises SignedIn."""
        head = exchange.head
        path, _, query = head.target.partition("?")
        if query and head.method == "GET" and path.startswith("/"):
            parts = query.split("&")
            left = [part for part in parts if not self.is_token(part.removeprefix(f"{PARAMETER}="))]
            if len(left) < len(parts):
                exchange.hide(self.token)  # other users may read the log
                prefix = str(exchange.base["SCRIPT_NAME"])
                secure = "; Secure" if exchange.base["wsgi.url_scheme"] == "https" else ""
                cookie = f"{self.cookie}={self.token}; Path=/; Max-Age={YEAR}; HttpOnly; SameSite=Strict{secure}"
                # A path that begins with two slashes would be another host.
                raise SignedIn(f"{prefix}/{path.lstrip('/')}{'?' if left else ''}{'&'.join(left)}", cookie)

    def is_token(self, text: str) -> bool:
        """Return whether a text is the token. The comparison takes constant time."""
        return bool(self.token) and lazy.hmac.compare_digest(text.encode("utf-8", "replace"), self.token.encode())


def state_folder() -> str:
    """Return the folder of the user's state (XDG Base Directory Specification)."""
    return os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")


def kept_token(path: str) -> str:
    """Return the token in a file. Create the file if it does not exist. Raises OSError if other users could read it."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    try:
        descriptor = os.open(f"{path}.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(os.urandom(16).hex())
        try:
            # Atomic, and fails if the file exists: several processes may start at the same time.
            os.link(f"{path}.{os.getpid()}", path)
        finally:
            os.unlink(f"{path}.{os.getpid()}")
    except FileExistsError:
        pass
    with open(path, encoding="ascii") as file:
        status = os.fstat(file.fileno())
        text = file.read().strip()
    foreign = hasattr(os, "geteuid") and (status.st_uid != os.geteuid() or status.st_mode & 0o077)
    if foreign or len(text) != 32:
        raise PermissionError(f"{path} must contain a token, and only this user may have access to it.")
    return text
