"""`microwsgi unit`: print a systemd service for an application, and with --socket the socket unit that starts it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from microwsgi.errors import UsageError
from microwsgi.options import Options
from microwsgi.options.declaration import BY_NAME
from microwsgi.options.kinds import Names, Switch, parse_names

SERVICE = """\
[Unit]
Description=microwsgi serving {app}
After=network.target

[Service]
Type=notify
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
WorkingDirectory={folder}
{environment}RuntimeDirectory=microwsgi/%N
WatchdogSec=20
Restart=on-failure
TimeoutStopSec=15
KillMode=mixed
UMask=027

DynamicUser=yes
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
Description=where microwsgi serves {app}

[Socket]
{listen}
FileDescriptorName=web

[Install]
WantedBy=sockets.target
"""


def unit_command(words: list[str], options: dict[str, object]) -> int:
    """`microwsgi unit`. Raises UsageError."""
    if len(words) != 1:
        raise UsageError("say which application: microwsgi unit module:attribute.")
    if options.pop("socket"):
        print(SOCKET.format(app=words[0], listen=listen(options)), end="")
        return 0
    arguments = [sys.executable, "-m", "microwsgi", "serve", words[0], *flags(options)]
    command = " ".join(map(quoted, arguments))
    text = SERVICE.format(app=words[0], command=command, folder=os.getcwd(), environment=environment(options))
    print(text, end="")
    return 0


def flags(options: Mapping[str, object]) -> list[str]:
    """The options as `microwsgi serve` takes them; --daemon is systemd's own business."""
    found = []
    for name, value in options.items():
        option = BY_NAME[name]
        if name == "daemon":
            continue
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
    """The lines of the unit that set the options without a flag."""
    named = [(BY_NAME[name], value) for name, value in options.items() if not BY_NAME[name].has_flag]
    return "".join(f"Environment={quoted(f'{each.variables[0]}={each.format(value)}')}\n" for each, value in named)


def listen(options: Mapping[str, object]) -> str:
    """The socket unit's lines for the addresses."""
    given = {name: options[name] for name in ("bind", "host", "port") if name in options}
    addresses = Options.from_mapping(given).addresses
    return "\n".join(f"ListenStream={address.removeprefix('unix:')}" for address in addresses)


def quoted(text: str) -> str:
    """A word of ExecStart: systemd.service(5), "Command lines"."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if not text or " " in text or "'" in text or '"' in text else text
