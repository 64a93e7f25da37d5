"""Applications that do to their process what applications should not do, each in a few lines."""

from __future__ import annotations

from collections import namedtuple
from textwrap import dedent

Hostile = namedtuple("Hostile", ("code", "refused", "left"), defaults=("", ""))  # noqa: PYI024 - a row of a table
"""What runs at import; the message with which it is refused, or "" if it is served; what keeps the process at its end."""

APPLICATION = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""

LEFT = r"has served its last request and is still running"

SERVED = {
    # Threads, pools and processes.
    "threads that do not end": """
        import threading, time
        for _ in range(5): threading.Thread(target=time.sleep, args=(1e6,)).start()
        """,
    "a daemon thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()",
    "an event loop in a thread": """
        import asyncio, threading
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever).start()
        """,
    "a pool of threads at work": """
        import time
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)
        pool.submit(time.sleep, 1e6)
        """,
    "a pool of forked processes": """
        import multiprocessing
        pool = multiprocessing.get_context("fork").Pool(2)
        assert pool.map(abs, [-1, -2]) == [1, 2]
        """,
    "an executor of processes": """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
        assert pool.submit(pow, 2, 3).result() == 8
        """,
    "a daemonic process": """
        import multiprocessing, time
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(1e6,), daemon=True).start()
        """,
    "a process that is no daemon": """
        import multiprocessing, time
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(1e6,)).start()
        """,
    "a queue that nobody reads": """
        import multiprocessing
        queue = multiprocessing.get_context("fork").Queue()
        queue.put(b"x" * 1_000_000)
        """,
    "a fork that ends": "import os\npid = os.fork()\nif not pid: os._exit(0)\nos.waitpid(pid, 0)",
    "a fork that goes on as if it were the server": "import os\nos.fork()",
    "a fork that sleeps": "import os, time\nif not os.fork():\n    time.sleep(4)\n    os._exit(0)",
    "a session of its own": "import os\ntry: os.setsid()\nexcept OSError: pass",
    # The end.
    "an exit handler that hangs": "import atexit, time\natexit.register(time.sleep, 1e6)",
    "an exit handler that raises": "import atexit\natexit.register(lambda: 1 / 0)",
    # Signals.
    "ignored signals": """
        import signal
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD): signal.signal(each, signal.SIG_IGN)
        """,
    "handlers that exit": """
        import signal, sys
        for each in (signal.SIGINT, signal.SIGTERM): signal.signal(each, lambda *_: sys.exit(9))
        """,
    "blocked signals": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "an alarm every millisecond": """
        import signal
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        """,
    "a replaced signal.signal": "import signal\nsignal.signal = lambda *_: (_ for _ in ()).throw(ValueError('no'))",
    "faulthandler": "import faulthandler, signal\nfaulthandler.enable()\nfaulthandler.register(signal.SIGUSR1)",
    # Streams and descriptors.
    "no standard streams": "import sys\nsys.stdin = sys.stdout = sys.stderr = None",
    "closed standard streams": "import sys\nsys.stdout.close()\nsys.stderr.close()",
    "closed standard descriptors": "import os\nos.closerange(0, 3)",
    "streams without isatty and fileno": """
        import sys
        class Tee:
            def __init__(self, stream): self.stream = stream
            def write(self, text): return self.stream.write(text)
            def flush(self): self.stream.flush()
        sys.stdout, sys.stderr = Tee(sys.stdout), Tee(sys.stderr)
        """,
    "few descriptors": "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))",
    "a terminal's worth of output": """
        import sys, threading
        def talk():
            for _ in range(20000): print("x" * 60)
        threading.Thread(target=talk, daemon=True).start()
        """,
    # Folders and files.
    "another folder": "import os\nos.chdir('/')",
    "a folder that is gone": "import os, tempfile\nfolder = tempfile.mkdtemp()\nos.chdir(folder)\nos.rmdir(folder)",
    "files that nobody may read": "import os\nos.umask(0o777)",
    # The interpreter.
    "a sleep that does nothing": "import time\ntime.sleep = lambda *_: None",
    "a clock that stands still": "import time\ntime.monotonic = lambda: 0.0\ntime.time = lambda: 0.0",
    "no print": "import builtins\nbuiltins.print = None",
    "an environment that is empty": "import os\nos.environ.clear()",
    "an empty path of imports": "import sys\nsys.path.clear()",
    "modules that are forgotten": """
        import sys
        for name in list(sys.modules):
            if name.startswith("microwsgi"): del sys.modules[name]
        """,
    "little recursion": "import sys\nsys.setrecursionlimit(90)",
    "small stacks": "import threading\nthreading.stack_size(64 * 1024)",
    "warnings that are errors": "import warnings\nwarnings.simplefilter('error')",
    "sockets with a timeout": "import socket\nsocket.setdefaulttimeout(0.001)",
    "no garbage collector": "import gc\ngc.disable()",
    "hooks that are gone": "import sys, threading\nsys.excepthook = threading.excepthook = sys.unraisablehook = None",
    "a tracer": "import sys, threading\nsys.settrace(lambda *_: None)\nthreading.settrace(lambda *_: None)",
    "memory": "data = bytearray(200_000_000)",
}
"""All of these are served."""

NAMED = {
    "threads that do not end": "the thread Thread-",
    "an exit handler that hangs": "still running after",
    "a process that is no daemon": "the process ForkProcess-",
}
"""What keeps the process after its last request is named, where there is no parent."""

GREEN = """
    import _thread
    def start_new_thread(*_): raise RuntimeError("no thread is ever started")
    start_new_thread.__module__ = "gevent.thread"
    _thread.start_new_thread = start_new_thread
    """
REFUSED = {
    "green threads": (
        GREEN,
        r"main:app can't be served: the monkey patch of gevent has replaced Python's threads \(_thread.start_new_thread\)",
    ),
    "an end with code 0": ("import sys\nsys.exit(0)", "SystemExit|sys.exit"),
    "an end with a word": ("import sys\nsys.exit('bye')", "bye"),
    "an exception": ("1 / 0", "ZeroDivisionError"),
    "an interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt|Stopped immediately"),
}
"""These are not, with this message."""


def source(code: str) -> str:
    """A module with the application."""
    return dedent(code) + APPLICATION
