"""The interfaces of connections and of TLS that the loop and the server use.

They are protocols, without a common base class, in connections.pyi: importing `typing` would cost 3 ms of the start-up time.
"""

from __future__ import annotations

Connection = object
Security = object
