"""The report as one HTML file with inline pictures, without scripts and network access, for light and dark themes."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from benchmarks import compare, machine, pictures
from benchmarks.latency import OURS, PEER, Result
from benchmarks.report import Report
from benchmarks.stacks import Depth
from benchmarks.terminal import (
    ABOUT_THROUGHPUT,
    CHANGES,
    FIGURES,
    LATENCIES,
    TRANSFERS,
    UNDECIDED,
    VERDICT_TEXTS,
    change_cells,
    limit_text,
    range_text,
)
from benchmarks.throughput import Result as RowResult

CSS = Path(__file__).with_name("page.css")


def write(path: Path, report: Report, old: Report | None = None) -> None:
    """Write the page, with the changes since an old report if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html(report, old))


def html(report: Report, old: Report | None = None) -> str:
    """Return the page."""
    drawn = pictures.draw(report)
    sections = [
        failures(report),
        headline(report),
        stacks(report, drawn),
        latency(report, drawn),
        throughput(report, drawn),
    ]
    if old:
        sections.append(changes(old, report))
    sections.append(method(report))
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>microwsgi benchmarks</title>'
        f'<meta name="viewport" content="width=device-width"><style>{CSS.read_text()}</style>\n'
        f"<h1>microwsgi benchmarks</h1>\n<p class=muted>{escape(machine.describe_run(report.machine))}</p>\n"
        + "\n".join(section for section in sections if section)
        + "\n</html>\n"
    )


def headline(report: Report) -> str:
    """Return the most important figures: stack depths, and the ratio of median latencies."""
    facts = [
        (str(len(report.stacks[name].frames)), f"stack frames to the view: {name}")
        for name in (OURS, "Werkzeug", "Flask", "Django")
        if name in report.stacks
    ]
    found = report.latency.get("hello")
    if found and (ratio := found.ratio(OURS, "p50")) and not report.noise.too_noisy():
        low, high = ratio[1]
        facts.append((f"{ratio[0]:.2f}", f"median latency relative to {PEER}, hello world ({low:.2f}-{high:.2f})"))
    items = "".join(f"<li><b>{escape(value)}</b>{escape(label)}" for value, label in facts)
    return f"<ul class=facts>{items}</ul>" if items else ""


def failures(report: Report) -> str:
    """Return the failures, for the beginning of the page."""
    return "".join(
        f"<p class=bad><b>Failed</b>: {escape(where)}: {escape(reason)}</p>"
        for where, reason in report.failures().items()
    )


def figure(drawn: dict[str, str], name: str) -> str:
    return f"<figure>{drawn[name]}</figure>" if name in drawn else ""


def table(headings: Iterable[str], rows: Iterable[tuple[str, Iterable[str]]], caption: str = "") -> str:
    """Return a table. The first cell of each row is a name; rows of microwsgi are highlighted. The other cells are HTML."""
    head = "".join(f"<th>{escape(heading)}" for heading in headings)
    body = "".join(
        f"<tr{' class=ours' if name.startswith(OURS) else ''}><td>{escape(name)}{''.join(f'<td>{cell}' for cell in cells)}"
        for name, cells in rows
    )
    title = f"<h3>{escape(caption)}</h3>" if caption else ""
    return f"{title}<div class=scroll><table><tr>{head}{body}</table></div>"


def stacks(report: Report, drawn: dict[str, str]) -> str:
    if not report.stacks:
        return ""
    return (
        "<h2>Stacks</h2><p>Stack frames, counted in a request over a socket: from the first frame of the thread to the "
        "WSGI application, or to the view if a framework is named. Lines: the lines that a debugger steps through from "
        "the client's <code>connect</code> to that function. Files: the files that contain them. Compiled code has no lines."
        f"</p>{figure(drawn, 'towers')}{figure(drawn, 'lines')}{stack_table(report)}"
        f"<h3>All frames</h3><div class=lists>{''.join(map(frame_list, report.stacks.values()))}</div>"
    )


def stack_table(report: Report) -> str:
    rows = []
    for name, depth in report.stacks.items():
        found = depth.lines
        counted = [f"{found['lines']:,}", str(found["calls"]), str(len(found["files"]))] if found else ["", "", ""]
        owners = [str(count) for count in depth.owners().values()]
        rows.append((name, [f"<b>{len(depth.frames)}</b>", *owners, str(len(depth.traceback)), *counted]))
    headings = ["", "frames", "stdlib", "server", "framework", "yours", "traceback frames", "lines", "calls", "files"]
    return table(headings, rows)


def frame_list(depth: Depth) -> str:
    items = "".join(
        f'<li><span class=swatch style="background:{pictures.OWNERS[frame.owner]}"></span>{escape(frame.module)} '
        f"<b>{escape(frame.function)}</b> <span class=muted>{escape(frame.file)}:{frame.line}</span>"
        for frame in depth.frames
    )
    summary = f"{escape(depth.name)}: {len(depth.frames)} frames"
    return f"<details><summary>{summary}</summary><ol class=frames>{items}</ol></details>"


