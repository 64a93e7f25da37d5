"""Drop root's privileges irreversibly, and verify that they are gone.

`microwsgi.serving.service` does this after the sockets are bound and the log is open, and before any module of the application
is imported: the application's code never runs as root, not even after a reload.
"""

from __future__ import annotations

import grp
import os
import pwd

from microwsgi.errors import UsageError


class Identity:
    """A user, a group, or both, by name or number. Raises UsageError."""

    def __init__(self, user: str, group: str) -> None:
        self.name = user
        self.uid, self.gid = -1, -1
        name = user
        try:
            if user:
                entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
                self.name, self.uid, self.gid = entry.pw_name, entry.pw_uid, entry.pw_gid
            name = group or user
            if group:
                self.gid = (grp.getgrgid(int(group)) if group.isdigit() else grp.getgrnam(group)).gr_gid
        except KeyError:
            raise UsageError(f"no such user or group: {name}.") from None
        if os.geteuid() and not (self.uid in {-1, os.geteuid()} and self.gid in {-1, os.getegid()}):
            raise UsageError("--user and --group work only if root starts the server. Leave them out.")

    def chown(self, path: str, *, keep_group: bool = False) -> None:
        """Change the owner of a file to this user, so that the process can open it again. Raises UsageError."""
        if not os.geteuid():
            try:
                os.chown(path, self.uid, -1 if keep_group else self.gid, follow_symlinks=False)
            except OSError as error:
                raise UsageError(f"the owner of {path} can't be changed: {error.strerror}.") from None

    def drop_privileges(self) -> None:
        """Become this user and group. Raises UsageError if that fails, or if the process could become root again."""
        if os.geteuid():
            return
        try:
            if self.uid >= 0:
                os.initgroups(self.name, self.gid)
            else:
                os.setgroups([self.gid])
            os.setgid(self.gid)
            if self.uid >= 0:
                os.setuid(self.uid)  # for root this also sets the saved set-user-ID, so it is irreversible
        except OSError as error:
            raise UsageError(f"root's privileges can't be dropped: {error.strerror}.") from None
        self.verify()

    def verify(self) -> None:
        """Raise UsageError if the process still has privileges of root."""
        groups = {os.getgid(), os.getegid()}
        users = {os.getuid(), os.geteuid()} if self.uid >= 0 else {self.uid}
        if groups != {self.gid} or users != {self.uid}:
            raise UsageError("root's privileges were not dropped: the process still has another user or group.")
        if self.uid <= 0:
            return
        try:
            os.setuid(0)
        except PermissionError:
            pass
        else:
            raise UsageError("root's privileges were not dropped: this process could become root again.")
        library = os.path.dirname(os.__file__)
        if not os.access(library, os.R_OK | os.X_OK):
            raise UsageError(
                f"the user {self.name} can't read {library}, the library of this Python: use a Python that all users can read."
            )
