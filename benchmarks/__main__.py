"""`python -m benchmarks`. If a package is missing, the program exits and names the command that installs all of them."""

import sys

try:
    from benchmarks.command import main

    sys.exit(main())
except ModuleNotFoundError as error:
    package = (error.name or "").partition(".")[0]
    sys.exit(f"The benchmarks need the package {package}. To install all packages and run the benchmarks: make bench")
