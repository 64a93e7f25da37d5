"""The operating system as the processes of a server use it: system calls, standard streams, fork, and exit."""
