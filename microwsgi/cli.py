"""The command line: a table of commands. Their options are declared in `microwsgi.options`.

    main
      Command.parse   parse the arguments with argparse; suggest the nearest name for an unknown one
      Command.run     import the function of the command and call it; it returns the exit code

Exit codes: 0 a clean stop, 2 wrong usage, 3 the application can't be loaded, 4 the address can't be bound, 1 any other error.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType

from microwsgi import __version__
from microwsgi.config import from_file, shown
from microwsgi.diagnosis import WITH_APP
from microwsgi.errors import UsageError
from microwsgi.options import BY_NAME, OPTIONS, Option, count, from_environment, merged, seconds, switch, unknown

LEFT = 22
"""The width of the left column of the help."""
RIGHT = 68
"""The column where the defaults begin."""
HINT = re.compile(r"^( +(?:Try:  )?microwsgi) serve(?= )", re.MULTILINE)
"""The beginning of a command in a message."""


class Parser(ArgumentParser):
    """An ArgumentParser whose errors are raised."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise UsageError, where argparse would print its usage and exit."""
        raise UsageError(f"{message.replace('argument ', '', 1)}.\n  Try:  {self.prog} --help")


class Command:
    """One command: its function, as module:function, and its arguments.

    The function is called with the positional arguments and the options. An option of the command line takes precedence over
    the environment, that over the file of `--config`, and that over `defaults`. Options that only this command has are not
    read from the environment; they are validated and always present.
    """

    def __init__(
        self,
        name: str,
        function: str,
        summary: str,
        *,
        words: str = "",
        about: Sequence[str] = (),
        options: tuple[Option, ...] = (),
        defaults: Mapping[str, object] = MappingProxyType({}),
        examples: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.function = function
        self.summary = summary
        self.words = words
        self.about = about
        self.options = options
        self.defaults = defaults
        self.examples = examples

    def run(self, arguments: Sequence[str]) -> int:
        """Run the command, or print its help. Raises UsageError."""
        words, typed = self.parse(arguments)
        if typed.pop("help", False):
            print(self.help())  # noqa: T201 - what was asked for
            return 0
        own = {each.name: each.take(typed.get(each.name, each.default)) for each in self.options if each not in OPTIONS}
        variables = from_environment(os.environ)
        file = from_file(merged(variables, typed)) if BY_NAME["config"] in self.options else {}
        if own.pop("show_config", False):
            typed.pop("show_config", None)
            print(shown(file, variables, typed, os.environ))  # noqa: T201 - what was asked for
            return 0
        code: int = self.load()(words, {**self.defaults, **merged(file, variables, typed), **own})
        return code

    def like_http_server(self, words: Sequence[str], typed: dict[str, object], strange: Sequence[str]) -> None:
        """Understand the arguments of `python -m http.server`, or raise UsageError with the right command."""
        if BY_NAME["bind"] not in self.options:
            return
        program = f"microwsgi {self.name}"
        if strange[:1] in (["-d"], ["--directory"]):
            rest = " ".join(words) or "FOLDER"
            raise UsageError(f"a folder is given without {strange[0]}.\n  Try:  {program} {rest}")
        port = next((word for word in words if word.isascii() and word.isdigit()), "")
        if port and not strange and not os.path.exists(port):
            rest = " ".join(word for word in words if word != port)
            files = "" if rest else f"\n        {program} . -p {port}   (the files of this folder)"
            raise UsageError(f"a port is given with -p.\n  Try:  {' '.join([program, *rest.split()])} -p {port}{files}")
        addresses = typed.get("bind")
        if isinstance(addresses, list) and len(addresses) == 1 and ":" not in addresses[0]:
            typed["host"] = addresses[0]  # there -b has no port
            del typed["bind"]

    def load(self) -> Callable[[list[str], dict[str, object]], int]:
        """Import the function. Enable garbage collection, which `main` has disabled, of new objects only."""
        module, _, name = self.function.partition(":")
        if module == BACKGROUND and not hasattr(os, "fork"):  # Windows
            raise UsageError(
                f"microwsgi {self.name} is for servers in the background (--daemon), which this system does not have: "
                "Ctrl-C in its window stops a server."
            )
        function: Callable[[list[str], dict[str, object]], int] = getattr(import_module(module), name)
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        return function

    def parse(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, object]]:
        """Parse the positional arguments and the options. Raises UsageError."""
        parser = Parser(prog=f"microwsgi {self.name}", add_help=False, allow_abbrev=False, argument_default=SUPPRESS)
        parser.add_argument("words", nargs="*")
        parser.add_argument("-h", "--help", action="store_true")
        words = [word.partition("=")[0] for word in arguments]
        for option in self.options:
            flags = [option.short, option.flag] if option.short else [option.flag]
            if not option.short and option.flag not in words and f"--no-{option.flag[2:]}" not in words:
                continue  # adding all of them takes argparse 3 ms
            if option.convert is switch:
                parser.add_argument(*flags, dest=option.name, action="store_const", const=True)
                parser.add_argument("--no-" + option.flag[2:], dest=option.name, action="store_const", const=False)
            else:
                parser.add_argument(*flags, dest=option.name, action="append" if option.repeatable else "store")
        known, strange = parser.parse_known_intermixed_args(list(arguments))
        self.like_http_server(vars(known).get("words", []), vars(known), strange)
        if strange:
            name = strange[0].partition("=")[0]
            raise UsageError(f"{unknown('option', name, self.flags)}\n  Try:  {parser.prog} --help")
        typed = vars(known)
        return typed.pop("words", []), typed

    @property
    def flags(self) -> list[str]:
        """All long options."""
        switches = [option for option in self.options if option.convert is switch]
        return ["--help", *(option.flag for option in self.options), *(f"--no-{each.flag[2:]}" for each in switches)]

    def help(self) -> str:
        """Return the help: a line for each option, with its default and its variable."""
        lines = [f"Usage: microwsgi {self.name} {self.words}".rstrip(), self.summary, *self.about]
        group = ""
        for option in self.options:
            if option.group != group:
                group = option.group
                lines.append(f"{group}:")
            left = ", ".join(filter(None, [option.short, f"{option.flag} {option.metavar}".rstrip()]))
            variable = option.variables[-1] if option in OPTIONS else ""
            default = option.shown(self.defaults.get(option.name, option.default))
            line = f"  {left:<{LEFT - 1}} {option.help:<{RIGHT - LEFT}} {default:<9} {variable}"
            lines.append(line.rstrip())
        return "\n".join([*lines, "Examples:", *(f"  {example}" for example in self.examples)])


