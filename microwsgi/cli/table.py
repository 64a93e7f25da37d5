"""The table of the commands."""

from __future__ import annotations

from microwsgi.cli.command import Command
from microwsgi.options.declaration import BY_NAME, OPTIONS
from microwsgi.options.kinds import Integer, Seconds, Switch, Text, parse_count, parse_seconds

DEMO = "wsgiref.simple_server:demo_app"
"""The application of the examples: every Python has it."""
APP = (
    "",
    "APP is module:attribute, module, path/to/file.py[:attribute], a directory of",
    "files, or 'module:factory(\"literal\")'. If it is left out, the key app of",
    "[tool.microwsgi] in pyproject.toml is used, or app.py, wsgi.py or main.py.",
)
SAME_APP = ("", "APP names the application as for microwsgi serve.")
ADDRESS = (
    "",
    "ADDRESS is the address of the server, such as 127.0.0.1:8000, or its port. It",
    "may be left out if only one server is running.",
)
SHOW_CONFIG = Switch(
    "Configuration",
    False,
    "print the effective configuration and the source of each value",
    name="show_config",
    common=True,
)
FOR_OTHERS = (
    "reload",
    "reload_include",
    "reload_exclude",
    "reload_poll",
    "reload_error_page",
    "daemon",
    "pid_file",
    "log_file",
)
"""Options that have no use in a unit: systemd runs the service in the background, and reloads it."""
JSON = Switch("Output", False, "print JSON", name="json")
FORCE = Switch("Stop", False, "do not wait for running requests; kill the server if necessary", name="force")

