"""microwsgi's command line for a run under valgrind, which makes a process about 50 times slower.

The server's decisions that depend on time would be different under valgrind: each request would seem to block, and the thread
that writes the access log would write more often for the same number of requests. Therefore the time limits are longer here.
"""

from __future__ import annotations

from microwsgi.cli import main
from microwsgi.server import log_writer, pool

if __name__ == "__main__":
    pool.INLINE_LIMIT = pool.SLOW_REQUEST = 10.0
    log_writer.GATHER = 1.0
    main()
