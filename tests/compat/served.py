"""The application that every server of a run imports: that of the product in COMPAT_PRODUCT."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from tests.compat import PRODUCTS

product = import_module(f"{PRODUCTS}.{os.environ['COMPAT_PRODUCT']}")
application = product.application(Path(os.environ["COMPAT_FOLDER"]))
