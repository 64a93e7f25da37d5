"""`microwsgi unit`: print a systemd service for an application, and with --socket the socket unit that starts it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from microwsgi.errors import UsageError
from microwsgi.options import BY_NAME, names, switch

SERVICE = """\
[Unit]
Description=microwsgi serving {app}
After=network.target

[Service]
Type=notify
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
WorkingDirectory={folder}
RuntimeDirectory=microwsgi/%N
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
        print(SOCKET.format(app=words[0], listen=listen(options)), end="")  # noqa: T201 - what was asked for
        return 0
    arguments = [sys.executable, "-m", "microwsgi", "serve", words[0], *flags(options)]
    command = " ".join(map(quoted, arguments))
    print(SERVICE.format(app=words[0], command=command, folder=os.getcwd()), end="")  # noqa: T201 - what was asked for
    return 0


def flags(options: Mapping[str, object]) -> list[str]:
    """The options as `microwsgi serve` takes them; --daemon is systemd's own business."""
    found = []
    for name, value in options.items():
        option = BY_NAME[name]
        if name == "daemon":
            continue
        if option.convert is switch:
            found.append(option.flag if option.take(value) else f"--no-{option.flag[2:]}")
        elif option.convert is names:
            found += [part for each in names(value) for part in (option.flag, each)]  # type: ignore[arg-type]  # checked
        else:
            found += [option.flag, option.shown(value)]
    return found


def listen(options: Mapping[str, object]) -> str:
    """The socket unit's lines for the addresses."""
    default = {name: BY_NAME[name].default for name in ("host", "port")}
    bind = names(options.get("bind", ()))  # type: ignore[arg-type]  # checked
    addresses = bind or [f"{options.get('host', default['host'])}:{options.get('port', default['port'])}"]
    return "\n".join(f"ListenStream={address.removeprefix('unix:')}" for address in addresses)


def quoted(text: str) -> str:
    """A word of ExecStart: systemd.service(5), "Command lines"."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if not text or " " in text or "'" in text or '"' in text else text
