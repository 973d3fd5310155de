"""The views of docs/embedding.md for applications beside the server decide about uploads, and hear of them."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from resumable.testing import upload_server
from tests.waiting import eventually

from .daemon import ROOT
from .programs import block, running
from .tus import Tus, metadata

PAGE = "docs/embedding.md"
#: What is around the views in a project: here a cookie stands for a login.
DJANGO = """
from django.conf import settings

def login(get_response):
    def answer(request):
        name = request.COOKIES.get("user")
        request.user = type("User", (), {{"is_authenticated": bool(name), "get_username": lambda self: name}})()
        return get_response(request)
    return answer

settings.configure(ROOT_URLCONF=__name__, MIDDLEWARE=["__main__.login"], ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="x")
{views}
from wsgiref.simple_server import make_server
from django.core.wsgi import get_wsgi_application
from django.urls import path

urlpatterns = [path("may-upload", may_upload), path("upload-events", upload_events)]
import functools
print = functools.partial(print, flush=True)
make_server("127.0.0.1", 8080, get_wsgi_application()).serve_forever()
"""


def test_the_django_views(tmp_path: Path) -> None:
    with running(DJANGO.format(views=block(PAGE, "django")), tmp_path) as django:
        beside = f"http://127.0.0.1:{django.port}"
        with upload_server(auth_forward=f"{beside}/may-upload", hook=f"{beside}/upload-events") as server:
            with pytest.raises(RuntimeError, match="answered 401"):
                server.upload(b"hello", filename="a.txt")
            fields = {"Cookie": "user=ada", "Upload-Metadata": metadata(filename="a.txt")}
            with closing(Tus(urlsplit(server.url).port or 0)) as tus:
                name = tus.create(5, fields, b"hello").rpartition("/")[2]
            eventually(lambda: f"ada has uploaded a.txt as {name}" in django.output)


def test_the_fastapi_views(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fastapi", reason="FastAPI is not installed here; make venv has it")
    names: dict[str, object] = {"__name__": "views"}
    exec(compile(block(PAGE, "fastapi"), "embedding.md: fastapi", "exec"), names)

    def ask(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, dict[bytes, bytes]]:
        return asyncio.run(asgi(names["app"], method, path, headers, body))

    assert ask("GET", "/may-upload", {})[0] == 401
    status, fields = ask("GET", "/may-upload", {"cookie": "user=ada"})
    assert (status, fields[b"remote-user"]) == (204, b"ada")
    page = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- example: event -->\n```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    event = json.loads(found[1]) | {"type": "resumable.upload.finished"}
    assert ask("POST", "/upload-events", {}, json.dumps(event).encode())[0] == 204
    assert "has uploaded a.txt as an-upload-id-1234" in capsys.readouterr().out


async def asgi(app: object, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict]:
    """Status and header of the application's answer to one request, as ASGI 3 has them."""
    sent: list[dict] = []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
    }  # fmt: skip

    async def receive() -> dict:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    await app(scope, receive, send)  # type: ignore[operator]
    return sent[0]["status"], dict(sent[0]["headers"])
