"""Messages of version 0.1 in the words of this version, so that the comparison finds differences of behaviour, not of words."""

from __future__ import annotations

import re

REWORDED = {
    "The client left before": "The client disconnected before",
    "The client left.": "The client disconnected.",
    "The response was broken off.": "The response was aborted.",
    "was called after the head had left, with": "was called after the response head was sent, with",
    "PEP 3333 asks for": "PEP 3333 requires",
    "The body can't be read on behind a part that is not valid": "The body can't be read beyond an invalid part",
    "is not ended by CR LF": "does not end with CR LF",
    "A request has one Host field, not several": "The request has more than one Host field",
    "Content-Length and Transfer-Encoding in one request: smuggled? (RFC 9112 6.1)": (
        "The request has both Content-Length and Transfer-Encoding (RFC 9112 6.1)."
    ),
    "An HTTP/1.0 request has no Transfer-Encoding": "An HTTP/1.0 request must not have Transfer-Encoding",
    "The last transfer coding is chunked, and only the last": "Transfer-Encoding must end with chunked, and contain it once",
    "Content-Length is given with two values": "The request has two different Content-Length values",
    "Content-Length is digits only, not": "Content-Length must be digits, not",
    "A request line is a method, a target and a version with one space between": (
        "The request line must be METHOD TARGET VERSION, separated by single spaces"
    ),
    "White space stands before the colon of": "There is white space before the colon of",
    " is the server's business: PEP 3333 forbids hop-by-hop fields.": (
        " is a hop-by-hop field: PEP 3333 forbids applications to send it."
    ),
    "The application failed; the server's log says why": "The application failed. The server's log has the reason",
}
"""The words of version 0.1, and those in their place."""

PATTERNS = (
    (r"\(tests/comparison/\w+\.py:\d+\)", "(place)"),
    (r"(\w+), the application, returned", r"The application \1 (place) returned"),
    (r"The body of (\w+), the application, has (.*?); PEP", r"The application \1 (place) has \2 in its body; PEP"),
    # The answer to HEAD has the length of a 500's text, and not the text: 93 in version 0.1.
    (
        r"(HTTP/1\.1 500 (?:(?!\r\n\r\n).)*Content-Length: )93(\r\n(?:Connection: [^\r]*\r\n)?\r\n(?:HTTP/1\.1 |\Z))",
        r"\g<1>99\2",
    ),
)
"""Messages that quote something between their words, as regular expressions; version 0.1 did not name the place."""

LENGTH = r"(?i)(content-length: )(\d+)((?:(?!\r\n\r\n).)*\r\n\r\n(?:(?!\r\n).)*?)"
"""The length of a body, and all up to a text in the body before its first CR LF."""


def reworded(text: str) -> str:
    """Return a response or a log in the words of this version; the length of a reworded body is adjusted."""
    for old, new in REWORDED.items():
        if old in text:
            while found := re.search(LENGTH + re.escape(old), text, re.DOTALL):
                length = int(found[2]) + len(new) - len(old)
                text = f"{text[: found.start()]}{found[1]}{length}{found[3]}{new}{text[found.end() :]}"
            text = text.replace(old, new)
    for pattern, replacement in PATTERNS:
        text = re.sub(pattern, replacement, text, flags=re.DOTALL)
    return text
