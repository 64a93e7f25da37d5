"""`python -m benchmarks`. A package that is not installed ends it with the command that installs everything it uses."""

import sys

try:
    from benchmarks.command import main

    sys.exit(main())
except ModuleNotFoundError as error:
    package = (error.name or "").partition(".")[0]
    sys.exit(f"The benchmarks need the package {package}. Install what they use and run them with: make bench")
