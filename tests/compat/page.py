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


def page(results: Sequence[Any], system: str) -> str:
    """Return the page as Markdown."""
    lines = [
        f"{HEAD}Last run with {system}.\n",
        "| product | versions | date | checks | result |",
        "|---|---|---|---|---|",
    ]
    run = [result for result in results if not result.left_out]
    for result in run:
        versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
        count = max(map(len, result.answers.values()))
        differing = len({check for _, check, _ in result.differences})
        verdict = f"{differing} {'differs' if differing == 1 else 'differ'}: see below" if differing else "same"
        if result.faults:
            verdict = f"**{len(result.faults)} faults**"
        lines.append(f"| {result.summary} | {versions} | {result.date} | {count} | {verdict} |")
    lines += ["", "## Differences", "", "| product | check | server | reason |", "|---|---|---|---|"]
    for result in run:
        for check, reason in dict.fromkeys((check, reason) for _, check, reason in result.differences):
            on = [server for server, *rest in result.differences if rest == [check, reason]]
            lines.append(f"| {result.name} | {check} | {', '.join(on)} | {reason} |")
    lines += ["", "## Failures of peers", "", "Checks that pass on microwsgi and fail on another server.", ""]
    lines += ["| product | server | checks |", "|---|---|---|"]
    for result in run:
        for server, answers in result.answers.items():
            failed = [check for check, answer in answers.items() if str(answer).startswith("FAILED")]
            if failed and not SERVERS[server].ours:
                lines.append(f"| {result.name} | {server} | {', '.join(failed)} |")
    lines += ["", "## Not run", ""]
    lines += [f"- {result.summary} {result.left_out}" for result in results if result.left_out] or [
        "Nothing was left out."
    ]
    return "\n".join(lines) + "\n"
