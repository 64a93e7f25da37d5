"""Run all conversations with both sides, and print each difference: `make compare`, ARGS="--only REGEX --seed N".

Exit status 1 if a difference is not explained in explained.py, or an explanation explains nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from tests.comparison.client import Outcome, converse
from tests.comparison.conversations import Conversation, conversations, servers
from tests.comparison.explained import EXPLANATIONS

BASE = "bccccaf"
"""Version 0.1."""
ROOT = Path(__file__).parents[2]
CLIENTS = 24
"""Conversations at a time."""
REPEATS = 2
"""How often a conversation that differs is repeated: what differs once and not again depends on time, not on the code."""
MOST_LATE = 10
"""How many conversations may reach the time limit; the others are not run then."""
NOT_RUN = Outcome(b"", "not run, since too many did not end")
SHOWN = 60
"""Rows of unexplained differences that are printed."""
AROUND = 50
"""Characters of an excerpt before and behind the first difference."""

VARYING = (
    (rb"Date: [^\r\n]* GMT", b"Date: (date)"),
    (rb"(?<=\(id )[0-9a-f]{8}\b", b"(number)"),
)
"""What differs between two equal responses."""
VARYING_LOG = (
    (r"(127\.\d+\.\d+\.\d+):\d+", r"\1:PORT"),
    (r"failed \([0-9a-f]{8}\)", "failed (number)"),
    (r"0x[0-9a-f]+", "0x"),
    (r"(?m)^(?: .*|Traceback .*|During handling .*|The above exception .*|\s*)\n?", ""),
)
"""What differs between two equal entries of the log; of a traceback its last line is compared."""
REFUSAL = re.compile(
    rb"HTTP/1.1 ([45]\d\d) [^\r]*\r\nContent-Type: text/plain; charset=utf-8\r\n"
    rb"(?:[^\r]+\r\n)*?Content-Length: (\d+)\r\n(?:[^\r]+\r\n)*\r\n"
)
"""The head of a refusal by the server."""
REASONS = (
    (r"(PORT (?:\S.*?)? ?(?:\d\d\d|-): ).*", r"\1(text)"),
    (r"(?m)^((?:\w+\.)*(?:ApplicationError|ClientError|Disconnected): ).*", r"\1(text)"),
    (r"(PORT) (?:speaks TLS|sent a TLS handshake).*", r"\1 (text)"),
)
"""The texts of the server in the log."""
PART = (r"(PORT ).*?( \d\d\d: )", r"\1\2")
"""The part of a message that the log quotes: more or less of one that arrives in pieces."""


class Difference(NamedTuple):
    """One aspect in which the sides differ in one conversation."""

    aspect: str
    name: str
    old: str
    new: str
    sent: str = ""


class Side:
    """The process of one side."""

    def __init__(self, checkout: Path, certificate: str) -> None:
        specification = json.dumps({"servers": servers(), "certificate": certificate})
        environment = {**os.environ, "PYTHONPATH": f"{checkout}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
        self.checkout = checkout
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.comparison.side", specification],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=checkout,
            text=True,
        )
        self.events: dict[str, list[str]] = {}
        self.log: dict[str, list[str]] = {}
        self.figures: dict[str, object] = {}

    def start(self) -> dict[str, int]:
        """The port of each server, once all of them listen."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"The side of {self.checkout} did not start: exit status {self.process.wait()}")
        found = json.loads(line)
        package = Path(found["package"]).resolve()
        if package.parent != self.checkout.resolve():
            sys.exit(f"The side of {self.checkout} serves with {package}")
        ports: dict[str, int] = found["ports"]
        return ports

    def stop(self) -> None:
        """Stop, and take the report."""
        output, _ = self.process.communicate("")
        if not output:
            self.figures = {"exit status": self.process.returncode}
            return
        report = json.loads(output.splitlines()[-1])
        self.events, self.figures = report["events"], report["figures"]
        for entry in report["log"]:
            address = re.search(r"127\.\d+\.\d+\.\d+", entry)
            text = entry
            for pattern, replacement in VARYING_LOG:
                text = re.sub(pattern, replacement, text)
            if text.strip():
                self.log.setdefault(address[0] if address else "", []).append(text.strip())

    def counts(self) -> str:
        """The figures of all servers."""
        return json.dumps(self.figures, indent=0)

    def rest(self) -> str:
        """The figures without the numbers of requests and errors."""
        return re.sub(r'\n"(?:requests|errors)": \d+,', "", self.counts())

    def kill(self) -> None:
        """End the process, whatever it is at."""
        self.process.kill()
        self.process.communicate()


