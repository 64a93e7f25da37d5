"""Where a request enters your code: each call into it, seen from outside, and which of them made the response.

A profile function (sys.setprofile, which every Python has had) is told of each call that a thread begins or ends. It adds no
frame, wants nothing of the application, and no knowledge of its framework:

    with Tracer() as tracer, a server that starts its threads in here:
        one request
    tracer.frames()      the stack from the socket to your function

*Your function* is the one that made the response. That is the last one that was called by code which isn't yours, before
start_response was called, and that returned something: not None, as hooks and listeners do, nor what it was given, as filters
of a finished response do; or, if there is no such, the one that raised. What it calls in turn (a template's filters, a decoder
of JSON) is not looked at, unless the request is passed on there: a frame between has an environ too (middleware around a
framework), or the same object is returned (a framework's own kind of middleware), or it is what a decorator of yours wraps.
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
"""The instructions at which a function ends that does not raise: for those that do, too, a profile function gets None."""


class Call:
    """A call into your code: the stack when it began, and what became of it."""

    def __init__(self, frame: FrameType, outer: Call | None, *, passed_on: bool) -> None:
        self.frames = capture(frame)
        self.outer = outer  # your call in which this one was made, perhaps by a framework between
        self.passed_on = passed_on  # it is for the request that `outer` was called for
        self.frame: FrameType | None = frame
        self.given = list(frame.f_locals.values())
        self.returned: object = None
        self.raised = 0  # the line at which it ended, if it raised

    @property
    def function(self) -> Frame:
        """Its own frame."""
        return self.frames[-1]

    def end(self, frame: FrameType, returned: object) -> None:
        """Note what it returned, and let go of what it was given."""
        if frame.f_code.co_code[frame.f_lasti] not in RETURNS:
            self.raised = frame.f_lineno
        if not any(returned is value for value in self.given):
            self.returned = returned
        self.frame, self.given = None, []

    def continues(self, outer: Call) -> bool:
        """Whether it did for the request what `outer` was called for."""
        return self.outer is outer and (self.passed_on or self.returned is outer.returned)


class Tracer:
    """All calls into your code by threads that begin while this is on."""

    def __init__(self) -> None:
        self.by_thread: dict[int, list[Call]] = {}
        self.responses: dict[
            int, tuple[int, list[Frame]]
        ] = {}  # of a thread: calls by then, and the stack, at its first
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
        """The profile function."""
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
        """Whether its function is in a file of yours; a module that is being imported is not called."""
        code = frame.f_code
        if code not in self.mine:
            named = not code.co_filename.startswith("<") and code.co_name != "<module>"
            self.mine[code] = named and owner(str(frame.f_globals.get("__name__", "?")), code) == YOURS
        return self.mine[code]

    def begin(self, frame: FrameType) -> None:
        """One of your functions was called: note it, if it was not by another one of yours."""
        caller = frame.f_back
        if caller and self.yours(caller) and not wraps(caller, frame.f_code):
            return
        calls = self.by_thread.setdefault(threading.get_ident(), [])
        outer = next((call for call in reversed(calls) if call.frame is not None), None)
        passed_on = outer is not None and (caller is outer.frame or has_environ(caller, outer.frame))
        calls.append(Call(frame, outer, passed_on=passed_on))

    def forget(self) -> None:
        """Begin anew on this thread, for the next request."""
        self.by_thread.pop(threading.get_ident(), None)
        self.responses.pop(threading.get_ident(), None)

    # --- What is asked of it ----------------------------------------------------------------------------------------

    @property
    def thread(self) -> int | None:
        """The one that called start_response, or at least you."""
        return next(iter([*self.responses, *self.by_thread]), None)

    def all(self, thread: int | None = None) -> list[Call]:
        """Every call into your code on a thread, the request's if none is named, in their order."""
        thread = thread or self.thread
        return self.by_thread.get(thread, []) if thread else []

    def maker(self, thread: int | None = None) -> Call | None:
        """The call that made the response; None if none of yours did."""
        thread = thread or self.thread
        calls = self.all(thread)
        if thread in self.responses:
            calls = calls[: self.responses[thread][0]]
            made = [call for call in calls if call.returned is not None] or [call for call in calls if call.raised]
        else:  # a handler class of http.server, or nothing but a failure
            made = [call for call in calls if call.returned is not None] or calls
        found = next((call for call in reversed(made) if not within(call, made)), None)
        while inner := next((call for call in reversed(made) if found and call.continues(found)), None):
            found = inner
        return found

    def frames(self, name: str = "") -> list[Frame]:
        """The stack from the socket to your function, or to the last one of yours that is called `name`.

        Where nothing of yours ran, to who called start_response. Raises LookupError for a name that was not called.
        """
        if name:
            for call in reversed(self.all()):
                if name in {call.function.function, call.function.function.rpartition(".")[2]}:
                    return call.frames
            raise LookupError(name)
        maker = self.maker()
        return maker.frames if maker else self.responses.get(self.thread or 0, (0, []))[1]


def starts_response(frame: FrameType) -> bool:
    """Whether it is start_response, a server's or that of middleware: a function that is given a status and fields."""
    code = frame.f_code
    given = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount]]
    return any(
        isinstance(status, str) and status[:3].isdigit() and status[3:4] == " " and isinstance(fields, list)
        for status, fields in pairwise(given)
    )


def within(call: Call, others: list[Call]) -> bool:
    """Whether it was made in the course of one of the others."""
    outer = call.outer
    while outer is not None and outer not in others:
        outer = outer.outer
    return outer is not None


def wraps(caller: FrameType, code: CodeType) -> bool:
    """Whether the caller is a decorator's function around this code: it has it from where it was defined."""
    closure = (caller.f_locals.get(name) for name in caller.f_code.co_freevars)
    return any(getattr(value, "__code__", None) is code for value in closure)


def has_environ(frame: FrameType | None, end: FrameType | None) -> bool:
    """Whether a frame from this one outwards, before `end`, has an environ among its variables."""
    while frame is not None and frame is not end:
        if any(isinstance(value, dict) and "wsgi.input" in value for value in frame.f_locals.values()):
            return True
        frame = frame.f_back
    return False
