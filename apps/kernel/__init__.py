"""The network as Linux shows it to any user. Each module is one interface of the kernel: bytes or text in, values out."""
