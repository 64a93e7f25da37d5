"""Record the calls into the user's code during a request, and find the function that made the response.

A profile function (sys.setprofile) is called for each call and return of a thread. It adds no frame, and does not depend on the
application or its framework:

    with Tracer() as tracer, a server that starts its threads in here:
        one request
    tracer.frames()      the stack from the start of the thread to the user's function

The function that made the response is the last one that was called by other code before start_response was called, and that
returned a new value: not None, as hooks do, and not one of its arguments, as filters of a response do. If there is none, it is
the one that raised. Functions that it calls through other code (a template's filter, a JSON decoder) do not count, unless the
request is passed on to them: a frame in between has an environ (middleware around a framework), or the same object is returned
(a framework's own kind of middleware), or it is the function that a decorator wraps.
"""

from __future__ import annotations

import dis
import sys
import threading
from itertools import pairwise
from types import CodeType, FrameType, TracebackType
from typing import Self

from microwsgi.devtools.stack import YOURS, Frame, capture, owner

RETURNS = {dis.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST", "YIELD_VALUE") if name in dis.opmap}
"""The instructions that return. They are checked because the profile function also gets None if a function raises."""


class Call:
    """A call into the user's code: the stack at its beginning, and its result."""

    def __init__(self, frame: FrameType, outer: Call | None, *, passed_on: bool) -> None:
        self.frames = capture(frame)
        self.outer = outer  # the user's call during which this one was made
        self.passed_on = passed_on  # whether the request of `outer` was passed on to it
        self.frame: FrameType | None = frame
        self.given = list(frame.f_locals.values())
        self.returned: object = None
        self.raised = 0  # the line that raised an exception; 0 if none did

    @property
    def function(self) -> Frame:
        """The frame of the function itself."""
        return self.frames[-1]

    def end(self, frame: FrameType, returned: object) -> None:
        """Record the return value, and release the arguments."""
        if frame.f_code.co_code[frame.f_lasti] not in RETURNS:
            self.raised = frame.f_lineno
        if not any(returned is value for value in self.given):
            self.returned = returned
        self.frame, self.given = None, []

    def continues(self, outer: Call) -> bool:
        """Return whether this call continues the work of `outer` for the request."""
        return self.outer is outer and (self.passed_on or self.returned is outer.returned)


class Tracer:
    """Records the calls into the user's code by threads that begin while it is active."""

    def __init__(self) -> None:
        self.by_thread: dict[int, list[Call]] = {}
        self.responses: dict[
            int, tuple[int, list[Frame]]
        ] = {}  # by thread: the number of calls before start_response was first called, and the stack there
        self.mine: dict[CodeType, bool] = {}
        self.on = False

    def __enter__(self) -> Self:
        self.before = threading.getprofile()
        self.on = True
        threading.setprofile(self.note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.on = False
        threading.setprofile(self.before)

    def note(self, frame: FrameType, event: str, value: object) -> None:
        """Record calls and returns: the profile function."""
        if not self.on:
            sys.setprofile(None)
        elif event == "call":
            if frame.f_code.co_name == "start_response" or (self.yours(frame) and starts_response(frame)):
                calls = self.by_thread.get(threading.get_ident(), [])
                self.responses.setdefault(threading.get_ident(), (len(calls), capture(frame.f_back)))
            elif self.yours(frame):
                self.begin(frame)
        elif event == "return" and self.mine.get(frame.f_code):
            for call in self.by_thread.get(threading.get_ident(), []):
                if call.frame is frame:
                    call.end(frame, value)

    def yours(self, frame: FrameType) -> bool:
        """Return whether a frame's function is in a file of the user's. The code of a module itself is not a call."""
        code = frame.f_code
        if code not in self.mine:
            named = not code.co_filename.startswith("<") and code.co_name != "<module>"
            self.mine[code] = named and owner(str(frame.f_globals.get("__name__", "?")), code) == YOURS
        return self.mine[code]

    def begin(self, frame: FrameType) -> None:
        """Record a call, unless the caller is also a function of the user's."""
        caller = frame.f_back
        if caller and self.yours(caller) and not wraps(caller, frame.f_code):
            return
        calls = self.by_thread.setdefault(threading.get_ident(), [])
        outer = next((call for call in reversed(calls) if call.frame is not None), None)
        passed_on = outer is not None and (caller is outer.frame or has_environ(caller, outer.frame))
        calls.append(Call(frame, outer, passed_on=passed_on))

    def forget(self) -> None:
        """Discard the calls of this thread, before the next request."""
        self.by_thread.pop(threading.get_ident(), None)
        self.responses.pop(threading.get_ident(), None)

    # --- Results ----------------------------------------------------------------------------------------------------

    @property
    def thread(self) -> int | None:
        """The thread that called start_response, or else one that called into the user's code."""
        return next(iter([*self.responses, *self.by_thread]), None)

    def all(self, thread: int | None = None) -> list[Call]:
        """Return all calls into the user's code on a thread, by default that of the request."""
        thread = thread or self.thread
        return self.by_thread.get(thread, []) if thread else []

    def maker(self, thread: int | None = None) -> Call | None:
        """Return the call that made the response; None if it was not the user's code."""
        thread = thread or self.thread
        calls = self.all(thread)
        if thread in self.responses:
            calls = calls[: self.responses[thread][0]]
            made = [call for call in calls if call.returned is not None] or [call for call in calls if call.raised]
        else:  # a handler class of http.server, or an exception
            made = [call for call in calls if call.returned is not None] or calls
        found = next((call for call in reversed(made) if not within(call, made)), None)
        while inner := next((call for call in reversed(made) if found and call.continues(found)), None):
            found = inner
        return found

    def frames(self, name: str = "") -> list[Frame]:
        """Return the stack from the start of the thread to the function that made the response, or to the last call of `name`.

        If no code of the user's ran, it ends at the caller of start_response. Raises LookupError if `name` was not called.
        """
        if name:
            for call in reversed(self.all()):
                if name in {call.function.function, call.function.function.rpartition(".")[2]}:
                    return call.frames
            raise LookupError(name)
        maker = self.maker()
        return maker.frames if maker else self.responses.get(self.thread or 0, (0, []))[1]


def starts_response(frame: FrameType) -> bool:
    """Return whether it is a start_response of a server or of middleware: its arguments are a status and headers."""
    code = frame.f_code
    given = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount]]
    return any(
        isinstance(status, str) and status[:3].isdigit() and status[3:4] == " " and isinstance(fields, list)
        for status, fields in pairwise(given)
    )


def within(call: Call, others: list[Call]) -> bool:
    """Return whether a call was made during one of the others."""
    outer = call.outer
    while outer is not None and outer not in others:
        outer = outer.outer
    return outer is not None


def wraps(caller: FrameType, code: CodeType) -> bool:
    """Return whether the caller is a decorator's function that wraps this code."""
    closure = (caller.f_locals.get(name) for name in caller.f_code.co_freevars)
    return any(getattr(value, "__code__", None) is code for value in closure)


def has_environ(frame: FrameType | None, end: FrameType | None) -> bool:
    """Return whether a frame from this one outwards, before `end`, has an environ among its variables."""
    while frame is not None and frame is not end:
        if any(isinstance(value, dict) and "wsgi.input" in value for value in frame.f_locals.values()):
            return True
        frame = frame.f_back
    return False
