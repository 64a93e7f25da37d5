"""WebOb's Request with typed values. A missing or invalid value raises HTTPBadRequest with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from json import JSONDecodeError
from typing import Any
from urllib.parse import quote

import webob
from webob.exc import HTTPBadRequest, HTTPLengthRequired, HTTPRequestEntityTooLarge, HTTPUnsupportedMediaType
from webob.multidict import GetDict, MultiDict

from microwsgi.framework import forms
from microwsgi.framework.routing import PCHAR
from microwsgi.framework.values import READERS, parse_json

FORM = "microwsgi.form"
"""The key of the environ for the form of a body that was read: a hook may have read it before a mounted App does."""
PARSED = "webob._parsed_post_vars"
"""WebOb's key for the fields that it has parsed, and the file from which it has read them."""
URLENCODED, MULTIPART = FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
FOREIGN = {*FORMS, "text/plain"}
"""Types of bodies that a form on another site can send (Fetch standard, 2.2.2). None of them is accepted as JSON."""


class Request(webob.Request):
    """WebOb's Request with typed values, limits for bodies, and `url_for`.

    `kind` is a type, or a function that raises ValueError for invalid text. A value without a default (`...`) is required.
    Limits are in bytes; change them in a subclass (`app.request_class`), or in a view before it reads the body.
    """

    max_body_size = 8 * 1024 * 1024
    """The limit for JSON, and for all text fields of a form together, which are kept in memory."""
    max_file_size = 1024 * 1024 * 1024
    """The limit for one file of a form."""
    max_field_count = 1000
    """The limit for the number of fields of a form."""
    app: Any = None

    def __init__(self, environ: dict[str, Any], app: Any = None, **values: Any) -> None:
        own = self.__dict__  # WebOb's __setattr__ takes longer than the rest of this method
        own["environ"], own["app"] = environ, app
        if values:
            super().__init__(environ, **values)

    def url_for(self, name: str, /, **values: object) -> str:
        """Return the path of a route of the App, with the prefix under which the App is mounted. Raises RouteError."""
        path: str = self.app.url_for(name, **values)
        return quote(self.script_name, safe=PCHAR + "/") + path

    @property
    def client_addr(self) -> str:
        """The client's address, REMOTE_ADDR. WebOb's property believes any client's X-Forwarded-For.

        Behind a proxy the server sets REMOTE_ADDR: --forwarded-allow-ips.
        """
        address: str = self.environ.get("REMOTE_ADDR", "")
        return address

    @property
    def GET(self) -> GetDict:
        """The parameters of the query. Raises HTTPBadRequest if they are not UTF-8."""
        try:
            return super().GET
        except UnicodeDecodeError as error:
            raise HTTPBadRequest("The query is not UTF-8.") from error

    @property
    def POST(self) -> Any:
        """The fields of the form as WebOb parses them; empty if the body is not a form. Raises HTTPBadRequest as `form` does.

        The form is checked first: WebOb replaces bytes that are not UTF-8, and accepts a truncated form as complete.
        """
        _, checked = self.environ.get(PARSED, (None, None))
        if self.content_type in FORMS and checked is not self.body_file_raw:
            self.make_body_seekable()
            self.check_form()
        return super().POST

    @property
    def text(self) -> str:
        """The body as text. Raises HTTPBadRequest if it is not in the charset of its Content-Type, by default UTF-8."""
        body, charset = self.read_body(), str(self.charset)
        try:
            return body.decode(charset)
        except LookupError:
            raise HTTPUnsupportedMediaType(f"The charset {charset[:80]!r} is unknown.") from None
        except UnicodeDecodeError as error:
            reason = f"{error.reason} at byte {error.start}"
            raise HTTPBadRequest(f"The body is not {charset}: {reason}.") from error

    @text.setter
    def text(self, text: str) -> None:
        self.body = text.encode(str(self.charset))

    # --- Values -------------------------------------------------------------------------------------------------------

    def query(self, name: str, kind: Callable[[str], Any] = str, default: Any = ...) -> Any:
        """Return a value of the query. Raises HTTPBadRequest."""
        return convert(self.GET.get(name, ...), kind, default, f"{name} in the query")

    def form_value(self, name: str, kind: Callable[[str], Any] = str, default: Any = ...) -> Any:
        """Return a value of the form. Raises HTTPBadRequest."""
        return convert(self.form.get(name, ...), kind, default, f"{name} in the form")

    def form_file(self, name: str, default: Any = ...) -> Any:
        """Return a file of the form as an Upload. Raises HTTPBadRequest."""
        value = self.form.get(name, default)
        if value is ... or isinstance(value, str):
            raise HTTPBadRequest(f"{name} in the form is {'missing' if value is ... else 'not a file'}.")
        return value

    def json_value(self, name: str, kind: Callable[[Any], Any] = str, default: Any = ...) -> Any:
        """Return a value of the JSON object in the body. If `kind` is not a JSON type, convert a str. Raises HTTPBadRequest."""
        what = f"{name} in the body"
        value = self.json_object.get(name, ...)
        if value is None and default is None:
            return None
        if value is ... or (isinstance(value, str) and kind not in JSON_TYPES):
            return convert(value, kind, default, what)
        if kind is float and type(value) is int:  # JSON has one type of numbers
            try:
                return float(value)
            except OverflowError:
                raise HTTPBadRequest(f"{what} is too large for a float.") from None
        if type(value) is not kind:
            raise HTTPBadRequest(f"{what} is {json_type(value)}; it must be {JSON_TYPES.get(kind, 'a string')}.")
        return value

    # --- The body -----------------------------------------------------------------------------------------------------

    @cached_property
    def json_object(self) -> dict[str, Any]:
        """The JSON object in the body. Raises HTTPBadRequest if the body is anything else."""
        value = self.json
        if not isinstance(value, dict):
            raise HTTPBadRequest(f"The body is {json_type(value)}; it must be an object.")
        return value

    @cached_property
    def form(self) -> MultiDict[str, Any]:
        """The fields of the form, each a str or an Upload; `getall` returns all of one name. Raises HTTPBadRequest."""
        self.check_charset()
        if self.content_type == MULTIPART:
            environ = self.environ
            source, form = environ.get(FORM, (None, MultiDict[str, Any]()))
            if source is not environ["wsgi.input"]:
                form = forms.multipart(
                    self.body_file,
                    environ["CONTENT_TYPE"],
                    fields=self.max_field_count,
                    text_size=self.max_body_size,
                    file_size=self.max_file_size,
                )
                environ[FORM] = environ["wsgi.input"], form
            kept: MultiDict[str, Any] = form
            return kept
        if self.content_type not in {URLENCODED, ""}:
            raise HTTPUnsupportedMediaType(f"The body is {self.content_type}; it must be a form.")
        return forms.urlencoded(self.read_body(), fields=self.max_field_count)

    def check_charset(self) -> None:
        """Raise HTTPUnsupportedMediaType for a form whose Content-Type names another charset than UTF-8."""
        if self.charset != "UTF-8":
            raise HTTPUnsupportedMediaType(f"The form is in {str(self.charset)[:80]!r}; it must be in UTF-8.")

    def check_form(self) -> None:
        """Raise HTTPBadRequest for a form that is not UTF-8 or not complete, without keeping its files."""
        self.check_charset()
        if self.content_type != MULTIPART:
            forms.urlencoded(self.read_body(), fields=self.max_field_count)
            return
        for part in self.parts():
            if part.filename is None:
                forms.text(part.read(self.max_body_size), f"{part.name} in the form")

    def parts(self) -> Iterator[forms.Part]:
        """Return the parts of the form while they arrive, without keeping them. Use this or `form`, not both."""
        if self.content_type != MULTIPART:
            raise HTTPUnsupportedMediaType(f"The body is {self.content_type or 'of no type'}; it must be {MULTIPART}.")
        return iter(forms.Multipart(self.body_file, self.environ["CONTENT_TYPE"]))

    def save(self, path: str, limit: int) -> int:
        """Write the body to a file, which exists only once the body is complete. Return its size.

        Raises HTTPRequestEntityTooLarge if the body is longer than `limit` bytes, HTTPLengthRequired if its end is unknown, and
        HTTPBadRequest if it is not complete.
        """
        blocks = iter(partial(self.body_file.read, forms.BLOCK), b"")
        return forms.save(forms.limited(blocks, limit, "The body"), path, self.content_length)

    def body_is_readable(self) -> bool:
        """Return whether there is a body to read, for WebOb's methods.

        Raises HTTPLengthRequired for a chunked body if the server passes neither its length nor wsgi.input_terminated: WebOb
        would treat it as empty.
        """
        environ = self.environ
        readable = bool(super().is_body_readable)
        if not readable and environ.get("HTTP_TRANSFER_ENCODING") and not environ.get("CONTENT_LENGTH"):
            raise HTTPLengthRequired("This server does not pass on a body without a Content-Length.")
        return readable

    def set_body_readable(self, flag: bool) -> None:
        """Set whether the body can be read to its end."""
        self.environ["wsgi.input_terminated"] = bool(flag)

    is_body_readable = property(body_is_readable, set_body_readable)

    def read_body(self) -> bytes:
        """Return the body. Raises HTTPRequestEntityTooLarge beyond `max_body_size`. WebOb's `body` returns it afterwards."""
        if (self.content_length or 0) > self.max_body_size:
            raise HTTPRequestEntityTooLarge(f"The body is larger than {self.max_body_size} bytes.")
        if not self.is_body_seekable:
            blocks = iter(lambda: self.body_file.read(forms.BLOCK), b"")
            self.body = b"".join(forms.limited(blocks, self.max_body_size, "The body"))
        return self.body

    def read_json(self) -> Any:
        """Parse the body as JSON (RFC 8259). Raises HTTPBadRequest with the position of the error."""
        if self.content_type in FOREIGN:
            raise HTTPUnsupportedMediaType(f"The body is {self.content_type}; it must be application/json.")
        try:
            return parse_json(forms.text(self.read_body(), "The body"))
        except JSONDecodeError as error:
            raise HTTPBadRequest(
                f"The body is not JSON: {error.msg}, line {error.lineno} column {error.colno}."
            ) from error
        except (ValueError, RecursionError) as error:
            raise HTTPBadRequest(f"The body is not valid JSON: {error}.") from error

    json = json_body = property(read_json, webob.Request.json.fset, webob.Request.json.fdel)


JSON_TYPES: dict[Any, str] = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "an array",
    dict: "an object",
}


def json_type(value: object) -> str:
    """Return the JSON name of a value's type."""
    return JSON_TYPES.get(type(value), "null")


def convert(value: Any, kind: Callable[[str], Any], default: Any, what: str) -> Any:
    """Convert a value with `kind`; return `default`, unconverted, if there is no value. Raises HTTPBadRequest."""
    if value is ...:
        if default is ...:
            raise HTTPBadRequest(f"{what} is missing.")
        return default
    if not isinstance(value, str):
        raise HTTPBadRequest(f"{what} is a file.")
    try:
        return READERS.get(kind, kind)(value)
    except (ValueError, LookupError) as error:
        name = getattr(kind, "__name__", "value")
        reason = f"which is not a valid {name}" if isinstance(kind, type) else f"which is invalid: {error}"
        raise HTTPBadRequest(f"{what} is {value!r:.80}, {reason}.") from error
