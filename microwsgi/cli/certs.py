"""`microwsgi certs`: the development CA of `microwsgi serve --tls`, and the certificate stores that trust it.

certs_command
  show, path, renew, client   microwsgi.tls.authority
  trust, untrust              microwsgi.cli.truststores
"""

from __future__ import annotations

import os
import sys

from microwsgi.cli.truststores import stores
from microwsgi.errors import UsageError
from microwsgi.options.declaration import unknown
from microwsgi.tls.authority import Authority
from microwsgi.tls.modssl import Certificate


def certs_command(words: list[str], given: dict[str, object]) -> int:
    """Run `microwsgi certs`; without a verb, `show`. Raises UsageError."""
    authority = Authority()
    verb, *rest = words or ["show"]
    if verb not in VERBS:
        nothing = unknown("command", f"certs {verb}", [f"certs {name}" for name in VERBS])
        raise UsageError(f"{nothing}\n  Try:  microwsgi certs --help")
    if verb == "client":
        if len(rest) != 1:
            raise UsageError(
                "certs client takes one name or e-mail address.\n  Try:  microwsgi certs client ann@example.com"
            )
        path = authority.client(rest[0])
        say(f"{path}\n  Try:  curl --cert {path} --cacert {authority.certificate} https://localhost:8000/")
        return 0
    if rest:
        raise UsageError(f"certs {verb} takes no arguments; remove {' '.join(rest)}.")
    return VERBS[verb](authority, bool(given.get("system")))


def show(authority: Authority, system: bool) -> int:  # as all verbs
    """Print the CA, the certificate, and the stores."""
    ca = authority.read()
    if ca is None:
        say("There is no development CA yet: `microwsgi serve --tls` and `microwsgi certs trust` create one.")
        return 0
    say(f"CA           {name_of(ca)}, {ca.days_left} days left\n             {authority.certificate}")
    leaf = authority.read_leaf()
    if leaf is not None:
        names = ", ".join(value for _, value in leaf.alternatives)
        say(f"Certificate  {names}, {leaf.days_left} days left\n             {authority.leaf_file}")
    zones = ", ".join(authority.zones())
    say(f"Valid for    {zones} and private addresses only")
    for store in stores():
        say(f"Store        {store.name}: {'trusted' if store.has(authority) else 'not trusted'}")
    return 0


def path(authority: Authority, system: bool) -> int:  # as all verbs
    """Print the path of the CA's certificate. Create the CA if there is none."""
    with authority.locked():
        authority.ensure()
    say(authority.certificate)
    return 0


def renew(authority: Authority, system: bool) -> int:  # as all verbs
    """Issue a new certificate. A running server uses it at once."""
    made = authority.renew_now()
    say(f"Renewed: {made.days_left} days left. Running servers use the new certificate for new connections.")
    return 0


def trust(authority: Authority, system: bool) -> int:  # as all verbs
    """Add the CA to the stores. Return 1 if one of them failed."""
    with authority.locked():
        authority.ensure()
    code = 0
    done = 0
    for store in stores(system=system):
        problem = store.add(authority)
        done += not problem
        code = code or int(bool(problem))
        say(f"{store.name}: {problem or 'trusted'}")
    if done:
        authority.write(authority.trusted_file, "")
    say(
        "For other programs:"
        if done
        else "No certificate store was found for this user. Tell each program about the CA:"
    )
    for line in OTHERS:
        say(f"  {line.format(authority.certificate)}")
    return code


def untrust(authority: Authority, system: bool) -> int:  # as all verbs
    """Remove the CA from the stores. Return 1 if one of them failed."""
    code = 0
    for store in stores(system=system):
        problem = store.remove(authority)
        code = code or int(bool(problem))
        say(f"{store.name}: {problem or 'no longer trusted'}")
    if os.path.exists(authority.trusted_file):
        os.unlink(authority.trusted_file)
    return code


def name_of(certificate: Certificate) -> str:
    """Return the name of a certificate's subject."""
    return " ".join(value for several in certificate.subject for _, value in several)


def say(text: str) -> None:
    """Write to the standard output."""
    sys.stdout.write(f"{text}\n")


VERBS = {"show": show, "path": path, "trust": trust, "untrust": untrust, "renew": renew, "client": show}
OTHERS = (
    "export SSL_CERT_FILE={}          # Python, Ruby, OpenSSL: instead of the public CAs",
    "export NODE_EXTRA_CA_CERTS={}    # Node: in addition to the public CAs",
    "curl --cacert {} https://localhost:8000/",
)
