"""Options from a file, from the environment and from the command line: which holds, and what is said of wrong ones."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from microwsgi.cli import main
from microwsgi.errors import UsageError
from microwsgi.options import Options
from microwsgi.options.config_file import from_file
from tests.running import Running

Command = Callable[..., Running]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, and no variables."""
    for name in [*os.environ]:
        if name.startswith("MICROWSGI_") or name == "PORT":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_layer_is_above_the_one_below_and_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "prod.toml").write_text(
        'threads = 1\nmax-header-size = "1K"\nmax_line_size = 2\nmax_body_size = 3\nmin_body_rate = 4\n'
    )
    monkeypatch.setenv("MICROWSGI_MAX_HEADER_SIZE", "2K")
    monkeypatch.setenv("MICROWSGI_MAX_BODY_SIZE", "4K")
    monkeypatch.setenv("MICROWSGI_MAX_LINE_SIZE", "4K")
    assert main(["serve", "--config", "prod.toml", "--max-body-size", "8K", "--show-config"]) == 0
    lines = dict(line.split(" = ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["threads"].split() == ["1", "#", "prod.toml"]
    assert lines["min_body_rate"].split() == ["4", "#", "prod.toml"]
    assert lines["max_header_size"].split() == ['"2K"', "#", "MICROWSGI_MAX_HEADER_SIZE"]
    assert lines["max_line_size"].split() == ['"4K"', "#", "MICROWSGI_MAX_LINE_SIZE"]
    assert lines["max_body_size"].split() == ['"8K"', "#", "command", "line"]
    assert lines["port"].split() == ["8000", "#", "default"]


@pytest.mark.parametrize("arguments", [["-p", "5", "--full-traceback"], ["-b", "unix:/x,y", "-b", "[::1]:1"], []])
def test_what_is_shown_is_a_file_that_says_the_same(
    folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["serve", *arguments, "--header-timeout", "0.5", "--allow-host", "a.test", "--show-config"])
    first = capsys.readouterr().out
    (folder / "same.toml").write_text(first)
    main(["serve", "--config", "same.toml", "--show-config"])
    assert tomllib.loads(capsys.readouterr().out) == tomllib.loads(first)
    given = from_file({"config": "same.toml"})
    assert (given["header_timeout"], given["allow_host"]) == (0.5, ("a.test",))


def test_pyproject_is_read_where_no_file_is_named(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.microwsgi]\nthreads = 3\napp = "x:y"\n')
    (folder / "other.toml").write_text("threads = 4\n")
    assert from_file({}) == {"threads": 3}
    assert from_file({"config": "other.toml"}) == {"threads": 4}
    assert from_file({"app_dir": "elsewhere"}) == {}


@pytest.mark.parametrize(
    "text",
    [
        "[ tool . microwsgi ]\nthreads = 3",
        "['tool'.\"microwsgi\"]\nthreads = 3",
        "[tool]\nmicrowsgi = {threads = 3}",
        "[ 'tool' ]\nmicrowsgi.threads = 3",
        "tool.microwsgi.threads = 3",
        "tool = {other = 1, microwsgi = {threads = 3}}",
    ],
)
def test_the_table_is_found_however_it_is_spelt(text: str, folder: Path) -> None:
    (folder / "pyproject.toml").write_text(f"{text}\n")
    assert from_file({}) == {"threads": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "c.toml: there is no option prot; did you mean port?"),
        ("config = 'x'", "c.toml: there is no option config."),
        ("threads = 0", "invalid threads = 0 in c.toml: expected a whole number, 1 or more."),
        ("threads = true", "invalid threads = true in c.toml: expected a whole number, 1 or more."),
        ("full_traceback = 'perhaps'", 'invalid full_traceback = "perhaps" in c.toml: expected on or off.'),
        ("bind = 8000", "invalid bind = 8000 in c.toml: expected a string, or a list of strings."),
        ("host = 1", "invalid host = 1 in c.toml: expected a string."),
        ("bind = 'a:1'\nport = 2", "c.toml: bind has host and port in it: leave out host and port, or bind."),
        ("port =", "c.toml can't be read: Invalid value (at end of document)."),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence_with_its_name(
    folder: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "c.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        from_file({"config": "c.toml"})
    assert str(caught.value) == message
    assert main(["serve", "--config", "c.toml"]) == 2
    assert capsys.readouterr().err == f"microwsgi: {message}\n"


def test_a_file_that_is_named_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--config", "nowhere.toml"]) == 2
    assert capsys.readouterr().err == "microwsgi: --config nowhere.toml can't be read: No such file or directory.\n"


def test_an_address_typed_replaces_the_one_of_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.toml").write_text("bind = ['unix:/x']\n")
    assert main(["serve", "--config", "c.toml", "-p", "7", "--show-config"]) == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert shown["port"] == 7
    assert "bind" not in shown


def test_the_real_command_serves_what_a_file_says(command: Command, folder: Path) -> None:
    (folder / "site.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return []\n"
    )
    (folder / "c.toml").write_text('app = "other:app"\nport = 0\naccess_log = "log"\n')
    wrong = command("serve", "--config", "c.toml", cwd=folder)
    assert wrong.wait() == 3
    assert wrong.read_lines[-1] == '  The name comes from app = "other:app" in c.toml.'
    (folder / "site.py").rename(folder / "other.py")
    running = command("serve", cwd=folder, MICROWSGI_CONFIG="c.toml")
    running.url()
    running.line("Ctrl-C")
    assert running.read_lines[0].endswith("serving other:app")
    assert (folder / "log").exists()


def test_serve_takes_a_file_too(folder: Path) -> None:
    (folder / "c.toml").write_text("threads = 7\n")
    assert Options.from_mapping(from_file({"config": "c.toml"})).threads == 7
