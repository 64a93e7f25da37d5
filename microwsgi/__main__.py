"""`python -m microwsgi`: the command line, for when the console script is not on the path."""

from __future__ import annotations

import sys

from microwsgi.cli import main

if __name__ == "__main__":
    sys.exit(main())