def latency(report: Report, drawn: dict[str, str]) -> str:
    if not report.latency:
        return ""
    reason = report.noise.too_noisy()
    noise = (
        f"<p class=bad>Too noisy for a verdict: {escape(reason)}.</p>"
        if reason
        else f"<p class=muted>Noise: the bare socket's medians spread by {report.noise.spread():.0%}; "
        f"{report.noise.wait():.1%} of the time was spent waiting for a core.</p>"
    )
    tables = "".join(latency_table(result) for result in report.latency.values() if result.names())
    return (
        "<h2>Latency</h2><p>Time from sending the request to the last byte of the response (for new connections from the "
        "<code>connect</code>; at a fixed rate from the intended send time). The bare socket sends a fixed response to any "
        "input: its latency is the share of the client and the kernel.</p>"
        f"{noise}{figure(drawn, 'percentiles')}{figure(drawn, 'violins')}{tables}"
    )


def latency_table(result: Result) -> str:
    rows = []
    for name in result.names():
        cells = []
        for column in LATENCIES:
            _, factor, form = FIGURES[column]
            found = result.figure(name, column)
            if not found:
                cells.append("")
                continue
            low, high = (format(bound * factor, form) for bound in found[1])
            cells.append(f'<span title="range: {low} to {high}">{format(found[0] * factor, form)}</span>')
        ratio = result.ratio(name, "p50")
        cells.append(f"{ratio[0]:.2f} <span class=muted>({ratio[1][0]:.2f}-{ratio[1][1]:.2f})</span>" if ratio else "")
        rows.append((name, cells))
    headings = ["", *(FIGURES[column][0] for column in LATENCIES), f"p50 relative to {PEER}"]
    return table(headings, rows, result.workload.title) + left_out(result.absences())


def left_out(reasons: dict[str, str]) -> str:
    return "".join(
        f"<div class=muted>{escape(name)} left out: {escape(reason)}</div>" for name, reason in reasons.items()
    )


def throughput(report: Report, drawn: dict[str, str]) -> str:
    rows = [row for row in report.throughput.values() if row.names()]
    if not rows:
        return ""
    return f"<h2>Throughput and cost</h2><p>{escape(ABOUT_THROUGHPUT)}</p>{figure(drawn, 'throughput')}" + "".join(
        row_table(row) for row in rows
    )


def row_table(result: RowResult) -> str:
    labels = {**FIGURES, **(TRANSFERS if result.row.takes_size else {})}
    medians = {name: result.medians(name) for name in result.names()}
    seen = {each for found in medians.values() for each in found}
    if "requests" in seen:
        seen -= {"seconds", "errors"}
    shown = [each for each in labels if each in seen]
    rows = [
        (name, [format(found[each] * labels[each][1], labels[each][2]) if each in found else "" for each in shown])
        for name, found in medians.items()
    ]
    noisy = result.too_noisy()
    ratios = [
        (
            found["name"],
            [
                f"{found['ratio']:.2f}", range_text(found), str(found["rounds"]),
                *(limit_text(found, each) for each in ("bar", "aim")),
                f"({VERDICT_TEXTS[found['verdict']]})" if noisy and found["verdict"] else verdict(found["verdict"]),
            ],
        )
        for found in result.ratios()
    ]  # fmt: skip
    warning = f"<p class=bad>Noisy: {escape(noisy)}.</p>" if noisy else ""
    bars = table(["microwsgi", "ratio or value", "range", "rounds", "bar", "aim", ""], ratios) if ratios else ""
    return (
        table(["", *(labels[each][0] for each in shown)], rows, result.row.title)
        + warning
        + bars
        + left_out(result.absences())
    )


def verdict(word: str) -> str:
    style = "bad" if word in ("below", "worse") else "muted" if word in (*UNDECIDED, "short") else "good"
    return f"<span class={style}>{VERDICT_TEXTS.get(word, word)}</span>"


def changes(old: Report, new: Report) -> str:
    found = compare.changes(old, new)
    rows = []
    for each in found:
        name, *cells, word = change_cells(each)
        rows.append((name, [*cells, verdict(word) if word in ("better", "worse") else word]))
    warnings = "".join(f"<p class=bad>{escape(each)}</p>" for each in compare.differences(old, new))
    legend = f"<p class=muted>{escape(compare.explanation(found))}</p>"
    return f"<h2>Changes since {escape(str(old.machine['date']))}</h2>{warnings}{legend}" + table(CHANGES, rows)


def method(report: Report) -> str:
    return (
        f"<h2>Method</h2><p>Command: <code>{escape(str(report.machine['command']))}</code>. The server runs on one core, the "
        "client on another. Each round starts new processes and measures the servers one after another, in random order. "
        "Figures are medians over the rounds, ratios are computed within each round, and ranges are from the lowest round to "
        "the highest. Processor time is that of the server process and its children, in all threads, as counted by the "
        "kernel.</p>" + left_out(report.absences())
    )