DEMO = "wsgiref.simple_server:demo_app"
"""The application of the examples: every Python has it."""
SHOW_CONFIG = Option("Help", "show_config", False, switch, "", "print what holds, and where it is from")

BACKGROUND = "microwsgi.commands.control"
"""Commands for services, on systems that have them."""
COMMANDS = (
    Command(
        "serve",
        "microwsgi.serving:serve_command",
        "Serve an application.",
        words="[APP] [options]",
        about=(
            "APP is module:attribute, module, path/to/file.py[:attribute], 'module:factory(\"literal\")' or a folder",
            "of files; without it app in [tool.microwsgi] of pyproject.toml, or the one of app.py, wsgi.py or main.py.",
        ),
        options=(*OPTIONS, SHOW_CONFIG),
        examples=(f"microwsgi serve {DEMO}", "microwsgi serve . --host 0.0.0.0 --port 0"),
    ),
    Command(
        "dev",
        "microwsgi.serving:serve_command",
        "Serve an application that is being written: with --reload and --debug.",
        words="[APP] [options]",
        about=("APP and the options are those of microwsgi serve.",),
        options=OPTIONS,
        defaults={"reload": True, "debug": True, "slow": 5.0},
        examples=(f"microwsgi dev {DEMO}", f"microwsgi dev {DEMO} --reload-include 'templates/*.html'"),
    ),
    Command(
        "stack",
        "microwsgi.commands.stack:stack_command",
        "Draw all that is between the socket and your function, in a running request.",
        words="[APP] [/PATH] [options]",
        about=("APP is what `microwsgi serve` takes, of any framework; exit code 1 if none of its functions ran.",),
        options=(
            Option("Request", "method", "", str, "METHOD", "the method; GET, or POST with --data", short="-X"),
            Option("Request", "data", "", str, "BODY", "the body, a form's unless the method is PUT", short="-d"),
            Option("Picture", "to", "", str, "NAME", "up to this function, not to the one that answered"),
            Option("Picture", "compare", False, switch, "", "beside the other servers that are installed"),
            Option("Picture", "html", "", str, "FILE", "write a page"),
            Option("Picture", "json", False, switch, "", "print the values"),
            BY_NAME["color"],
            BY_NAME["app_dir"],
        ),
        examples=(f"microwsgi stack {DEMO} / -d test=hello", f"microwsgi stack {DEMO} --compare"),
    ),
    Command(
        "certs",
        "microwsgi.commands.certs:certs_command",
        "Show, trust and renew the certificates of microwsgi serve --tls.",
        words="[show | path | trust | untrust | renew | client NAME] [options]",
        about=(
            "trust: the browsers of this user trust the development CA; untrust: no more; with --system",
            "the whole machine. path: the CA's file. renew: a new certificate. client: one for a client.",
        ),
        options=(Option("Stores", "system", False, switch, "", "the system's store, too; needs root"),),
        examples=("microwsgi certs trust", "microwsgi certs client ada"),
    ),
    Command(
        "eject",
        "microwsgi.commands.eject:eject_command",
        "Write a script that serves the application without microwsgi.",
        words="[APP] [options]",
        about=("One class on the standard library's http.server, to read and to change; APP is imported by it.",),
        options=(
            Option("Script", "output", "httpsrv.py", str, "FILE", "where to write it; - prints it", short="-o"),
            Option("Script", "force", False, switch, "", "over a file that is there already"),
            BY_NAME["app_dir"],
        ),
        examples=(f"microwsgi eject {DEMO} -o httpsrv.py --force", f"microwsgi eject {DEMO} -o - | less"),
    ),
    Command(
        "check",
        "microwsgi.commands.check:check_command",
        "Send an application requests of many kinds, and say which rules it breaks.",
        words="[APP] [/PATH ...] [options]",
        about=(
            "POST and DELETE too: not for data that you want to keep. Exit code 1 if there are faults.",
            "PEP 3333 is watched over by wsgiref.validate and by rules that it lacks; RFC 9110 by comparing.",
        ),
        options=(Option("Report", "json", False, switch, "", "print the values"), BY_NAME["app_dir"]),
        examples=(f"microwsgi check {DEMO}", f"microwsgi check {DEMO} / /path"),
    ),
    Command(
        "routes",
        "microwsgi.commands.routes:routes_command",
        "List what an App answers to.",
        words="[APP] [options]",
        about=("APP is a microwsgi.App, named as for microwsgi serve.",),
        options=(Option("List", "json", False, switch, "", "print the values"), BY_NAME["app_dir"]),
        examples=("microwsgi routes .", "microwsgi routes . --json"),
    ),
    Command(
        "status",
        "microwsgi.commands.control:status_command",
        "Show what runs in the background.",
        words="[ADDRESS] [options]",
        about=(
            "ADDRESS is 127.0.0.1:8000, or its port. 0: it runs; 1: it was killed; 3: it does not run; 4: unknown.",
        ),
        options=(Option("Status", "json", False, switch, "", "print the values"), BY_NAME["pid_file"]),
        examples=("microwsgi status", "microwsgi status 8000 --json"),
    ),
    Command(
        "stop",
        "microwsgi.commands.control:stop_command",
        "Stop a server that runs in the background, and wait until it has ended.",
        words="[ADDRESS] [options]",
        about=("ADDRESS is 127.0.0.1:8000, or its port; it may be left out where only one runs.",),
        options=(
            Option("Stop", "force", False, switch, "", "wait for no request, and kill it if need be"),
            Option("Stop", "wait", 30.0, seconds, "SECONDS", "for it to end"),
            BY_NAME["pid_file"],
        ),
        examples=("microwsgi stop", "microwsgi stop 8000 --force"),
    ),
    Command(
        "restart",
        "microwsgi.commands.control:restart_command",
        "Stop a server that runs in the background, and start it again in the same way.",
        words="[ADDRESS] [options]",
        about=(
            "ADDRESS is 127.0.0.1:8000, or its port; it may be left out where only one runs.",
            "The exit code is that of microwsgi serve; 7: nothing runs. New code needs no restart: microwsgi reload.",
        ),
        options=(
            Option("Stop", "force", False, switch, "", "wait for no request, and kill it if need be"),
            Option("Stop", "wait", 30.0, seconds, "SECONDS", "for it to end"),
            BY_NAME["pid_file"],
        ),
        examples=("microwsgi restart", "microwsgi restart 8000"),
    ),
    Command(
        "reload",
        "microwsgi.commands.control:reload_command",
        "Have a server in the background serve the code of now: no request is refused or cut.",
        words="[ADDRESS] [options]",
        about=("0: the new code serves. 1: it can't be loaded, and the old goes on. 7: nothing runs.",),
        options=(
            Option("Reload", "wait", 60.0, seconds, "SECONDS", "for the new code to serve"),
            BY_NAME["pid_file"],
        ),
        examples=("microwsgi reload", "microwsgi reload 8000"),
    ),
    Command(
        "logs",
        "microwsgi.commands.control:logs_command",
        "Show the log of a server in the background.",
        words="[ADDRESS] [options]",
        about=("ADDRESS is 127.0.0.1:8000, or its port; it may be left out where only one runs.",),
        options=(
            Option("Log", "follow", False, switch, "", "go on with what comes, through rotations", short="-f"),
            Option("Log", "lines", 20, count, "N", "how many of the last lines", short="-n"),
            BY_NAME["pid_file"],
        ),
        examples=("microwsgi logs -n 100", "microwsgi logs --follow"),
    ),
    Command(
        "unit",
        "microwsgi.commands.unit:unit_command",
        "Print a systemd unit that serves an application.",
        words="APP [options]",
        about=("APP and the options are those of microwsgi serve.",),
        options=(
            Option("Unit", "socket", False, switch, "", "the socket, by which systemd starts the service"),
            *OPTIONS,
        ),
        examples=(f"microwsgi unit {DEMO} --workers 2", f"microwsgi unit {DEMO} -b 0.0.0.0:80 --socket"),
    ),
)
"""The commands."""


