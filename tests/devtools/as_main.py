"""A module that is run with `python -m`, and prints its stack."""

from __future__ import annotations

from microwsgi.devtools.stack import capture

for frame in capture():
    print(frame.module, frame.function)
