"""Imports under a reloader: whatever way a module is imported, what is in its file now is what is run, and it is watched."""

from __future__ import annotations

import importlib.util
import json
import os
import py_compile
import shutil
import subprocess
import sys
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from textwrap import dedent
from typing import cast

import pytest

from tests.running import environment

PRELUDE = """\
import json, sys
from microwsgi.serving.imports import CodeCache, Imports
sys.path.insert(0, "")
codes, told = CodeCache(), []
imports = Imports(codes)
imports.install(told.append)
"""
END = """
print(json.dumps({"value": value, "files": sorted(imports.files()), "told": len(told)}))
"""


def run(folder: Path, code: str) -> dict[str, object]:
    """What a program says of `value` after this, and of what was imported."""
    program = [sys.executable, "-c", PRELUDE + dedent(code) + END]
    told = subprocess.run(
        program, cwd=folder, env=environment(PYTHONDONTWRITEBYTECODE=""), check=True, capture_output=True, text=True
    )
    answer: dict[str, object] = json.loads(told.stdout)
    return answer


def stale(path: Path) -> Path:
    """A module whose .pyc says 'old', and whose source says 'new', with the same size and time; the .pyc."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("VALUE = 'old'\n")
    status = path.stat()
    compiled = Path(py_compile.compile(str(path), doraise=True) or "")
    path.write_text("VALUE = 'new'\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return compiled


WAYS = {
    "a namespace package": "import place.part; assert place.__file__ is None; value = place.part.VALUE",
    "a folder": "sys.path.insert(0, 'place'); import part; value = part.VALUE",
    "reload": "import importlib, place.part; value = importlib.reload(place.part).VALUE",
    "a file by its path": """
        from importlib.util import module_from_spec, spec_from_file_location
        spec = spec_from_file_location("plugin", "place/part.py")
        module = sys.modules["plugin"] = module_from_spec(spec)
        spec.loader.exec_module(module)
        value = module.VALUE
        """,
    "the finder of an editable install": """
        from importlib.util import spec_from_file_location
        class Finder:
            @staticmethod
            def find_spec(name, path=None, target=None):
                return spec_from_file_location(name, "place/part.py") if name == "installed" else None
        sys.meta_path.append(Finder)
        import installed
        value = installed.VALUE
        """,
    "an import hook that changes sources": """
        from importlib.machinery import FileFinder, SourceFileLoader
        class Loader(SourceFileLoader):
            def source_to_code(self, data, path, *, _optimize=-1):
                return super().source_to_code(data.replace(b"new", b"NEW"), path)
        import os
        from microwsgi.prefork.watch import digest_of
        path = os.path.abspath("place/part.py")
        codes.prepare(path, digest_of(path))  # as Python would compile it
        sys.path_hooks.insert(0, FileFinder.path_hook((Loader, [".py"])))
        sys.path_importer_cache.clear()
        import place.part
        assert place.part.VALUE == "NEW"
        value = place.part.VALUE.lower()
        """,
    "runpy": "import runpy; value = runpy.run_module('place.part')['VALUE']",
}


@pytest.mark.parametrize("way", WAYS)
def test_what_the_file_holds_is_imported_and_no_compiled_file_is(tmp_path: Path, way: str) -> None:
    compiled = stale(tmp_path / "place" / "part.py")
    before = compiled.stat().st_mtime_ns
    answer = run(tmp_path, WAYS[way])
    assert answer["value"] == "new"
    assert [os.path.relpath(path, tmp_path) for path in cast("list[str]", answer["files"])] == ["place/part.py"]
    assert compiled.stat().st_mtime_ns == before
    assert list(compiled.parent.iterdir()) == [compiled]


def test_code_that_the_parent_has_compiled_is_taken_and_not_told_of(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text("VALUE = 1\n")
    answer = run(
        tmp_path,
        """
        import os
        from microwsgi.prefork.watch import digest_of
        path = os.path.abspath("part.py")
        codes.prepare(path, digest_of(path))
        import part
        value = part.VALUE
        """,
    )
    assert answer == {"value": 1, "files": [str(tmp_path / "part.py")], "told": 0}


def test_libraries_are_imported_as_ever(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    stale(site / "part.py")
    (site / "fresh.py").write_text("")
    answer = run(tmp_path, "sys.path.append('site-packages'); import part, fresh; value = part.VALUE")
    assert answer == {"value": "old", "files": [], "told": 0}
    assert list((site / "__pycache__").glob("fresh.*")), "the time of the next import is saved"


def test_a_file_that_can_not_be_read_is_one_to_watch(tmp_path: Path) -> None:
    (tmp_path / "part.py").symlink_to(tmp_path / "nowhere")
    (tmp_path / "part").mkdir()
    answer = run(
        tmp_path,
        """
        from importlib.machinery import SourceFileLoader
        import os
        try:
            SourceFileLoader("part", os.path.abspath("part.py")).get_code("part")
        except OSError as error:
            value = type(error).__name__
        """,
    )
    assert answer == {"value": "FileNotFoundError", "files": [str(tmp_path / "part.py")], "told": 0}


def test_of_a_module_in_a_zip_file_that_is_watched(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        archive.writestr("part.py", "VALUE = 1\n")
    answer = run(
        tmp_path, "import os; sys.path.insert(0, os.path.abspath('parts.zip')); import part; value = part.VALUE"
    )
    assert answer == {"value": 1, "files": [str(tmp_path / "parts.zip")], "told": 0}


def test_an_extension_module_is_watched(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("_elementtree")
    if spec is None or spec.origin is None or not spec.origin.endswith(tuple(EXTENSION_SUFFIXES)):
        pytest.skip("this Python has that module built in")
    name = os.path.basename(spec.origin)
    shutil.copy(spec.origin, tmp_path / name)
    answer = run(
        tmp_path,
        f"""
        from importlib.util import module_from_spec, spec_from_file_location
        import os, pyexpat
        spec = spec_from_file_location("_elementtree", os.path.abspath({name!r}))
        sys.modules["_elementtree"] = module_from_spec(spec)
        value = 1
        """,
    )
    assert answer == {"value": 1, "files": [str(tmp_path / name)], "told": 0}


def test_data_beside_modules_is_found(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "note.txt").write_text("noted")
    answer = run(
        tmp_path,
        """
        import pkgutil
        from importlib import resources
        import package
        value = [pkgutil.get_data("package", "note.txt").decode(), (resources.files(package) / "note.txt").read_text()]
        """,
    )
    assert answer["value"] == ["noted", "noted"]


def test_tracebacks_and_inspect_show_the_source_that_runs(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text("def view():\n    return 1 / 0  # first\n")
    answer = run(
        tmp_path,
        """
        import importlib, inspect, traceback
        import part
        first = inspect.getsource(part.view)
        with open("part.py", "w") as file:
            file.write("# a line more\\n\\ndef view():\\n    return 1 / 0  # second\\n")
        importlib.reload(part)
        value = [first, inspect.getsource(part.view)]
        try:
            part.view()
        except ZeroDivisionError:
            value.append(traceback.format_exc())
        """,
    )
    first, second, shown = cast("list[str]", answer["value"])
    assert "# first" in first
    assert "# second" in second
    assert 'part.py", line 4, in view\n    return 1 / 0  # second' in shown


def test_a_package_that_is_linked_into_site_packages_is_the_users(tmp_path: Path) -> None:
    """As `flit install --symlink` and some editable installs do it."""
    stale(tmp_path / "real" / "linked" / "__init__.py")
    stale(tmp_path / "real" / "alone.py")
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "linked").symlink_to(tmp_path / "real" / "linked")
    (site / "alone.py").symlink_to(tmp_path / "real" / "alone.py")
    answer = run(tmp_path, "sys.path.append('site-packages'); import linked, alone; value = linked.VALUE + alone.VALUE")
    assert answer["value"] == "newnew"
    names = [os.path.relpath(path, tmp_path) for path in cast("list[str]", answer["files"])]
    assert names == ["site-packages/alone.py", "site-packages/linked/__init__.py"]


def test_a_zip_file_on_a_relative_entry_of_the_path_is_watched(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        archive.writestr("part.py", "VALUE = 1\n")
    answer = run(tmp_path, "sys.path.append('parts.zip'); import part, os; os.chdir('/'); value = part.VALUE")
    assert answer == {"value": 1, "files": [str(tmp_path / "parts.zip")], "told": 0}
