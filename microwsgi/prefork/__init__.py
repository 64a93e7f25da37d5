"""Several processes on the same listening sockets: a parent process, and children that it starts, replaces and stops."""
