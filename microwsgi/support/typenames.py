"""Names for annotations. Type checkers read typenames.pyi; importing typing would take 3 ms of the start-up time."""

from __future__ import annotations

Any = BinaryIO = NoReturn = Self = TypeGuard = WriteableBuffer = WritableStream = object
UNSET = None
"""None, for an attribute that is unset in some states. Type checkers see the type that it has in the others."""
