"""`microwsgi unit`: print a systemd service for an application, and with --socket the socket unit that starts it."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path

from microwsgi.errors import UsageError
from microwsgi.options import Options
from microwsgi.options.declaration import BY_NAME
from microwsgi.options.kinds import Names, Switch, parse_names
from microwsgi.server.forwarded import trusted_proxies
from microwsgi.serving.loader import load_named

SERVICE = """\
[Unit]
Description=microwsgi serving {app}
After=network.target

[Service]
Type=notify
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
{identity}
# The application can write to /var/lib/%N, to its directories below /run, and to its own /tmp.
StateDirectory=%N
WorkingDirectory={folder}
Environment=HOME=%S/%N
{environment}RuntimeDirectory=microwsgi/%N{runtime}
WatchdogSec=20
Restart=on-failure
TimeoutStopSec=15
KillMode=mixed
UMask={umask}

AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateTmp=yes
PrivateDevices=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""
SOCKET = """\
[Unit]
Description=socket of microwsgi serving {app}

[Socket]
{listen}
FileDescriptorName=web
{access}
[Install]
WantedBy=sockets.target
"""
OF_SYSTEMD = ("daemon", "user", "group", "umask", "chdir", "app_dir")
"""Options that other lines of the unit replace, or that are written to ExecStart in another form."""
FOR_TERMINALS = {
    "reload": "a service has no terminal; systemctl reload loads new code",
    "pid_file": "systemd tracks the process; leave the option out",
    "log_file": "the log is in the journal; leave the option out",
}
"""Options that can't be used in a unit, and the reasons."""
PATHS = ("config", "tls_password_file", "tls_client_ca", "tls_cert", "tls_key")
"""Options that are paths of files to read."""
RUN = "/run/"


def unit_command(words: list[str], options: dict[str, object]) -> int:
    """Run `microwsgi unit`. Raises UsageError, also for options that can't work in a unit."""
    if len(words) != 1:
        raise UsageError("the application is missing.\n  Try:  microwsgi unit module:attribute")
    socket = options.pop("socket")
    checked = Options.from_mapping(options)
    check(words[0], checked)
    if socket:
        print(SOCKET.format(app=words[0], listen=listen(options), access=access(checked)), end="")
        return 0
    place = os.path.abspath(checked.app_dir)
    given = {name: absolute(name, value) for name, value in options.items() if name not in OF_SYSTEMD}
    arguments = [sys.executable, "-m", "microwsgi", "serve", words[0], "--app-dir", place, *flags(given)]
    text = SERVICE.format(
        app=words[0],
        command=" ".join(map(quoted, arguments)),
        identity=identity(checked),
        folder=os.path.abspath(checked.chdir).replace("%", "%%") if checked.chdir else "%S/%N",
        runtime="".join(f" {folder}" for folder in runtime_folders(checked)),
        umask=checked.umask or "027",
        environment=environment(given),
    )
    print(text, end="")
    needed = [sys.executable, place, *checked.tls_cert, *checked.tls_key]
    for path in temporary(needed):
        print(
            f"Note: the service does not see {path}: it has its own /tmp and /var/tmp (PrivateTmp=yes).",
            file=sys.stderr,
        )
    for path in unreadable(needed, checked):
        print(f"Note: the user of the service can't read {path}.", file=sys.stderr)
    return 0


def check(application: str, options: Options) -> None:
    """Raise UsageError for options and an application that can't work as a service."""
    trusted_proxies(options)
    for name, reason in FOR_TERMINALS.items():
        if getattr(options, name):
            raise UsageError(f"{BY_NAME[name].label} can't be used in a unit: {reason}.")
    names = ((pwd.getpwnam, options.user), (grp.getgrnam, options.group), (grp.getgrnam, options.socket_group))
    for look_up, name in names:
        try:
            if name:
                look_up(name)
        except KeyError:
            raise UsageError(f"no such user or group: {name}.") from None
    for path in unix_paths(options):
        if not path.startswith(RUN) or os.path.dirname(path) == RUN.rstrip("/"):
            raise UsageError(
                f"the service can't write to the directory of unix:{path}. Use a directory of the service below /run, like "
                "unix:/run/NAME/web.sock."
            )
    if options.access_log not in {"-", "off"} and os.path.isabs(options.access_log):
        raise UsageError(
            f"the service can't write --access-log {options.access_log}: leave it out, or use a name without a directory."
        )
    with contextlib.redirect_stdout(sys.stderr):  # output of the application is not part of the unit
        load_named(application, options.app_dir, options.config)


