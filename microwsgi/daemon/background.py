"""The files of a background process, and the pipe on which it reports that it is ready: see `microwsgi.daemon.launch`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, MutableMapping
from stat import S_IMODE

from microwsgi.errors import UsageError
from microwsgi.options import Options
from microwsgi.process.system import System

VARIABLE = "_MICROWSGI_READY_FD"
"""The variable with the descriptor of the background process's end of the pipe. MICROWSGI_... variables are options."""
SYSTEM_FOLDER = "/run/microwsgi"
"""The run folder of root, and of services that systemd has started."""
UMASK = 0o027
"""The umask of a background process without --umask: its group can read the files that it writes, other users can't."""

# --- Files ---------------------------------------------------------------------------------------------------------------


def run_folder() -> str:
    """Return the folder for pid files. Raises UsageError if it can't be created, or if another user could write to it."""
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        folder = os.path.join(base, "microwsgi")
    elif not os.geteuid():
        folder = SYSTEM_FOLDER
    else:
        folder = f"/tmp/microwsgi-{os.geteuid()}"  # noqa: S108 - the owner is checked below
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        status = os.lstat(folder)
    except OSError as error:
        raise UsageError(f"the directory {folder} can't be created: {error.strerror}. Set XDG_RUNTIME_DIR.") from None
    if status.st_uid != os.geteuid() or S_IMODE(status.st_mode) & 0o022:
        raise UsageError(
            f"{folder} belongs to another user, or other users can write to it. Set XDG_RUNTIME_DIR to another directory."
        )
    return folder


def run_folders() -> list[str]:
    """Return the folders that are searched for pid files: this user's, and those of systemd services."""
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
    """Return the path of a pid file, in `folder` or in the run folder; "" while the port is not known."""
    if options.pid_file:
        return os.path.abspath(options.pid_file)
    if address.endswith(":0"):
        return ""
    return os.path.join(folder or run_folder(), file_name(address) + ".pid")


def log_path(options: Options) -> str:
    """Return the path of the log of a background process. Raises UsageError."""
    if options.log_file:
        return os.path.abspath(options.log_file)
    folder = log_folder()
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the directory {folder} can't be created: {error.strerror}. Add --log-file FILE.") from None
    return os.path.join(folder, file_name(options.addresses[0]) + ".log")


def log_folder() -> str:
    """Return the folder for logs of background processes. It may not exist yet."""
    base = "~/.local/state" if os.geteuid() else "/var/log"
    return os.path.join(os.environ.get("XDG_STATE_HOME") or os.path.expanduser(base), "microwsgi")


def file_name(address: str) -> str:
    """Return the file name for an address."""
    return address.replace("%", "%25").replace("/", "%2F")


def address_of(name: str) -> str:
    """Return the address that a file name stands for."""
    return name.replace("%2F", "/").replace("%25", "%")


def redirect(path: str, system: System, copies: Iterable[int] = ()) -> None:
    """Redirect standard output and error to a file, in append mode. If it can't be opened, they are unchanged. Raises OSError.

    `copies` are duplicates of the standard streams, which are redirected, too.
    """
    descriptor = system.open_append(path)
    for target in (1, 2, *copies):
        if target != descriptor:
            system.duplicate(descriptor, target)
    if descriptor > 2:  # it is not a standard stream
        os.close(descriptor)


# --- The pipe -----------------------------------------------------------------------------------------------------------


class Readiness:
    """The background process's end of the pipe to its launcher. Does nothing if there is no launcher."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self.descriptor = int(environ.pop(VARIABLE, "-1"))
        if self.descriptor >= 0:
            os.set_inheritable(self.descriptor, False)

    def send(self, **message: object) -> None:
        """Report the result of the start to the launcher, once."""
        if self.descriptor < 0:
            return
        try:
            os.write(self.descriptor, json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # the launcher has ended
        self.close()

    def close(self) -> None:
        """Close the pipe. A child process also calls this, so that the launcher sees the end of the pipe."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
