"""The text of an exception, for a log."""

from __future__ import annotations

from microwsgi.support import lazy


def exception_text(error: BaseException) -> str:
    """Return the traceback of an exception. The lines of the traceback stay; a line feed in the text of an exception does not.

    Else the text, in which there may be anything that a client has sent, could contain lines that look like other records.
    """
    parts: list[str] = []
    is_note = False
    for part in lazy.traceback.TracebackException.from_exception(error).format():
        if part.startswith(
            (" ", "\n", "Traceback (")
        ):  # a frame, an exception of a group, or a line between two tracebacks
            parts.append(part)
            is_note = False
        else:  # an exception's type and text; behind it its notes
            text = part.rstrip("\n").replace("\n", "\\n")
            parts.append(f"  {text}\n" if is_note else f"{text}\n")
            is_note = True
    return "".join(parts)
