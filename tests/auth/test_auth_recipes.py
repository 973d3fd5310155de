"""The code in docs/access.md is what works with this server."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import django
import pytest
from django.conf import settings
from django.test import RequestFactory
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from resumable.auth import signed
from resumable.auth.fetch import Fetched
from resumable.auth.forward import ForwardAuth, ForwardRules
from resumable.auth.interfaces import AuthRequest
from resumable.auth.secret import WatchedFile
from resumable.auth.signed import SignedUrls
from resumable.model.principal import Action
from resumable.protocol.errors import Forbidden, Unauthorized
from resumable.testing import SteppedPool
from tests.auth.auth_rig import ID, SALT, result

PAGE = Path(__file__).parents[2] / "docs" / "access.md"
KEY = "k" * 32


def recipe(*marks):
    """What the blocks define, run one after the other."""
    page, names = PAGE.read_text(encoding="utf-8"), {"__name__": "recipe"}
    for mark in marks:
        (block,) = re.findall(rf"<!-- run: {mark} -->\n```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
        exec(compile(block, f"{PAGE.name}: {mark}", "exec"), names)
    return names


@pytest.fixture
def verifier(tmp_path):
    (tmp_path / "keys").write_text(KEY)
    clock = Clock()
    pool = SteppedPool(clock)
    pool.start()
    keys = WatchedFile("keys", tmp_path / "keys", signed.parse_keys, pool, clock)
    authorizer = SignedUrls(keys, time.time)

    def ask(action, url):
        parts = urlsplit(url)
        answer = authorizer.authorize(AuthRequest(action, "GET", parts.path, parts.query))
        clock.pump([0] * 5)
        return answer

    return ask


def test_the_url_of_the_flask_view_lets_create_and_go_on(verifier):
    app = recipe("signing", "flask")["app"]
    app.config.update(UPLOAD_KEY=KEY, SECRET_KEY="session")
    client = app.test_client()
    assert client.post("/upload-url").status_code == 401
    with client.session_transaction() as session:
        session["user"] = "alice"
    url = client.post("/upload-url").json["url"]
    found = result(verifier(Action.CREATE, url))
    assert (found.name, found.max_size) == ("alice", 5_000_000_000)
    location = f"/files/{ID}?{found.carry}"
    assert result(verifier(Action.APPEND, location)).name == "alice"
    verifier(Action.READ, location).addErrback(lambda failure: failure.trap(Forbidden))


def test_the_url_of_the_django_view_lets_read_that_upload_alone(verifier):
    if not settings.configured:
        settings.configure(UPLOAD_KEY=KEY, ALLOWED_HOSTS=["testserver"], DATABASES={}, USE_TZ=True)
        django.setup()
    view = recipe("signing", "django")["download_url"]
    request = RequestFactory().get("/")

    class User:
        is_authenticated = False

        def get_username(self):
            return "alice"

    request.user = User()
    assert view(request, ID).status_code == 401
    request.user.is_authenticated = True
    url = json.loads(view(request, ID).content)["url"]
    assert result(verifier(Action.READ, url)).name == "alice"
    for action, other in ((Action.TERMINATE, url), (Action.READ, url.replace(ID, "b" * 22))):
        refused = []
        verifier(action, other).addErrback(refused.append)
        assert refused[0].check(Forbidden)


class FlaskFetch:
    """Asks a Flask application in place of a server."""

    def __init__(self, client):
        self.client = client

    async def get(self, url, headers):
        answer = self.client.get(urlsplit(url).path, headers={name: lines[0] for name, lines in headers.items()})
        got = {}
        for name, value in answer.headers:
            got.setdefault(name.lower(), []).append(value)
        return Fetched(answer.status_code, got, answer.data)


def test_the_server_that_is_asked_lets_in_who_is_logged_in():
    app = recipe("forward")["app"]
    app.config.update(SECRET_KEY="session")
    client = app.test_client()
    forward = ForwardAuth(ForwardRules("http://127.0.0.1/may-upload"), FlaskFetch(client), Clock(), SALT, remembered=0)

    def ask(action) -> Deferred:
        return forward.authorize(AuthRequest(action, "PATCH", f"/files/{ID}", upload_id=ID))

    with pytest.raises(Unauthorized) as caught:
        result(ask(Action.APPEND))
    assert caught.value.headers["WWW-Authenticate"] == 'Form realm="example"'
    with client.session_transaction() as session:
        session["user"] = "alice"
    assert result(ask(Action.APPEND)).name == "alice"
    with pytest.raises(Forbidden):
        result(ask(Action.TERMINATE))
    with client.session_transaction() as session:
        session["may_delete"] = True
    assert result(ask(Action.TERMINATE)).name == "alice"
