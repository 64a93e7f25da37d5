"""`python -m microwsgi.options` prints docs/options.md; with the argument `keywords`, keywords.pyi."""

from __future__ import annotations

import sys

from microwsgi.options.document import documentation, keywords

if __name__ == "__main__":
    sys.stdout.write(keywords() if sys.argv[1:] == ["keywords"] else documentation())
