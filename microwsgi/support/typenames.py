"""Names for annotations. A type checker reads typenames.pyi: to import typing would cost 3 ms of the start-up time."""

from __future__ import annotations

Any = BinaryIO = NoReturn = Self = TypeGuard = WriteableBuffer = WritableStream = object
UNSET = None
"""None, for an attribute that is empty in some states. Its declared type is that of the states in which it is read."""
