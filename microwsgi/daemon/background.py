"""A background process's files, and the pipe on which it says that it serves: see `microwsgi.daemon.launch`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, MutableMapping
from stat import S_IMODE

from microwsgi.errors import UsageError
from microwsgi.options import Options
from microwsgi.process.system import System

VARIABLE = "_MICROWSGI_READY_FD"
"""How the background process knows its end of the pipe. Not one of the variables that people set: those are options."""
SYSTEM_FOLDER = "/run/microwsgi"
"""The run folder of root, and of services that systemd has started."""
UMASK = 0o027
"""Of a background process, unless --umask says otherwise: what it writes is for its group to read, and for no others."""

# --- Files ---------------------------------------------------------------------------------------------------------------


def run_folder() -> str:
    """The folder for pid files: of this user and nobody else. Raises UsageError."""
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        folder = os.path.join(base, "microwsgi")
    elif not os.geteuid():
        folder = SYSTEM_FOLDER
    else:
        folder = f"/tmp/microwsgi-{os.geteuid()}"  # noqa: S108 - which is checked below to be ours
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        status = os.lstat(folder)
    except OSError as error:
        raise UsageError(f"the folder {folder} can't be made: {error.strerror}. Set XDG_RUNTIME_DIR.") from None
    if status.st_uid != os.geteuid() or S_IMODE(status.st_mode) & 0o022:
        raise UsageError(
            f"{folder} belongs to another user, or other users can write to it. Set XDG_RUNTIME_DIR to another folder."
        )
    return folder


def run_folders() -> list[str]:
    """The folders where pid files are looked for: this user's, and those of services that systemd has started."""
    folders = [run_folder()]
    for base in dict.fromkeys([folders[0], SYSTEM_FOLDER]):
        try:
            with os.scandir(base) as entries:
                # RuntimeDirectory=microwsgi/NAME, a folder for each service.
                folders += sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError:
            continue
    return folders


def pid_path(options: Options, address: str, folder: str = "") -> str:
    """The pid file of a server, in this folder or in the run folder; "" while its port is not known."""
    if options.pid_file:
        return os.path.abspath(options.pid_file)
    if address.endswith(":0"):
        return ""
    return os.path.join(folder or run_folder(), file_name(address) + ".pid")


def log_path(options: Options) -> str:
    """Where a background process writes what it says. Raises UsageError."""
    if options.log_file:
        return os.path.abspath(options.log_file)
    folder = log_folder()
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder {folder} can't be made: {error.strerror}. Give --log-file FILE.") from None
    return os.path.join(folder, file_name(options.addresses[0]) + ".log")


def log_folder() -> str:
    """The folder for the logs of background processes; it need not be there."""
    base = "~/.local/state" if os.geteuid() else "/var/log"
    return os.path.join(os.environ.get("XDG_STATE_HOME") or os.path.expanduser(base), "microwsgi")


def file_name(address: str) -> str:
    """An address as a file's name."""
    return address.replace("%", "%25").replace("/", "%2F")


def address_of(name: str) -> str:
    """The address that a file's name is made of."""
    return name.replace("%2F", "/").replace("%25", "%")


def redirect(path: str, system: System, copies: Iterable[int] = ()) -> None:
    """Have what this process writes go to the end of a file; to the same as before if that can't be. Raises OSError.

    `copies` are descriptors that were made of the standard streams, and are to lead to the file, too.
    """
    descriptor = system.open_append(path)
    for target in (1, 2, *copies):
        if target != descriptor:
            system.duplicate(descriptor, target)
    if descriptor > 2:  # the standard streams
        os.close(descriptor)


# --- The pipe -----------------------------------------------------------------------------------------------------------


class Readiness:
    """The background process's end of the pipe. Does nothing if there is none."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self.descriptor = int(environ.pop(VARIABLE, "-1"))
        if self.descriptor >= 0:
            os.set_inheritable(self.descriptor, False)

    def send(self, **message: object) -> None:
        """Tell the launcher how the start went, once."""
        if self.descriptor < 0:
            return
        try:
            os.write(self.descriptor, json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # the launcher has gone
        self.close()

    def close(self) -> None:
        """Close the pipe, in a child: the launcher must see its end."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
