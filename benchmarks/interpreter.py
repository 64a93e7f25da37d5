"""How this Python was built, as far as that changes its speed."""

from __future__ import annotations

import platform
import sys
import sysconfig

FREE_THREADED = "free-threaded"


def build_options() -> list[str]:
    """Return the build options of this Python: `free-threaded`, `profile-guided`, and the distribution that built it.

    Debian's Python is built with profile-guided optimisation, but its configuration variables do not show that.
    """
    variables = sysconfig.get_config_vars("Py_GIL_DISABLED", "CONFIG_ARGS", "PY_CORE_CFLAGS")
    free_threaded, arguments, flags = variables
    options = [FREE_THREADED] if free_threaded else []
    if "--enable-optimizations" in str(arguments) or "-fprofile-use" in str(flags):
        options.append("profile-guided")
    if sys.base_prefix == "/usr":
        try:
            options.append(f"of {platform.freedesktop_os_release()['NAME']}")
        except OSError:
            pass
    return options
