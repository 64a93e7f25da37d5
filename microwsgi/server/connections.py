"""The types of connections and of TLS, as the loop and the server know them, are in connections.pyi.

They are protocols: there is no common base. The module typing would cost 3 ms of the start-up time.
"""

from __future__ import annotations

Connection = object
Security = object
