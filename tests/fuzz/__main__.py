"""Coverage-guided fuzzing of head, chunks and handler: python -m tests.fuzz [SECONDS] [NAME ...].

Each property of tests/fuzz/properties.py runs for that many seconds in a process of its own. It begins with the wire cases
and what earlier runs have found interesting (.fuzz/NAME). A finding is a file in .fuzz/findings: it becomes a wire case.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["microwsgi"]):
    from tests.fuzz.properties import PROPERTIES, seeds

FOLDER = Path(".fuzz")
LONGEST = 1024
"""Octets of an input."""


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one property; does not return."""
    corpus, findings = FOLDER / name, FOLDER / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    for number, data in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(data)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-artifact_prefix={findings}/{name}-",
        "-timeout=10",
    ]
    atheris.Setup([sys.argv[0], *options, "-print_final_stats=1", "-verbosity=0", str(corpus)], PROPERTIES[name])
    atheris.Fuzz()


def main(arguments: list[str]) -> int:
    """Fuzz each property in its turn; 1 if there is a finding."""
    if arguments[:1] == ["--only"]:
        fuzz(arguments[1], int(arguments[2]))
    seconds = arguments.pop(0) if arguments and arguments[0].isdigit() else "60"
    status = 0
    for name in arguments or PROPERTIES:
        sys.stdout.write(f"{name}: {seconds} s\n")
        sys.stdout.flush()
        done = subprocess.run([sys.executable, "-m", "tests.fuzz", "--only", name, seconds], check=False)
        status = status or int(done.returncode != 0)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
