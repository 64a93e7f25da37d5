"""`microwsgi completion`: print a script that completes commands, options and their values in bash, zsh or fish."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from microwsgi.cli.command import Command
from microwsgi.cli.table import COMMANDS
from microwsgi.errors import UsageError
from microwsgi.options.kinds import Names, OneOf, Option, Switch

BASH = """\
_microwsgi() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} command= words=
    if [[ $word == = ]]; then word=; fi  # bash makes three words of --option=value
    if [[ $previous == = ]]; then previous=${{COMP_WORDS[COMP_CWORD-2]}}; fi
    ((COMP_CWORD > 1)) && command=${{COMP_WORDS[1]}}
    case "$command $previous $word" in
        {} esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _microwsgi microwsgi"""
ZSH = """\
#compdef microwsgi
_microwsgi() {{
    local -a commands=({})
    if ((CURRENT == 2)); then _describe command commands; return; fi
    shift words; ((CURRENT--))
    case $words[1] in
        {} esac
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _microwsgi "$@"; else compdef _microwsgi microwsgi; fi"""
FILES = {"FILE", "DIR"}  # metavars of options whose values are paths


def completion_command(words: list[str], given: dict[str, object]) -> int:
    """`microwsgi completion`. Raises UsageError."""
    if len(words) != 1 or words[0] not in SHELLS:
        raise UsageError(f"expected a shell: {', '.join(SHELLS)}.\n  Try:  microwsgi completion bash")
    print(SHELLS[words[0]]())
    return 0


def flags(command: Command) -> Iterator[tuple[list[str], Option]]:
    """Return the flags of each option that the help shows. A switch that is on has one that turns it off."""
    for option in command.options:
        if option.has_flag and option.name not in command.hidden:
            on = command.defaults.get(option.name, option.default) is True
            off = option.off_flag if isinstance(option, Switch) and on else ""
            yield [name for name in (option.short, option.flag, off) if name], option


def values(option: Option) -> str:
    """Return the words that an option accepts; "" if it accepts others, too."""
    return " ".join(option.convert.choices) if isinstance(option.convert, OneOf) else ""


def bash() -> str:
    """Return the script for bash. Bash completes file names where the script has no words."""
    cases = {'" "*': " ".join(command.name for command in COMMANDS)}
    cases |= {f'*" {each.flag} "*': values(each) for command in COMMANDS for each in command.options if values(each)}
    for command in COMMANDS:
        cases[f'"{command.name} "*" -"*'] = " ".join(name for names, _ in flags(command) for name in names)
        cases[f'"{command.name} {command.name} "*'] = " ".join(command.choices)
    return BASH.format("\n        ".join(f'{pattern}) words="{words}" ;;' for pattern, words in cases.items()))


def zsh() -> str:
    """Return the script for zsh."""
    cases = []
    for command in COMMANDS:
        specs = ["*:application:_files" if "APP" in command.words else f"1:argument:({' '.join(command.choices)})"]
        for names, option in flags(command):
            text = option.help.replace("[", r"\[").replace("]", r"\]")
            action = "_files" if option.metavar in FILES else f"({values(option)})"
            value = "" if isinstance(option, Switch) else f":{option.metavar}:{action}"
            signs = {name: "=" * bool(value and name != option.short) for name in names}
            specs += [f"{'*' * isinstance(option, Names)}{name}{sign}[{text}]{value}" for name, sign in signs.items()]
        cases.append(f"{command.name}) _arguments {' '.join(map(quote, specs))} ;;")
    commands = [quote(f"{command.name}:{command.summary}") for command in COMMANDS]
    return ZSH.format(" ".join(commands), "\n        ".join(cases))


def fish() -> str:
    """Return the script for fish."""
    lines = []
    for command in COMMANDS:
        lines.append(f"-n __fish_use_subcommand -f -a {command.name} -d {quote(command.summary)}")
        start = f"-n '__fish_seen_subcommand_from {command.name}'"
        if "APP" not in command.words:
            lines.append(f"{start} -f -a {quote(' '.join(command.choices))}")
        for names, option in flags(command):
            words = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in names)
            value = " -r -F" if option.metavar in FILES else f" -x -a {quote(values(option))}"
            lines.append(f"{start} {words}{'' if isinstance(option, Switch) else value} -d {quote(option.help)}")
    return "\n".join(f"complete -c microwsgi {line}" for line in lines)


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
