"""Fixtures for pytest, found by its entry point: `client` and `live_server`, for the WSGI application of the fixture `app`.

Define a fixture `app`, or name the application in the settings of pytest: `microwsgi_app = "package.module:app"`. Other modules
are imported when a test uses a fixture, because every run of pytest imports this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest

OTHERS = ("django", "flask")
"""Plugins with fixtures of the same names: if pytest-django or pytest-flask is installed, their fixtures are used."""
CGI = "ignore:'cgi' is deprecated:DeprecationWarning:webob.compat"
"""WebOb imports `cgi`, deprecated in Python 3.11 and 3.12: this must not fail tests that turn warnings into errors."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the setting."""
    parser.addini("microwsgi_app", "the WSGI application of the fixtures client and live_server, as module:attribute")


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Add a filter to the options -W, which override the settings of the tests, before pytest first reads them."""
    options = early_config.known_args_namespace
    options.pythonwarnings = [*(options.pythonwarnings or []), CGI]
    yield


def pytest_configure(config: pytest.Config) -> None:
    """Register the fixtures."""
    if not any(map(config.pluginmanager.hasplugin, OTHERS)):
        config.pluginmanager.register(Fixtures())


class Fixtures:
    """The fixtures."""

    @pytest.fixture
    def app(self, request: pytest.FixtureRequest) -> object:
        """The application under test; a project's own fixture of this name overrides it."""
        spec = request.config.getini("microwsgi_app")
        if not spec:
            pytest.fail('There is no application: define a fixture `app`, or set microwsgi_app = "module:attribute".')
        return import_module("microwsgi.serving.loader").load(spec, str(request.config.rootpath))

    @pytest.fixture
    def client(self, app: object) -> object:
        """A `microwsgi.testing.Client` for the application."""
        return import_module("microwsgi.testing").Client(app)

    @pytest.fixture
    def live_server(self, app: object) -> Iterator[object]:
        """A running server with the application: `live_server.url`."""
        with import_module("microwsgi.testing").live(app) as running:
            yield running
