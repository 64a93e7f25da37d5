"""microwsgi's command line for a run under valgrind, which makes a process some 50 times slower.

What the server decides by time would be decided differently there: every request would seem to block, and the thread that
writes the access log would write more often for the same number of requests. So these times are longer here.
"""

from __future__ import annotations

from microwsgi.cli import main
from microwsgi.server import log_writer, pool

if __name__ == "__main__":
    pool.INLINE_LIMIT = pool.SLOW_REQUEST = 10.0
    log_writer.GATHER = 1.0
    main()
