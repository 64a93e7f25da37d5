"""TensorBoard: the page, its script and the list of plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site

PACKAGES = ["tensorboard", "setuptools<81"]


def application(folder: Path) -> Any:
    from tensorboard import default, program
    from tensorboard.backend import application as backend

    board = program.TensorBoard(plugins=default.get_plugins())
    (folder / "log").mkdir(exist_ok=True)
    board.configure(logdir=str(folder / "log"), load_fast="false")
    ingester = board._make_data_ingester()
    ingester.start()
    return backend.TensorBoardWSGIApp(
        board.flags,
        board.plugin_loaders,
        ingester.data_provider,
        board.assets_zip_provider,
        ingester.deprecated_multiplexer,
    )


def check_page(site: Site) -> Any:
    fields = ("Content-Type", "Content-Encoding")
    paths = ("/", "/index.js", "/data/plugins_listing", "/data/runs", "/missing")
    return [site.seen(path, fields=fields) for path in paths]
