"""`microwsgi COMMAND`: find the command, run it, and turn errors into a message and an exit code.

    main
      dispatch           find the command in the table (microwsgi/cli/table.py)
        run              print its help, or call its function with the values of its options
          Command.parse  parse the arguments (microwsgi/cli/command.py)
          Command.load   import the function; it returns the exit code

Exit codes: 0 a clean stop, 2 wrong usage, 3 the application cannot be loaded, 4 the address cannot be bound, 1 any other error.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from microwsgi import __version__
from microwsgi.cli.command import Command
from microwsgi.cli.help import command_help, overview
from microwsgi.cli.table import COMMANDS, DEMO
from microwsgi.errors import UsageError
from microwsgi.options.config_file import effective_config, from_file
from microwsgi.options.declaration import BY_NAME, OPTIONS, unknown
from microwsgi.options.environment import from_environment, merged


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit code."""
    if arguments is None:  # the process runs only this command
        arguments = sys.argv[1:]
        gc.disable()  # imported modules are never garbage: looking for garbage among them takes 3 ms
    try:
        code = dispatch(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except UsageError as error:
        print(f"microwsgi: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `microwsgi --help | head -1`
        # The interpreter would print an error when it flushes at exit.
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
        print(overview(COMMANDS, DEMO))
        return 0 if first else UsageError.exit_code
    if first in {"-V", "--version"}:
        print(f"microwsgi {__version__} on Python {sys.version.split()[0]}")
        return 0
    command = next((each for each in COMMANDS if each.name == first), None)
    if command is None:
        raise UsageError(unknown_command(first, arguments[1:]))
    return run(command, arguments[1:])


def run(command: Command, arguments: Sequence[str]) -> int:
    """Run a command, or print its help. Raises UsageError."""
    words, typed = command.parse(arguments)
    wants_help, wants_all = typed.pop("help", False), typed.pop("help_all", False)
    if wants_help or wants_all:
        print(command_help(command, every=bool(wants_all)))
        return 0
    own = [option for option in command.options if option not in OPTIONS]
    values = {option.name: option.parse(typed.pop(option.name, option.default)) for option in own}
    variables = from_environment(os.environ, [option for option in command.options if option in OPTIONS])
    file = from_file(merged(variables, typed)) if BY_NAME["config"] in command.options else {}
    if values.pop("show_config", False):
        print(effective_config(file, variables, typed, os.environ))
        return 0
    return command.load()(words, {**command.defaults, **merged(file, variables, typed), **values})


def unknown_command(first: str, others: Sequence[str]) -> str:
    """Return the message for an unknown command."""
    if first in {"-v", "version"}:
        return f"there is no command {first}.\n  Try:  microwsgi --version"
    if ":" in first or "." in first or first.startswith("-"):
        return f"there is no command {first}.\n  Try:  microwsgi serve {' '.join([first, *others])}"
    return f"{unknown('command', first, [command.name for command in COMMANDS])}\n  Try:  microwsgi --help"
