"""`microwsgi completion`: each script in the shell that it is for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from microwsgi.cli.certs import VERBS
from microwsgi.cli.completion import SHELLS
from microwsgi.cli.table import COMMANDS
from tests.programs import need
from tests.running import environment, microwsgi
from tests.tables import Rows

BASH = """
source ./script
while IFS=$'\\t' read -ra COMP_WORDS; do
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    [[ ${COMP_WORDS[COMP_CWORD]} == - ]] && COMP_WORDS[COMP_CWORD]=
    _microwsgi
    echo "${COMPREPLY[*]}"
done
"""
"""Completes each line of its input, in which the words are separated by tabs and a last word that is empty is -."""
ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'autoload -U compinit; compinit -u -D; source ./script; print RE""ADY'
zpty -r -m shell output '*READY*'
zpty -w -n shell $'microwsgi eject --app-dir=sou\\t'
zpty -r -m shell output '*source/*'
zpty -w -n shell $'\\x15microwsgi serve --log-format=comb\\t'
zpty -r -m shell output '*combined*'
zpty -w -n shell $'\\x15microwsgi certs untr\\t'
zpty -r -m shell output '*untrust*'
zpty -d shell
print complete
"""
EVERY = " ".join(command.name for command in COMMANDS)


@pytest.fixture(autouse=True)
def scripts(tmp_path: Path) -> None:
    """Write the scripts."""
    for shell in SHELLS:
        done = subprocess.run(microwsgi("completion", shell), env=environment(), check=True, capture_output=True)
        (tmp_path / f"script.{shell}").write_bytes(done.stdout)
    (tmp_path / "source").mkdir()


def run(folder: Path, shell: str, *words: str, typed: str = "") -> str:
    """Run a program of a shell in a folder in which its script is `script`, and return its output."""
    (folder / "script").symlink_to(folder / f"script.{shell}")
    done = subprocess.run(
        [need(shell), *words],
        cwd=folder,
        env=environment(HOME=str(folder), TERM="dumb"),
        input=typed,
        text=True,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_bash(tmp_path: Path) -> None:
    expected = {
        "-": EVERY,
        "st": "stack status stop",
        "serve|app:app|--log-f": "--log-format --log-file",
        "serve|--log-format|-": "auto line common combined json",
        "serve|--log-format|=|co": "common combined",
        "serve|--log-format|=": "auto line common combined json",
        "dev|--no-d": "--no-debug",
        "serve|--no-d": "",
        "certs|-": " ".join(VERBS),
        "certs|client|-": "",
        "completion|-": "bash zsh fish",
        "serve|-": "",  # bash completes the name of a file
    }
    typed = "".join("\t".join(["microwsgi", *words.split("|")]) + "\n" for words in expected)
    lines = run(tmp_path, "bash", "--norc", "-c", BASH, typed=typed).splitlines()
    with Rows() as rows:
        for (words, line), found in zip(expected.items(), lines, strict=True):
            with rows(words):
                assert found == line


def test_bash_completes_files_where_there_are_no_words(tmp_path: Path) -> None:
    assert run(tmp_path, "bash", "--norc", "-c", "source ./script; complete -p microwsgi") == (
        "complete -o default -F _microwsgi microwsgi\n"
    )


def test_fish(tmp_path: Path) -> None:
    expected = {
        "st": {"stack", "status", "stop"},
        "serve app:app --log-f": {"--log-file", "--log-format"},
        "serve --log-format co": {"common", "combined"},
        "certs ": {*VERBS},
        "eject --app-dir sou": {"source/"},
        "serve --port ": set(),
    }
    with Rows() as rows:
        for words, names in expected.items():
            with rows(words):
                (tmp_path / "script").unlink(missing_ok=True)
                found = run(tmp_path, "fish", "-c", f"source ./script; complete -C 'microwsgi {words}'")
                assert {line.split("\t")[0] for line in found.splitlines()} == names


def test_zsh(tmp_path: Path) -> None:
    assert run(tmp_path, "zsh", "-f", "-c", ZSH).splitlines()[-1] == "complete"
