"""Django: the admin with login, WhiteNoise, bodies and streams, asynchronous views."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.compat.client import Site, content, described, pieces

PACKAGES = ["django", "whitenoise"]
CORE = True
NAME = "tests.compat.products.django"


def configure(folder: Path) -> None:
    import django
    from django.conf import settings

    static = folder / "static"
    settings.configure(
        ROOT_URLCONF=NAME,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="of the tests",
        DEBUG=False,
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db", "OPTIONS": {"timeout": 30}}
        },
        INSTALLED_APPS=[
            f"django.contrib.{name}"
            for name in ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")
        ],
        MIDDLEWARE=[
            "whitenoise.middleware.WhiteNoiseMiddleware",
            "django.middleware.gzip.GZipMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        STATIC_URL="/static/",
        STATIC_ROOT=static,
        STORAGES={"staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}},
    )
    django.setup()


def prepare(folder: Path) -> None:
    configure(folder)
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    call_command("collectstatic", verbosity=0, interactive=False)
    User.objects.create_superuser("a", "a@localhost", "secret")


def application(folder: Path) -> Any:
    configure(folder)
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


def __getattr__(name: str) -> Any:
    """Return the views: this module is the ROOT_URLCONF, and must be importable without Django."""
    if name != "urlpatterns":
        raise AttributeError(name)
    from django.contrib import admin
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt

    def body(request: Any) -> Any:
        return HttpResponse(described(request.body))

    def upload(request: Any) -> Any:
        file = request.FILES["file"]
        return HttpResponse(f"{file.name} {type(file).__name__} {described(file.read())}")

    def stream(request: Any) -> Any:
        return StreamingHttpResponse(f"{number}\n" * 1000 for number in range(300))

    async def asynchronous(request: Any) -> Any:
        import asyncio

        await asyncio.sleep(0)
        return HttpResponse("asynchronous")

    found = [
        path("admin/", admin.site.urls),
        path("body", csrf_exempt(body)),
        path("upload", csrf_exempt(upload)),
        path("stream", stream),
        path("asynchronous", asynchronous),
    ]
    globals()["urlpatterns"] = found
    return found


def check_admin(site: Site) -> Any:
    """Log in, add a group, and look at the list."""
    name = re.sub(r"\W", "-", f"group-{site.port}")
    referer = {"Referer": f"{site.url}/admin/"}

    def send(path: str, **fields: str) -> Any:
        token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', site.ask(path).text)
        assert token
        return site.ask(path, "POST", data={"csrfmiddlewaretoken": token[1], **fields}, headers=referer)

    login = send("/admin/login/?next=/admin/", username="a", password="secret")
    added = send("/admin/auth/group/add/", name=name)
    listed = site.ask("/admin/auth/group/")
    return [login.status_code, "Site administration" in login.text, added.status_code, name in listed.text]


def check_whitenoise(site: Site) -> Any:
    text = site.ask("/admin/login/").text
    found = re.search(r'href="(/static/admin/css/base\.\w+\.css)"', text)
    assert found
    fields = ("Content-Encoding", "Cache-Control", "Content-Length")
    first = site.ask(found[1])
    again = {"If-None-Match": first.headers.get("ETag", "?")}
    return [
        site.seen(found[1], fields=fields),
        site.seen(found[1], fields=fields, headers={"Accept-Encoding": "identity"}),
        site.seen(found[1], headers=again, fields=()),
        site.seen(found[1], headers={"Range": "bytes=5-9", "Accept-Encoding": "identity"}, fields=("Content-Range",)),
    ]


def check_upload_of_50_megabytes(site: Site) -> Any:
    return site.seen("/upload", "POST", files={"file": ("big.bin", content(50_000_000))})


def check_chunked_body(site: Site) -> Any:
    return [site.seen("/body", "POST", data=pieces(content(size))) for size in (0, 5, 300_000, 5_000_000)]


def check_stream(site: Site) -> Any:
    return site.seen("/stream", fields=("Content-Encoding",))


def check_asynchronous_view(site: Site) -> Any:
    return site.seen("/asynchronous")


def check_errors(site: Site) -> Any:
    return [site.seen("/missing"), site.seen("/admin", allow_redirects=False, fields=("Location",))]