def address(number: int) -> str:
    """The address that a conversation comes from: it names the conversation in the events and in the log."""
    number += 256
    return f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def normal(data: bytes) -> str:
    """A response without what varies, and without the texts of refusals, which were reworded after version 0.1.

    The text and its length are left out; status and fields are compared. An answer to HEAD has the length alone.
    """
    place, kept = 0, b""
    while found := REFUSAL.search(data, place):
        kept += data[place : found.start(2)] + b"(length)" + data[found.end(2) : found.end()]
        place = found.end()
        if data.startswith(found[1], place):  # a text begins with its status
            kept += b"(text)"
            place += int(found[2])
    data = kept + data[place:]
    for pattern, replacement in VARYING:
        data = re.sub(pattern, replacement, data, flags=re.DOTALL)
    return data.decode("latin-1")


def events(side: Side, client: str) -> str:
    """The calls and the exceptions that the application saw, without the texts of our exceptions."""
    text = "\n".join(side.events.get(client, []))
    return re.sub(r"(raises (?:Disconnected|RequestTimeout|ClientError|ApplicationError): ).*", r"\1(text)", text)


def entries(side: Side, client: str, *, whole: bool) -> str:
    """The entries of the log for a client, without the server's texts."""
    text = "\n".join(side.log.get(client, []))
    for pattern, replacement in REASONS if whole else (*REASONS, PART):
        text = re.sub(pattern, replacement, text)
    return text


def excerpt(text: str, place: int) -> str:
    """The text around a place."""
    return text[max(place - AROUND, 0) : place + AROUND]


def difference(aspect: str, name: str, old: str, new: str) -> Iterator[Difference]:
    """The difference between two texts, if there is one."""
    if old != new:
        place = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        yield Difference(aspect, name, excerpt(old, place), excerpt(new, place))


def run(
    conversations: list[Conversation], checkouts: tuple[Path, Path], certificate: str
) -> dict[int, list[Difference]]:
    """Run the conversations with both sides; the differences of each, under -1 those of the sides themselves."""
    sides = [Side(checkout, certificate) for checkout in checkouts]
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        ports = [side.start() for side in sides]

        late: list[int] = []

        def both(number: int) -> list[Outcome]:
            if len(late) >= MOST_LATE:
                return [NOT_RUN, NOT_RUN]
            each = conversations[number]
            secure = context if each.server == "tls" else None
            found = [converse(known[each.server], address(number), each.steps, secure) for known in ports]
            late.extend(number for outcome in found if outcome.end == "limit")
            return found

        with ThreadPoolExecutor(CLIENTS) as pool:
            outcomes = list(pool.map(both, range(len(conversations))))
        for side in sides:
            side.stop()
    finally:
        for side in sides:
            side.kill()
    found: dict[int, list[Difference]] = {}
    for number, (each, (first, second)) in enumerate(zip(conversations, outcomes, strict=True)):
        name, client = f"{each.name} [{each.server}, {each.variant}]", address(number)
        differences = [
            *difference("response", name, *(normal(outcome.data) for outcome in (first, second))),
            *(
                difference("end", name, first.end, second.end)
                if each.whole or "limit" in {first.end, second.end}
                else ()
            ),
            *difference("events", name, *(events(side, client) for side in sides)),
            *difference("log", name, *(entries(side, client, whole=each.whole) for side in sides)),
        ]
        if first.end == second.end and first.end in {"limit", NOT_RUN.end}:
            differences.append(Difference("limit", name, first.end, second.end))
        if differences:
            sent = b"".join(step.data for step in each.steps if step.do != "wait").decode("latin-1")
            found[number] = [each._replace(sent=sent) for each in differences]
    # Where a conversation differs, the counts may follow.
    figures = [side.counts() if not found else side.rest() for side in sides]
    of_sides = [
        *difference("log", "without a client", *("\n".join(side.log.get("", [])) for side in sides)),
        *difference("figures", "after all", *figures),
    ]
    return {**found, -1: of_sides} if of_sides else found


