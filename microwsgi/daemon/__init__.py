"""Background processes: start, pid file, privileges, control socket, systemd."""
