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
]
"""The intended differences."""
