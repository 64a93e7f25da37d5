"""The site of the documentation: `make docs` builds it in build/docs, and a warning is an error."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
OUTSIDE = {"index": "README.md", "changes": "CHANGELOG.md", "benchmarks": "benchmarks/README.md"}
"""Pages whose text is in a file outside of this folder: their own file has what follows it."""

project = "microwsgi"
html_title = "microwsgi"
copyright = "The microwsgi authors"
extensions = ["myst_parser"]
exclude_patterns = ["apps/*.png"]
myst_heading_anchors = 3
html_theme = "furo"
html_show_sphinx = False
html_copy_source = False


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the text from outside at the head of a page, and let links to such files lead to their pages."""
    text = source[0]
    if page in OUTSIDE:
        text = (ROOT / OUTSIDE[page]).read_text(encoding="utf-8").replace("](docs/", "](") + text
    for name, path in OUTSIDE.items():
        text = text.replace(f"](../{path}", f"]({name}.md").replace(f"]({path})", f"]({name}.md)")
    source[0] = text.replace("](LICENSE)", "](../LICENSE)")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", read)
