"""The stores of trusted CAs of browsers and systems, and the programs that change them.

The methods of a store return "" on success, else a sentence with the steps to do by hand. Only the stores of this user are
changed, and the system's store with --system.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from glob import glob

from microwsgi.tls.authority import Authority

NICKNAME = "microwsgi development CA"
LIMIT = 20.0
"""The time limit of a program in seconds: certutil, for example, may wait for input."""
NSS = ("~/.pki/nssdb", "~/snap/chromium/current/.pki/nssdb")
"""The NSS databases of Chromium."""
FIREFOX = (
    "~/.mozilla/firefox/*",
    "~/snap/firefox/common/.mozilla/firefox/*",
    "~/.var/app/org.mozilla.firefox/.mozilla/firefox/*",
    "~/Library/Application Support/Firefox/Profiles/*",
)
ANCHORS = (
    ("/usr/local/share/ca-certificates", "microwsgi.crt", ("update-ca-certificates",)),
    ("/etc/pki/ca-trust/source/anchors", "microwsgi.pem", ("update-ca-trust", "extract")),
    ("/etc/ca-certificates/trust-source/anchors", "microwsgi.pem", ("trust", "extract-compat")),
    ("/usr/share/pki/trust/anchors", "microwsgi.pem", ("update-ca-certificates",)),
)
"""The folder, the name of our file, and the program that reads it, on Debian, Fedora, Arch and SUSE."""


class Store:
    """A store of trusted CAs."""

    name = ""

    def has(self, authority: Authority) -> bool:
        """Return whether the store contains the CA."""
        raise NotImplementedError

    def add(self, authority: Authority) -> str:
        """Add the CA. Return "" or the error."""
        raise NotImplementedError

    def remove(self, authority: Authority) -> str:
        """Remove the CA. Return "" or the error."""
        raise NotImplementedError


class Database(Store):
    """The NSS database of Chromium, or of a Firefox profile."""

    def __init__(self, folder: str, browser: str) -> None:
        self.folder = folder
        self.name = f"{browser} ({folder})"

    def certutil(self, *arguments: str) -> str:
        """Run certutil, with the empty password that these databases have."""
        program = shutil.which("certutil")
        if program is None:
            return (
                "the program certutil is missing. On Debian: apt install libnss3-tools; "
                "or import the file in the browser's settings"
            )
        read, write = os.pipe()
        os.close(write)
        try:
            return run([program, *arguments, "-d", f"sql:{self.folder}", "-f", f"/dev/fd/{read}"], pass_fd=read)
        finally:
            os.close(read)

    def has(self, authority: Authority) -> bool:  # by its name
        return not self.certutil("-L", "-n", NICKNAME)

    def add(self, authority: Authority) -> str:
        if not os.path.exists(os.path.join(self.folder, "cert9.db")):
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            if problem := self.certutil("-N", "--empty-password"):
                return problem
        self.remove(authority)  # the certificate of an earlier CA
        return self.certutil("-A", "-t", "C,,", "-n", NICKNAME, "-i", authority.certificate)

    def remove(self, authority: Authority) -> str:
        return self.certutil("-D", "-n", NICKNAME) if self.has(authority) else ""


class Anchors(Store):
    """The system's store on Linux."""

    def __init__(self, folder: str, file: str, program: tuple[str, ...]) -> None:
        self.file = os.path.join(folder, file)
        self.program = program
        self.name = f"system ({self.file})"

    def has(self, authority: Authority) -> bool:
        try:
            with open(self.file, encoding="ascii") as ours, open(authority.certificate, encoding="ascii") as ca:
                return ours.read() == ca.read()
        except OSError:
            return False

    def add(self, authority: Authority) -> str:
        try:
            shutil.copyfile(authority.certificate, self.file)
            os.chmod(self.file, 0o644)
        except OSError as error:
            steps = f"sudo cp {authority.certificate} {self.file} && sudo {' '.join(self.program)}"
            return f"{error.strerror}; as root: {steps}"
        return run(list(self.program))

    def remove(self, authority: Authority) -> str:  # the file is ours
        try:
            os.unlink(self.file)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{error.strerror}; as root: sudo rm {self.file} && sudo {' '.join(self.program)}"
        return run(list(self.program))


class Program(Store):
    """A store that a program of the system manages: macOS and Windows."""

    def __init__(self, name: str, add: list[str], remove: list[str], find: list[str]) -> None:
        self.name = name
        self.commands = add, remove, find

    def has(self, authority: Authority) -> bool:
        return not run(self.filled(2, authority))

    def add(self, authority: Authority) -> str:
        return run(self.filled(0, authority))

    def remove(self, authority: Authority) -> str:
        return run(self.filled(1, authority)) if self.has(authority) else ""

    def filled(self, number: int, authority: Authority) -> list[str]:
        """Return a command with its arguments filled in."""
        return [word.format(file=authority.certificate, name=NICKNAME) for word in self.commands[number]]


def stores(*, system: bool = False) -> list[Store]:
    """Return the existing stores of this user, and with `system` also the system's."""
    found: list[Store] = []
    if sys.platform == "darwin":
        chain = os.path.expanduser("~/Library/Keychains/login.keychain-db")
        found.append(
            Program(
                "keychain",
                ["security", "add-trusted-cert", "-r", "trustRoot", "-k", chain, "{file}"],
                ["security", "remove-trusted-cert", "{file}"],
                ["security", "verify-cert", "-c", "{file}"],
            )
        )
    elif os.name == "nt":
        found.append(
            Program(
                "Windows (this user's root store)",
                ["certutil", "-user", "-addstore", "Root", "{file}"],
                ["certutil", "-user", "-delstore", "Root", "{name}"],
                ["certutil", "-user", "-store", "Root", "{name}"],
            )
        )
    else:
        found += [Database(path, "Chromium") for path in map(os.path.expanduser, NSS) if chromium_uses(path)]
    profiles = [path for pattern in FIREFOX for path in glob(os.path.expanduser(pattern))]
    found += [Database(path, "Firefox") for path in profiles if os.path.exists(os.path.join(path, "cert9.db"))]
    if system:
        found += [Anchors(*each) for each in ANCHORS if os.path.isdir(each[0])][:1]
    return found


def chromium_uses(folder: str) -> bool:
    """Return whether the database exists, or an installed browser would create it."""
    if os.path.exists(os.path.join(folder, "cert9.db")):
        return True
    browsers = ("chromium", "chromium-browser", "google-chrome", "brave-browser", "microsoft-edge")
    return folder == os.path.expanduser(NSS[0]) and any(map(shutil.which, browsers))


def run(command: list[str], pass_fd: int | None = None) -> str:
    """Run a program. Return "" or the last line of its error output."""
    try:
        done = subprocess.run(  # programs of the system, with our own arguments
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT,
            check=False,
            pass_fds=() if pass_fd is None else (pass_fd,),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]} can't be run: {error}"
    said = (done.stderr or done.stdout).strip().splitlines() or [f"{command[0]} failed"]
    return said[-1] if done.returncode else ""