def compare(
    conversations: list[Conversation], checkouts: tuple[Path, Path], certificate: str
) -> tuple[list[Difference], list[Difference]]:
    """The differences that repeat themselves, and those that do not."""
    found = run(conversations, checkouts, certificate)
    lasting = found.pop(-1, [])
    unstable: list[Difference] = []
    for _ in range(REPEATS):
        if not found:
            break
        numbers = sorted(found)
        again = run([conversations[number] for number in numbers], checkouts, certificate)
        again.pop(-1, None)
        kept = {number: again[place] for place, number in enumerate(numbers) if place in again}
        unstable += [difference for number in numbers if number not in kept for difference in found[number]]
        found = kept
    return [*lasting, *(difference for differences in found.values() for difference in differences)], unstable


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The files of a commit in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        archive = subprocess.run(["git", "archive", commit, "microwsgi"], cwd=ROOT, check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


def shown(difference: Difference) -> str:
    """The difference, for people."""
    return f"{difference.name}\n    old {difference.old!r}\n    new {difference.new!r}"


def report(differences: list[Difference], unstable: list[Difference], entire: bool) -> int:
    """Print the differences; the exit status."""
    explained: dict[int, list[Difference]] = defaultdict(list)
    unexplained: list[Difference] = []
    for each in differences:
        fits = [n for n, entry in enumerate(EXPLANATIONS) if entry.fits(*each)]
        for number in fits:
            explained[number].append(each)
        if not fits:
            unexplained.append(each)
    for number, found in sorted(explained.items()):
        print(f"explained, {len(found)} times: {EXPLANATIONS[number].reason}\n    for example {found[0].name}")
    unused = [entry for number, entry in enumerate(EXPLANATIONS) if number not in explained] if entire else []
    for entry in unused:
        print(f"This explanation explains nothing: {entry}")
    for each in unexplained[:SHOWN]:
        print(f"{each.aspect} differs: {shown(each)}")
    if len(unexplained) > SHOWN:
        print(f"... and {len(unexplained) - SHOWN} more")
    for each in unstable[:SHOWN]:
        print(f"{each.aspect} differed once, and not when it was repeated: {shown(each)}")
    print(
        f"{len(unexplained)} unexplained differences, {len(differences) - len(unexplained)} explained, "
        f"{len(unused)} explanations without a difference, {len(unstable)} differences that were not repeated"
    )
    return 1 if unexplained or unused else 0


def main() -> int:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="another seed makes other messages and other cuts")
    parser.add_argument("--only", default="", metavar="REGEX", help="run only conversations whose name matches")
    parser.add_argument("--base", default=BASE, help="the commit to compare with")
    arguments = parser.parse_args()
    chosen = [
        each
        for each in conversations(arguments.seed)
        if re.search(arguments.only, f"{each.name} [{each.server}, {each.variant}]")
    ]
    start = monotonic()
    with checkout(arguments.base) as old, tempfile.TemporaryDirectory() as folder:
        certificate = str(Path(folder, "certificate.pem"))
        import trustme  # here: it has no wheels for some Pythons

        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        differences, unstable = compare(chosen, (old, ROOT), certificate)
    status = report(differences, unstable, entire=not arguments.only)
    print(f"{len(chosen)} conversations, {monotonic() - start:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
