"""Several processes on the same sockets: a parent, its children, and what makes it replace them."""
