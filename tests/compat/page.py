"""The page docs/compatibility.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.compat.servers import SERVERS

HEAD = """# Compatibility

Real products and clients are run on microwsgi and on other servers, and their responses are compared. `make compat` makes this
page; [development](development.md) shows how a product is added. A response of microwsgi counts as right if it equals that of
gunicorn (gthread) or of waitress; a peer whose check failed is left out. A difference needs a reason in the product's module,
or the run fails.

The servers `serve`, `dev`, `workers` (`--workers 2`) and `tls` (`--tls`) are microwsgi.

"""


def rows(text: str, title: str) -> dict[str, list[str]]:
    """Return the rows of the table below a title of a page, by their first cell."""
    found: dict[str, list[str]] = {}
    for line in text.partition(f"\n## {title}\n" if title else "\n|---")[2].partition("\n## ")[0].splitlines():
        if line.startswith("| "):
            found.setdefault(line[2:].partition(" |")[0], []).append(line)
    return found


def page(results: Sequence[Any], system: str, before: str = "") -> str:
    """Return the page as Markdown. A product without a recorded run keeps the rows that it has in the page `before`."""
    old, old_differences, old_failures = (rows(before, title) for title in ("", "Differences", "Failures of peers"))
    lines = [
        f"{HEAD}Last run with {system}.\n",
        "| product | versions | date | checks | result |",
        "|---|---|---|---|---|",
    ]
    differences, failures, left_out = [], [], []
    for result in results:
        if result.left_out and result.summary in old:
            lines += old[result.summary]
            differences += old_differences.get(result.name, [])
            failures += old_failures.get(result.name, [])
            continue
        if result.left_out:
            left_out.append(f"- {result.summary} {result.left_out}")
            continue
        versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
        count = max(map(len, result.answers.values()))
        differing = len({check for _, check, _ in result.differences})
        verdict = f"{differing} {'differs' if differing == 1 else 'differ'}: see below" if differing else "same"
        if result.faults:
            verdict = f"**{len(result.faults)} faults**"
        lines.append(f"| {result.summary} | {versions} | {result.date} | {count} | {verdict} |")
        for check, reason in dict.fromkeys((check, reason) for _, check, reason in result.differences):
            on = [server for server, *rest in result.differences if rest == [check, reason]]
            differences.append(f"| {result.name} | {check} | {', '.join(on)} | {reason} |")
        passed = {check for server, found in result.answers.items() if SERVERS[server].ours for check in passing(found)}
        for server, answers in result.answers.items():
            failed = [check for check in answers if check not in passing(answers) and check in passed | {"start"}]
            if failed and not SERVERS[server].ours:
                failures.append(f"| {result.name} | {server} | {', '.join(failed)} |")
    lines += ["", "## Differences", "", "| product | check | server | reason |", "|---|---|---|---|", *differences]
    lines += ["", "## Failures of peers", "", "Checks that pass on microwsgi and fail on another server.", ""]
    lines += ["| product | server | checks |", "|---|---|---|", *failures]
    lines += ["", "## Not run", "", *(left_out or ["Nothing was left out."])]
    return "\n".join(lines) + "\n"


def passing(answers: dict[str, Any]) -> list[str]:
    """Return the names of the checks that have not failed."""
    return [check for check, answer in answers.items() if not str(answer).startswith("FAILED")]
