"""What Linux tells any user of its network: each module is one interface of the kernel, bytes or text in and values out.

Nothing in here needs a privilege or a package; on other systems `elsewhere` asks psutil for what there is.
"""
