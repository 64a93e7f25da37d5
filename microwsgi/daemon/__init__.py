"""In the background: a start that tells whether it succeeded, one process for each pid file, another user, systemd."""
