"""From a socket to an application: PEP 3333 on http.server's classes. No WebOb."""
