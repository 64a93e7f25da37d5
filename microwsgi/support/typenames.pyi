from typing import Any as Any
from typing import BinaryIO as BinaryIO
from typing import NoReturn as NoReturn
from typing import Protocol
from typing import Self as Self
from typing import TypeGuard as TypeGuard

from _typeshed import WriteableBuffer as WriteableBuffer

UNSET: Any

class WritableStream(Protocol):
    # A text stream, as the log and the console write to it: `print` asks for no more.
    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...
    def fileno(self) -> int: ...