def identity(options: Options) -> str:
    """Return the lines for the user and the groups."""
    lines = [f"User={options.user}"] if options.user else ["DynamicUser=yes"]
    lines += [f"Group={options.group}"] if options.group else []
    lines += [f"SupplementaryGroups={options.socket_group}"] if options.socket_group else []
    return "\n".join(lines)


def unix_paths(options: Options) -> list[str]:
    """Return the paths of Unix sockets."""
    paths = [address.removeprefix("unix:") for address in options.addresses if address.startswith("unix:")]
    return [path for path in paths if not path.startswith("@")]


def runtime_folders(options: Options) -> list[str]:
    """Return the folders of Unix sockets, relative to /run, for RuntimeDirectory=."""
    return [os.path.dirname(path).removeprefix(RUN) for path in unix_paths(options)]


def access(options: Options) -> str:
    """Return the socket unit's lines for the permissions of a Unix socket; systemd's default would be 0666."""
    if not unix_paths(options):
        return ""
    group = f"SocketGroup={options.socket_group}\n" if options.socket_group else ""
    return f"SocketMode={options.socket_mode or '600'}\n{group}"


def absolute(name: str, value: object) -> object:
    """Return a value with absolute paths: the service starts in another folder."""
    if name not in PATHS or not value:
        return value
    return os.path.abspath(value) if isinstance(value, str) else [os.path.abspath(each) for each in parse_names(value)]


def unreadable(paths: list[str], options: Options) -> list[str]:
    """Return the files, and the directories above them, that the user of the service may not read."""
    user, groups = -1, set[int]()  # of DynamicUser=
    if options.user:
        entry = pwd.getpwnam(options.user)
        user, groups = entry.pw_uid, set(os.getgrouplist(options.user, entry.pw_gid))
    if options.group:
        groups.add(grp.getgrnam(options.group).gr_gid)
    found = {
        str(each)
        for path in map(Path, map(os.path.realpath, paths))
        for each in (path, *path.parents)
        if each.exists() and not is_readable(each, user, groups)
    }
    return sorted(found)


def is_readable(path: Path, user: int, groups: set[int]) -> bool:
    """Return whether the mode allows a user to read a file, or to enter a directory."""
    status = path.stat()
    wanted = 0o001 if path.is_dir() else 0o004
    if status.st_uid == user:
        wanted <<= 6
    elif status.st_gid in groups:
        wanted <<= 3
    return user == 0 or bool(status.st_mode & wanted)


def temporary(paths: list[str]) -> list[str]:
    """Return the paths that the service does not see: PrivateTmp= gives it directories of its own."""
    return sorted({path for path in map(os.path.realpath, paths) if path.startswith(("/tmp/", "/var/tmp/"))})  # noqa: S108 - compared


def flags(options: Mapping[str, object]) -> list[str]:
    """Return the options as arguments of `microwsgi serve`."""
    found = []
    for name, value in options.items():
        option = BY_NAME[name]
        if not option.has_flag:
            continue
        if isinstance(option, Switch):
            found.append(option.flag if option.parse(value) else option.off_flag)
        elif isinstance(option, Names):
            found += [part for each in parse_names(value) for part in (option.flag, each)]
        else:
            found += [option.flag, option.format(value)]
    return found


def environment(options: Mapping[str, object]) -> str:
    """Return the lines of the unit that set the options without a flag."""
    named = [(BY_NAME[name], value) for name, value in options.items() if not BY_NAME[name].has_flag]
    return "".join(f"Environment={quoted(f'{each.variables[0]}={each.format(value)}')}\n" for each, value in named)


def listen(options: Mapping[str, object]) -> str:
    """Return the socket unit's lines for the addresses."""
    given = {name: options[name] for name in ("bind", "host", "port") if name in options}
    addresses = Options.from_mapping(given).addresses
    return "\n".join(f"ListenStream={address.removeprefix('unix:')}" for address in addresses)


def quoted(text: str) -> str:
    """Return a word quoted for ExecStart (systemd.service(5), "Command lines")."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if not text or " " in text or "'" in text or '"' in text else text
