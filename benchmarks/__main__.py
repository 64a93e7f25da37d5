"""`python -m benchmarks`: check that the packages are there, then run benchmarks.command."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

MISSING = """\
The benchmarks need packages that are not installed here: {}.
  Try:  make bench ARGS="{}"   (installs them into .venv)
        pip install '.[bench]'"""


def main() -> int:
    missing = [name for name in ("rich", "werkzeug") if find_spec(name) is None]
    if missing:
        raise SystemExit(MISSING.format(", ".join(missing), " ".join(sys.argv[1:])))
    code: int = import_module("benchmarks.command").main()
    return code


if __name__ == "__main__":
    sys.exit(main())
