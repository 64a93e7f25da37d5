# The types of the options as keyword arguments. Generated: python -m microwsgi.options keywords

from collections.abc import Iterable
from typing import Literal, TypedDict
from typing import Unpack as Unpack

class OptionValues(TypedDict, total=False):
    host: str
    """Address to listen on; 0.0.0.0 for all interfaces"""
    port: int | str
    """Port to listen on; 0 for any free port"""
    bind: str | Iterable[str]
    """Listen on HOST:PORT, unix:PATH or fd://N; repeatable"""
    allow_host: str | Iterable[str]
    """Accept requests for this host name; .example.org for a domain and its subdomains, '*' for any; repeatable"""
    socket_mode: str
    """File mode of a Unix socket, such as 660"""
    socket_group: str
    """Group of a Unix socket"""
    backlog: int | str
    """Maximum length of the queue of pending connections"""
    forwarded_allow_ips: str | Iterable[str]
    """Trust the forwarded fields of these proxies: addresses, networks, unix, or '*' for all; repeatable"""
    forwarded_fields: str | Iterable[str]
    """Fields that the proxies of --forwarded-allow-ips set: for, proto, host, port, prefix, or forwarded; repeatable"""
    proxy_protocol: bool
    """Expect the PROXY protocol from the proxies of --forwarded-allow-ips"""
    app_dir: str
    """Directory to import the application from"""
    config: str
    """Read options from this file instead of pyproject.toml"""
    full_traceback: bool
    """Print the whole traceback if the application cannot be loaded"""
    workers: int | str
    """Number of worker processes; auto: one per CPU; 0: serve in this process, unless another option needs a worker"""
    threads: int | str
    """Maximum number of concurrent calls of the application"""
    graceful_timeout: float | str
    """Time for running requests to finish when the server stops"""
    reload: bool
    """Load new code as soon as a file is saved"""
    reload_include: str | Iterable[str]
    """Also watch the files that match GLOB; repeatable"""
    reload_exclude: str | Iterable[str]
    """Do not watch files and directories that match GLOB; repeatable"""
    reload_poll: bool
    """Look for changes by polling, for network file systems"""
    reload_error_page: bool
    """If saved code cannot be loaded, serve the error instead of the last good version"""
    debug: bool
    """Show tracebacks in browsers that have opened the printed address"""
    log_slow_requests: float | str
    """Log a stack trace of requests that take longer than SECONDS; 0 for never"""
    editor: str
    """Open source lines of error pages in this editor: vscode, pycharm, sublime, emacs, zed, or a URL such as x://{file}:{line}"""
    access_log: str
    """File for the access log; - for standard output, off for none"""
    log_format: Literal["auto", "line", "common", "combined", "json"]
    """Format of the access log: auto, line, common, combined or json"""
    log_level: Literal["info", "warning", "error"]
    """Least severe level to log: info, warning or error"""
    color: Literal["auto", "always", "never"]
    """Colored output: auto, always or never"""
    tls: bool
    """Serve HTTPS with a certificate of a local development CA"""
    tls_cert: str | Iterable[str]
    """Serve HTTPS with this certificate (PEM); repeatable"""
    tls_key: str | Iterable[str]
    """Private key of the certificate, if in another file; repeatable"""
    tls_password_file: str
    """File with the password of an encrypted private key"""
    tls_min: Literal["1.2", "1.3"]
    """Minimum TLS version: 1.2 or 1.3"""
    tls_client_ca: str
    """Verify client certificates with the CAs in this file"""
    tls_client_cert: Literal["required", "optional"]
    """Whether clients need a certificate: required or optional"""
    tls_keylog: str
    """File for session keys, which Wireshark can read"""
    https_redirect: bool
    """Redirect plain HTTP to HTTPS on the same port, instead of serving both"""
    tls_handshake_timeout: float | str
    """Time limit for a TLS handshake"""
    daemon: bool
    """Serve in the background"""
    pid_file: str
    """Pid file of the server"""
    log_file: str
    """Write all output to this file"""
    user: str
    """After binding, run as this user; requires root"""
    group: str
    """After binding, run as this group; requires root"""
    umask: str
    """File mode creation mask, such as 027"""
    chdir: str
    """Change to this directory before the application is loaded"""
    max_connections: int | str
    """Maximum number of open connections; 0 for as many as the system allows"""
    max_body_size: int | str
    """Maximum size of a request body (413)"""
    max_header_size: int | str
    """Maximum size of the request line and all header fields (431)"""
    max_line_size: int | str
    """Maximum size of the request line (414), and of a header field (431)"""
    max_header_count: int | str
    """Maximum number of header fields of a request (431)"""
    body_buffer_size: int | str
    """Receive bodies up to this size before the application is called"""
    max_temp_files_size: int | str
    """Maximum total size of bodies in temporary files (503)"""
    stream_chunked: bool
    """Pass chunked bodies to the application while they arrive"""
    header_timeout: float | str
    """Time limit for receiving the headers of a request (408)"""
    keep_alive_timeout: float | str
    """Close a connection that has been idle for SECONDS"""
    body_timeout: float | str
    """Time limit for a body that arrives more slowly than min_body_rate (408)"""
    min_body_rate: int | str
    """Minimum rate of a request body, in bytes per second"""
    send_timeout: float | str
    """Time limit for a client that reads more slowly than min_send_rate"""
    min_send_rate: int | str
    """Minimum rate at which a client reads, in bytes per second"""
