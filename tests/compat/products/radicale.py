"""Radicale, a CalDAV server: a calendar and events, with a length and chunked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site

PACKAGES = ["radicale"]
CORE = True
LINES = """BEGIN:VCALENDAR VERSION:2.0 PRODID:tests BEGIN:VEVENT UID:{0} DTSTAMP:20260101T000000Z DTSTART:20260101T000000Z
SUMMARY:{0} END:VEVENT END:VCALENDAR"""
QUERY = """<c:calendar-query xmlns="DAV:" xmlns:c="urn:ietf:params:xml:ns:caldav"><prop><c:calendar-data/></prop>
<c:filter><c:comp-filter name="VCALENDAR"/></c:filter></c:calendar-query>"""


def application(folder: Path) -> Any:
    from radicale.app import Application
    from radicale.config import load

    configuration = load()
    values = {
        "storage": {"filesystem_folder": str(folder / "radicale")},
        "auth": {"type": "none"},
        "rights": {"type": "owner_only"},
    }
    configuration.update(values, "the tests", privileged=True)
    return Application(configuration)


def check_calendar(site: Site) -> Any:
    site.session.auth = ("a", "a")
    path = f"/a/{site.port}"
    headers = {"Content-Type": "text/calendar"}

    def event(name: str) -> bytes:
        return "\r\n".join([*LINES.format(name).split(), ""]).encode()

    found = [site.ask(f"{path}/", "MKCALENDAR").status_code]
    found.append(site.ask(f"{path}/1.ics", "PUT", data=event("1"), headers=headers).status_code)
    found.append(site.ask(f"{path}/2.ics", "PUT", data=iter([event("2")]), headers=headers).status_code)
    report = site.ask(f"{path}/", "REPORT", data=QUERY, headers={"Depth": "1"})
    found += [report.status_code, report.text.count("BEGIN:VEVENT"), site.ask(f"{path}/", "PROPFIND").status_code]
    return [*found, site.ask(f"{path}/1.ics", "DELETE").status_code, site.ask(f"{path}/").status_code]
