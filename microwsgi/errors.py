"""The exceptions of microwsgi: one tree, grouped by who must fix the problem: client, application or operator.

A `ClientError` becomes a response, an `ApplicationError` and a `ViewError` a logged 500, a `UsageError` one sentence on the
terminal; a `RouteError` ends the application's import.
"""

from __future__ import annotations

from types import CodeType


class MicrowsgiError(Exception):
    """The base class: catch it to catch all exceptions of microwsgi and no others."""


class ClientError(MicrowsgiError):
    """The client broke a rule of HTTP or exceeded one of our limits; the text is the reason that the response states."""

    status = "400 Bad Request"
    fields = ""
    """Further field lines of the response."""
    log_once = False
    """Many requests in a row are refused for the same reason: the error log does not repeat it."""


class RequestTimeout(ClientError):
    """RFC 9110 15.5.9: the client took longer to send than a time limit allows."""

    status = "408 Request Timeout"


class ContentTooLarge(ClientError):
    """RFC 9110 15.5.14: the body is longer than `max_body_size`."""

    status = "413 Content Too Large"


class TargetTooLong(ClientError):
    """RFC 9110 15.5.15: the request line is longer than `max_line_size`."""

    status = "414 URI Too Long"


class ExpectationFailed(ClientError):
    """RFC 9110 10.1.1: an expectation other than 100-continue."""

    status = "417 Expectation Failed"


class MisdirectedRequest(ClientError):
    """RFC 9110 15.5.20: the request names a host that this server does not answer for."""

    status = "421 Misdirected Request"


class FieldsTooLarge(ClientError):
    """RFC 6585 5: the fields are more, or longer, than `max_header_size`, `max_line_size` and `max_header_count` allow."""

    status = "431 Request Header Fields Too Large"


class NotImplementedByServer(ClientError):
    """RFC 9110 15.6.2: a transfer coding or a method that this server does not have."""

    status = "501 Not Implemented"


class ServiceUnavailable(ClientError):
    """RFC 9110 15.6.4: the bodies of many requests together are more than this server stores."""

    status = "503 Service Unavailable"
    fields = "Retry-After: 10\r\n"
    log_once = True


class InsufficientStorage(ClientError):
    """RFC 4918 11.5: there is no room for the body, as on a disk that is full."""

    status = "507 Insufficient Storage"
    log_once = True


class VersionNotSupported(ClientError):
    """RFC 9110 15.6.6: neither HTTP/1.1 nor HTTP/1.0."""

    status = "505 HTTP Version Not Supported"


class Disconnected(MicrowsgiError, ConnectionError):
    """The client disconnected while its request was read or its response was written; no response can be sent.

    It is a `ConnectionError`, too, so that applications that handle errors of files and sockets also handle this one.
    """


class TruncatedFile(MicrowsgiError):
    """A file was truncated while it was being sent: the response can't be completed, and the text names the file."""


class Abandoned(BaseException):
    """A person at the debugger's prompt has ended this request.

    It is outside the tree and not an Exception, so that an application's `except Exception` does not catch it.
    """


class ApplicationError(MicrowsgiError):
    """The application broke a rule of PEP 3333; the text names the rule.

    `code` is the application's code object if it has returned, so that no frame of it is on the traceback.
    """

    def __init__(self, message: str, code: CodeType | None = None) -> None:
        super().__init__(message)
        self.code = code


class RouteError(MicrowsgiError, ValueError):
    """A route is defined incorrectly, or no URL can be built from it; the text names its location."""


class ViewError(MicrowsgiError, TypeError):
    """A view returned a value that can't be converted to a response; the message names the view and its location.

    `code` is the view's code object: no frame of it is on the traceback, since it has returned.
    """

    def __init__(self, message: str, code: CodeType | None = None) -> None:
        super().__init__(message)
        self.code = code


class UsageError(MicrowsgiError):
    """An error on the command line, in the configuration or in a call of `serve`; the text says what to do."""

    exit_code = 2


class CertificateError(UsageError):
    """A certificate, a key or a password can't be used, or no certificate can be created."""

    exit_code = 1


class LoadError(UsageError):
    """The application can't be loaded."""

    exit_code = 3


class ListenError(UsageError):
    """The server can't listen on an address.

    `free_port` can be used instead of `port`, `wrong_host` is not a host of this machine, `holder` is the process that has the
    port; 0 or "" if that does not apply. `microwsgi.serving.retyped` suggests commands from them.
    """

    exit_code = 4

    def __init__(
        self, message: str, *, port: int = 0, free_port: int = 0, wrong_host: str = "", holder: int = 0
    ) -> None:
        super().__init__(message)
        self.port = port
        self.free_port = free_port
        self.wrong_host = wrong_host
        self.holder = holder


class ServiceError(UsageError):
    """A background process can't start, or can't be reached."""

    exit_code = 1
