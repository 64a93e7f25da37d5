"""From an environ to a function: plain WSGI on any server, with WebOb's requests and responses."""
