"""TLS with OpenSSL: connections, certificates, and the TLS keys of the environ."""