def overview() -> str:
    """Return the help of `microwsgi` itself."""
    lines = ["Usage: microwsgi COMMAND ...", "A development server for WSGI applications.", "Commands:"]
    lines += [f"  {command.name:<10}{command.summary}" for command in COMMANDS]
    lines += ["microwsgi COMMAND --help tells more; microwsgi --version tells the version.", "Examples:"]
    return "\n".join([*lines, f"  microwsgi serve {DEMO}", "  microwsgi serve --help"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit code."""
    if arguments is None:  # this is the whole process
        arguments = sys.argv[1:]
        gc.disable()  # imported modules stay: collecting garbage among them takes 3 ms
    try:
        code = dispatch(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except UsageError as error:
        text = str(error)
        if arguments[0] in WITH_APP:  # its hints name `microwsgi serve`
            text = HINT.sub(rf"\1 {arguments[0]}", text)
        print(f"microwsgi: {text}", file=sys.stderr)  # noqa: T201 - the error
        return error.exit_code
    except (
        BrokenPipeError
    ):  # `microwsgi --help | head -1`: the interpreter would print an error when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def dispatch(arguments: Sequence[str]) -> int:
    """Find the command and run it. Raises UsageError."""
    first = arguments[0] if arguments else ""
    if first == "help" and arguments[1:]:
        arguments = [arguments[1], "--help"]
        first = arguments[0]
    if first in {"-h", "--help", "help", ""}:
        print(overview())  # noqa: T201 - what was asked for
        return 0 if first else UsageError.exit_code
    if first in {"-V", "--version"}:
        print(f"microwsgi {__version__} on Python {sys.version.split()[0]}")  # noqa: T201 - what was asked for
        return 0
    command = next((each for each in COMMANDS if each.name == first), None)
    if command is None:
        raise UsageError(unknown_command(first, arguments[1:]))
    return command.run(arguments[1:])


def unknown_command(first: str, others: Sequence[str]) -> str:
    """Return the message for an unknown command."""
    if first in {"-v", "version"}:
        return f"there is no command {first}.\n  Try:  microwsgi --version"
    if ":" in first or "." in first or first.startswith("-"):
        return f"there is no command {first}.\n  Try:  microwsgi serve {' '.join([first, *others])}"
    return f"{unknown('command', first, [command.name for command in COMMANDS])}\n  Try:  microwsgi --help"
