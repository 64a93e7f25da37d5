"""The measuring clients. Each runs in a process of its own and prints its result as JSON."""
