"""Real products and clients on microwsgi and on other servers, compared: `make compat` (docs/development.md)."""

PRODUCTS = "tests.compat.products"
"""The package of the products' modules."""
