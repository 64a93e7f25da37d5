"""The intended differences between version 0.1 and this working tree.

A difference that no entry explains is a failure, and so is an entry that explains none.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Explanation(NamedTuple):
    """Differences that are intended. The patterns are regular expressions that must be found; an empty one always is."""

    reason: str
    """Why the new behaviour is right: the rule, or the issue."""
    aspect: str
    """response, end, events, log, figures or side."""
    conversation: str
    """Of the conversation's name, as it is printed."""
    old: str = ""
    """Of the part of the old side that differs."""
    new: str = ""
    """Of the part of the new side that differs."""
    sent: str = ""
    """Of the octets that the client sent, as latin-1: a rule of the syntax holds in generated messages, too."""

    def fits(self, aspect: str, conversation: str, old: str, new: str, sent: str) -> bool:
        """Whether this explains a difference."""
        pairs = ((self.conversation, conversation), (self.old, old), (self.new, new), (self.sent, sent))
        return aspect == self.aspect and all(re.search(pattern, text, re.DOTALL) for pattern, text in pairs)


EXPLANATIONS: list[Explanation] = [
    *(
        Explanation(
            "RFC 9112 7.1 allows leading zeros in a chunk size.",
            aspect,
            "",
            sent=r"\r\n0[0-9a-fA-F]{16,}(?:[ \t;]|\r\n)",
        )
        for aspect in ("response", "events", "log")
    ),
    Explanation(
        "The record of an exchange is written when it is over: behind the exception that its close() raises.",
        "log",
        r"/fail\?when=failed\+and\+close",
    ),
    *(
        Explanation(
            "A chunked body is received before the application is called, and has CONTENT_LENGTH (RFC 3875 4.2; issue 17).",
            aspect,
            "",
            new="CONTENT_LENGTH",
            sent=r"(?i)\r\ntransfer-encoding:",
        )
        for aspect in ("response", "events")
    ),
    *(
        Explanation(
            "A body that is received before the application is called is refused before that if it ends or stalls (issue 17).",
            aspect,
            r"cut short \d|^(?:reset|close|shut) in a body|^stalled after part of an? (?:long|unread) body",
            old=old,
            new=new,
        )
        for aspect, old, new in (
            ("response", "^$|^HTTP/1.1 200", "^HTTP/1.1 40[08]"),
            ("events", "call POST", "^$"),
            ("log", "", r" 40[08]: | -: "),
        )
    ),
    Explanation(
        "A client that waits to send chunks is told to continue once its head was checked: they are received first (issue 17).",
        "response",
        "^expect chunks ",
        new="^HTTP/1.1 100 Continue",
    ),
    *(
        Explanation(
            "The connection can be used after a body that was received before the application was called (issue 17).",
            aspect,
            r"^/\S* (?:chunked|length|close) \d+",
            old=old,
            new=new,
        )
        for aspect, old, new in (
            ("end", "reset", "eof"),
            ("events", "call POST", "call GET /probe"),
            ("response", "Connection: close", ""),
        )
    ),
    *(
        Explanation(
            "A bytearray in a list is refused as in a generator: PEP 3333 asks for bytes (issue 18).",
            aspect,
            r"/returned\?n=8",
            old=old,
            new=new,
        )
        for aspect, old, new in (("response", "200 OK", "500 Internal"), ("log", "^$", " fai"))
    ),
    Explanation(
        "The items of a list are checked before they are joined: no TypeError of join() stands before ours (issue 18).",
        "log",
        r"/returned\?n=(?:4|5|11|13)\b",
        old="TypeError",
        new="ApplicationError",
    ),
    Explanation(
        "A header that is not a pair of two str is described, and not what Python cannot do with it (issue 21).",
        "log",
        r"/headers\?n=",
        old="AttributeError|TypeError|ValueError",
        new="ApplicationError",
    ),
    Explanation(
        "An exception of a handler class is logged with its client and its request (issue 18).",
        "log",
        "without a client",
        old="A handler failed",
    ),
    *(
        Explanation(
            "An exception of a handler class that has sent nothing is a 500 (issue 18).",
            aspect,
            "plain failure",
            old="^$",
            new=new,
        )
        for aspect, new in (("response", "^HTTP/1.1 500"), ("log", "FAIL"))
    ),
]
"""The intended differences."""
