"""TLS by OpenSSL: connections, certificates, and what of them is told to applications."""
