"""Dash: the page, its scripts and a callback."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.compat.client import Site

PACKAGES = ["dash"]


def application(folder: Path) -> Any:
    from dash import Dash, Input, Output, dcc, html

    app = Dash(__name__)
    app.layout = html.Div([dcc.Input(id="a"), html.Div(id="b")])
    app.callback(Output("b", "children"), Input("a", "value"))(lambda value: f"got {value}")
    return app.server


def check_page_and_scripts(site: Site) -> Any:
    page = site.ask("/")
    scripts = re.findall(r'src="(/[^"]+\.js[^"]*)"', page.text)
    answers = [site.seen(re.sub(r"m\d+", "m1", path), fields=("Content-Type", "Content-Encoding")) for path in scripts]
    return [page.status_code, len(scripts) > 3, answers, site.ask("/_dash-layout").status_code]


def check_callback(site: Site) -> Any:
    call = {
        "output": "b.children",
        "outputs": {"id": "b", "property": "children"},
        "inputs": [{"id": "a", "property": "value", "value": "ä"}],
        "changedPropIds": ["a.value"],
    }
    return site.seen("/_dash-update-component", "POST", json=call)
