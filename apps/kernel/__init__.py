"""What Linux tells any user about its network: each module is one interface of the kernel, bytes or text in and values out."""
