"""Fixtures for pytest, found by its entry point: `client` and `live_server`, for the WSGI application that `app` is.

Define a fixture `app`, or say in the settings of pytest where it is: `microwsgi_app = "package.module:app"`. What is needed for
them is imported when a test asks for it: this module is imported by every run of pytest.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest

OTHERS = ("django", "flask")
"""Plugins that have fixtures of the same names: who has installed pytest-django or pytest-flask means theirs."""
CGI = "ignore:'cgi' is deprecated:DeprecationWarning:webob.compat"
"""WebOb imports what Python 3.11 and 3.12 deprecate: no fault of who has warnings as errors, and imports our App."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The setting."""
    parser.addini("microwsgi_app", "the WSGI application of the fixtures client and live_server, as module:attribute")


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Add to the options -W, which come after the settings of the tests, before pytest first reads them."""
    options = early_config.known_args_namespace
    options.pythonwarnings = [*(options.pythonwarnings or []), CGI]
    yield


def pytest_configure(config: pytest.Config) -> None:
    """Offer the fixtures."""
    if not any(map(config.pluginmanager.hasplugin, OTHERS)):
        config.pluginmanager.register(Fixtures())


class Fixtures:
    """What tests ask for by its name."""

    @pytest.fixture
    def app(self, request: pytest.FixtureRequest) -> object:
        """The application under test; a fixture of one's own of this name comes first."""
        spec = request.config.getini("microwsgi_app")
        if not spec:
            pytest.fail('There is no application: define a fixture `app`, or set microwsgi_app = "module:attribute".')
        return import_module("microwsgi.serving.loader").load(spec, str(request.config.rootpath))

    @pytest.fixture
    def client(self, app: object) -> object:
        """A `microwsgi.testing.Client` of the application."""
        return import_module("microwsgi.testing").Client(app)

    @pytest.fixture
    def live_server(self, app: object) -> Iterator[object]:
        """A running server with the application: `live_server.url`."""
        with import_module("microwsgi.testing").live(app) as running:
            yield running