COMMANDS = (
    Command(
        "serve",
        "microwsgi.serving.serve:serve_command",
        "Serve an application.",
        words="[APP] [options]",
        about=APP,
        options=(*OPTIONS, SHOW_CONFIG),
        examples=(f"microwsgi serve {DEMO}", "microwsgi serve . --host 0.0.0.0 --port 0"),
    ),
    Command(
        "dev",
        "microwsgi.serving.serve:serve_command",
        "Serve an application during development, with --reload and --debug.",
        words="[APP] [options]",
        about=APP,
        options=OPTIONS,
        defaults={"reload": True, "reload_error_page": True, "debug": True, "log_slow_requests": 5.0},
        hidden=("daemon",),
        examples=(f"microwsgi dev {DEMO}", f"microwsgi dev {DEMO} --no-debug"),
    ),
    Command(
        "stack",
        "microwsgi.cli.stack:stack_command",
        "Draw the call stack of a request, from the start of its thread to your function.",
        words="[APP] [/PATH] [options]",
        about=(*SAME_APP, "The exit code is 1 if none of your functions made the response."),
        options=(
            Text("Request", "", str, "METHOD", "request method; GET, or POST with --data", name="method", short="-X"),
            Text(
                "Request",
                "",
                str,
                "BODY",
                "request body; for POST, its Content-Type is that of a form",
                name="data",
                short="-d",
            ),
            Text("Picture", "", str, "NAME", "draw the stack up to the function of this name", name="to"),
            Switch(
                "Picture",
                False,
                "also draw the stacks under cheroot, waitress, wsgiref and Werkzeug, if they are installed",
                name="compare",
            ),
            Text("Picture", "", str, "FILE", "write an HTML page", name="html"),
            JSON,
            BY_NAME["color"],
            BY_NAME["app_dir"],
        ),
        examples=(f"microwsgi stack {DEMO} / -d test=hello", f"microwsgi stack {DEMO} --compare"),
    ),
    Command(
        "certs",
        "microwsgi.cli.certs:certs_command",
        "Show, trust and renew the certificates of microwsgi serve --tls.",
        words="[COMMAND] [options]",
        choices=("show", "path", "trust", "untrust", "renew", "client"),
        about=(
            "",
            "  show         show the certificates (the default)",
            "  path         print the path of the CA certificate",
            "  trust        add the development CA to the certificate stores of this user",
            "  untrust      remove the CA from these stores",
            "  renew        create a new server certificate",
            "  client NAME  create a client certificate for this name or e-mail address",
        ),
        options=(
            Switch(
                "Stores",
                False,
                "with trust and untrust: also change the certificate store of the system; requires root",
                name="system",
            ),
        ),
        examples=("microwsgi certs trust", "microwsgi certs client ada"),
    ),
    Command(
        "eject",
        "microwsgi.cli.eject:eject_command",
        "Write a script that serves the application without microwsgi.",
        words="[APP] [options]",
        about=(
            *SAME_APP,
            "The script imports the application and defines one http.server handler class.",
        ),
        options=(
            Text(
                "Script", "httpsrv.py", str, "FILE", "file to write; - for standard output", name="output", short="-o"
            ),
            Switch("Script", False, "overwrite an existing file", name="force"),
            BY_NAME["app_dir"],
        ),
        examples=(f"microwsgi eject {DEMO} -o httpsrv.py --force", f"microwsgi eject {DEMO} -o - | less"),
    ),
    Command(
        "check",
        "microwsgi.cli.check:check_command",
        "Send requests to an application and report violations of WSGI and HTTP.",
        words="[APP] [/PATH ...] [options]",
        about=(
            *SAME_APP,
            "The requests include POST and DELETE: use test data. The exit code is 1 if there",
            "are violations of PEP 3333 or RFC 9110, or exceptions.",
        ),
        options=(JSON, BY_NAME["app_dir"]),
        examples=(f"microwsgi check {DEMO}", f"microwsgi check {DEMO} / /path"),
    ),
    Command(
        "routes",
        "microwsgi.cli.routes:routes_command",
        "List the routes of an App.",
        words="[APP] [options]",
        about=(*SAME_APP, "APP must be a microwsgi.App."),
        options=(JSON, BY_NAME["app_dir"]),
        examples=("microwsgi routes .", "microwsgi routes . --json"),
    ),
    Command(
        "status",
        "microwsgi.cli.control:status_command",
        "Show background servers.",
        words="[ADDRESS] [options]",
        about=(
            "",
            "ADDRESS is the address of the server, such as 127.0.0.1:8000, or its port.",
            "Without it, all servers are shown.",
            "",
            "Exit codes: 0 running, 1 killed (pid file left), 3 not running, 4 unknown.",
        ),
        options=(JSON, BY_NAME["pid_file"]),
        examples=("microwsgi status", "microwsgi status 8000 --json"),
    ),
    Command(
        "stop",
        "microwsgi.cli.control:stop_command",
        "Stop a background server, and wait until it has exited.",
        words="[ADDRESS] [options]",
        about=ADDRESS,
        options=(
            FORCE,
            Seconds("Stop", 30.0, parse_seconds, "SECONDS", "time limit for the server to exit", name="wait"),
            BY_NAME["pid_file"],
        ),
        examples=("microwsgi stop", "microwsgi stop 8000 --force"),
    ),
    Command(
        "restart",
        "microwsgi.cli.control:restart_command",
        "Restart a background server with the same command line.",
        words="[ADDRESS] [options]",
        about=(
            *ADDRESS,
            "",
            "With --graceful the main process stays, and starts new processes that load the",
            "code from disk. No request is refused. If the code cannot be loaded, the exit",
            "code is 1, and the last good version is still served.",
            "The exit code is 7 if no server is running.",
        ),
        options=(
            Switch("Restart", False, "load new code without refusing requests", name="graceful"),
            FORCE,
            Seconds("Stop", 60.0, parse_seconds, "SECONDS", "time limit for the restart", name="wait"),
            BY_NAME["pid_file"],
        ),
        examples=("microwsgi restart", "microwsgi restart 8000 --graceful"),
    ),
    Command(
        "logs",
        "microwsgi.cli.control:logs_command",
        "Show the log of a background server.",
        words="[ADDRESS] [options]",
        about=ADDRESS,
        options=(
            Switch("Log", False, "show new lines as they are written", name="follow", short="-f"),
            Integer("Log", 20, parse_count, "N", "number of lines to show", name="lines", short="-n"),
            BY_NAME["pid_file"],
        ),
        examples=("microwsgi logs -n 100", "microwsgi logs --follow"),
    ),
    Command(
        "unit",
        "microwsgi.cli.unit:unit_command",
        "Print a systemd unit that serves an application.",
        words="APP [options]",
        about=SAME_APP,
        options=(
            Switch("Unit", False, "print the socket unit that starts the service", name="socket", common=True),
            *OPTIONS,
        ),
        hidden=FOR_OTHERS,
        examples=(f"microwsgi unit {DEMO} --workers 2", f"microwsgi unit {DEMO} -b 0.0.0.0:80 --socket"),
    ),
    Command(
        "completion",
        "microwsgi.cli.completion:completion_command",
        "Print a script that completes commands and options in a shell.",
        words="bash|zsh|fish",
        choices=("bash", "zsh", "fish"),
        examples=(
            "microwsgi completion bash >> ~/.bashrc",
            "microwsgi completion fish > ~/.config/fish/completions/microwsgi.fish",
        ),
    ),
)
"""The commands."""
