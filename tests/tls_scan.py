"""`make tls-scan`: sslyze looks at a server with TLS of this checkout, by Mozilla's recommendations of today.

The server has the certificate that `--tls` makes, in a folder of its own, on a free port of this machine. Exit code 0 if there
is nothing to complain about but what docs/tls.md explains.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import tempfile
from importlib.metadata import version

from tests.running import Running, microwsgi

SCANS = {"intermediate": "1.2", "modern": "1.3"}
"""Mozilla's configurations, and the --tls-min that each is for."""
EXPLAINED = "tls_curves"
"""What Python can't set: a list of groups for the key exchange, before 3.15."""
SCAN_TIME = 120


def scan(name: str, oldest: str, folder: str) -> list[str]:
    """What does not comply with a configuration."""
    command = microwsgi("serve", "apps.echo:app", "--tls", "--tls-min", oldest, "--port", "0", "--access-log", "off")
    server = Running(command, XDG_DATA_HOME=folder)
    try:
        port = server.url().rpartition(":")[2]
        authority = os.path.join(folder, "microwsgi", "ca.pem")
        words = ["--mozilla_config", name, "--certinfo_ca_file", authority, f"127.0.0.1:{port}"]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "sslyze", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=SCAN_TIME,
        )
    finally:
        server.end()
    said, _, verdict = done.stdout.partition("COMPLIANCE AGAINST")
    if not verdict:
        sys.exit(f"sslyze has no verdict:\n{said[-2000:]}\n{done.stderr[-2000:]}")
    return [line.strip()[2:] for line in verdict.splitlines() if line.strip().startswith("* ")]


def main() -> int:
    """Scan, and tell."""
    print(f"sslyze {version('sslyze')}, Python {sys.version.split()[0]}, {ssl.OPENSSL_VERSION}")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, oldest in SCANS.items():
            found = scan(name, oldest, folder)
            print(f"Mozilla {name} (--tls-min {oldest}): {'as recommended' if not found else ''}".rstrip())
            for line in found:
                explained = line.startswith(EXPLAINED)
                wrong += not explained
                print(f"  {line}{' (docs/tls.md says why)' if explained else ''}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
