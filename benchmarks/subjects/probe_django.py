"""The probe as a Django view, in one file: `python probe_django.py runserver --noreload 127.0.0.1:PORT`."""

from __future__ import annotations

import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.urls import path

from benchmarks.subjects.probe import respond

# The settings that `startproject` writes, as far as they affect a request.
settings.configure(
    DEBUG=True,
    SECRET_KEY="only for a benchmark on this machine",  # noqa: S106
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
    ],
    STATIC_URL="static/",
    USE_TZ=True,
)


def view(request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse(
        respond(request.path, request.META["QUERY_STRING"], sys._getframe()), content_type="application/json"
    )


urlpatterns = [path("<name>", view)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
