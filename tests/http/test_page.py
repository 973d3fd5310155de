"""The upload page: who gets it, where it is, what it may load, how long it is kept."""

from __future__ import annotations

import re
from typing import Any

import pytest

from resumable.config.options import Options
from resumable.daemon.parts import upload_page
from resumable.http.assets import CHECKED, FOREVER
from resumable.http.page.upload_page import LICENSES, UploadPage
from tests.http.http2_client import Client
from tests.http.visitor import Reply, ask, connect

BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


def page(base_path: str = "/files/", **options: Any) -> UploadPage:
    return UploadPage(base_path, **{"status_path": "status", "downloads": True, "extensions": ["creation"], **options})


def get(path: str, *fields: str, base_path: str = "/files/", **options: Any) -> Reply:
    options = {"page": page(base_path), "method": "GET", **options}
    return ask("Host: up.example", *fields, path=path, tus=False, base_path=base_path, **options)


def links(reply: Reply) -> list[str]:
    return re.findall(r'(?:href|src)="([^"]+)"', reply.body.decode())


# Who gets it


@pytest.mark.parametrize("accept", [BROWSER, "Accept: text/html", "Accept: text/html;q=0.9, */*;q=0.8"])
def test_a_browser_gets_the_page_at_the_base_path(accept: str) -> None:
    reply = get("/files/", accept)
    assert (reply.status, reply.get("content-type")) == (200, "text/html; charset=utf-8")
    assert b"<main>" in reply.body


@pytest.mark.parametrize("fields", [(), ("Accept: */*",), ("Accept: application/json, text/html;q=0.5",)])
def test_others_get_what_they_got_before(fields: tuple[str, ...]) -> None:
    for path in ("/files/", "/files", "/"):
        there, gone = get(path, *fields), get(path, *fields, page=None)
        assert (there.status, there.body) == (gone.status, gone.body)
    assert get("/files/", *fields).status == 405


def test_without_the_page_a_browser_gets_what_it_got_before() -> None:
    assert get("/files/", BROWSER, page=None).status == 405
    assert get("/", BROWSER, page=None).status == 404


def test_other_methods_are_none_of_its_business() -> None:
    assert ask("Host: up.example", BROWSER, page=page()).status == 201
    assert get("/files/", BROWSER, method="OPTIONS").status == 200
    assert get("/", BROWSER, method="POST").status == 404


def test_an_uploads_address_is_never_the_pages() -> None:
    assert get(f"/files/{'0' * 32}", BROWSER, method="PUT").status == 405
    assert get("/files/nothing.html", BROWSER).status == 404


def test_head_is_answered_without_the_page() -> None:
    reply, whole = get("/files/", BROWSER, method="HEAD"), get("/files/", BROWSER)
    assert (reply.status, reply.body) == (200, b"")
    assert reply.get("content-length") == whole.get("content-length") == str(len(whole.body))


# Where it is


@pytest.mark.parametrize(("base_path", "root"), [("/files/", "files/"), ("/a/b/", "a/b/")])
def test_the_root_leads_to_the_page_by_a_relative_address(base_path: str, root: str) -> None:
    reply = get("/", BROWSER, base_path=base_path)
    assert (reply.status, reply.get("location")) == (303, root)
    assert get(f"/{root}", BROWSER, base_path=base_path).status == 200


@pytest.mark.parametrize(("path", "last"), [("/files", "files/"), ("/a/b", "b/")])
def test_without_its_slash_the_address_leads_to_the_one_that_has_it(path: str, last: str) -> None:
    reply = get(f"{path}?token=x", BROWSER, base_path=f"{path}/")
    assert (reply.status, reply.get("location")) == (303, f"{last}?token=x")


def test_the_page_is_the_root_where_the_collection_is() -> None:
    reply = get("/", BROWSER, base_path="/")
    assert reply.status == 200
    assert all(get(f"/{link}", base_path="/").status == 200 for link in links(reply))


def test_all_that_it_loads_is_beside_it_by_relative_addresses() -> None:
    found = links(get("/files/", BROWSER))
    assert len(found) == 4
    for link in found:
        assert "/" not in link and "." in link, "no id of an upload has a dot"
        assert get(f"/files/{link}").status == 200


def test_over_http_2_it_is_the_same() -> None:
    channel, _ = connect(page=page())
    channel.site.h2c = True
    client = Client(site=channel.site)
    found = client.answers[client.send(path="/files/", accept="text/html")]
    script = re.search(rb'src="([^"]+)"', found.body)
    assert found.fields[":status"] == "200" and script is not None
    loaded = client.answers[client.send(path=f"/files/{script[1].decode()}")]
    assert loaded.fields[":status"] == "200" and b"sources" in loaded.body


# What it may do


def test_its_policy_allows_only_its_own_files() -> None:
    reply = get("/files/", BROWSER)
    policy = dict(each.split(" ", 1) for each in (reply.get("content-security-policy") or "").split("; "))
    assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert reply.get("referrer-policy") == "no-referrer" and reply.get("x-content-type-options") == "nosniff"
    assert not re.search(rb"<script>|<style|style=|\son[a-z]+=|javascript:", reply.body), "no code of its own"


def test_it_is_told_what_the_server_can_do() -> None:
    said = get("/files/", BROWSER).body.decode()
    assert 'data-status="status"' in said and 'data-downloads="yes"' in said and 'data-extensions="creation"' in said
    other = get("/files/", BROWSER, page=page(status_path=None, downloads=False, extensions=[])).body.decode()
    assert 'data-status=""' in other and 'data-downloads=""' in other


# How long it is kept


def test_files_are_kept_for_good_and_the_page_is_checked_each_time() -> None:
    reply = get("/files/", BROWSER)
    assert reply.get("cache-control") == CHECKED.decode() and "Accept" in reply.all("vary")
    for link in links(reply):
        assert get(f"/files/{link}").get("cache-control") == FOREVER.decode()


def test_who_has_the_newest_gets_nothing_again() -> None:
    for path, fields in (("/files/", [BROWSER]), (f"/files/{links(get('/files/', BROWSER))[0]}", [])):
        etag = get(path, *fields).get("etag")
        reply = get(path, *fields, f'If-None-Match: "other", W/{etag}')
        assert (reply.status, reply.body, reply.get("etag")) == (304, b"", etag)


def test_a_file_of_another_release_is_answered_with_ours_which_nobody_keeps() -> None:
    reply = get("/files/page.0123456789ab.js")
    assert (reply.status, reply.get("cache-control")) == (200, CHECKED.decode())


# When there is one


def settings(*flags: str) -> Any:
    options = Options({})
    options.parseOptions(flags)
    return options.settings()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--listen", "tcp:1:interface=127.0.0.1"), True),
        (("--listen", "tcp6:1:interface=\\:\\:1", "--listen", "tcp:1:interface=127.0.0.1"), True),
        (("--listen", "tcp:1"), False),
        (("--listen", "tcp:1:interface=127.0.0.1", "--listen", "tcp6:1"), False),
        (("--listen", "unix:/run/x"), False),
        (("--listen", "tcp:1", "--page", "on"), True),
        (("--listen", "tcp:1:interface=127.0.0.1", "--page", "off"), False),
    ],
)
def test_by_default_there_is_one_if_only_this_machine_can_connect(flags: tuple[str, ...], expected: bool) -> None:
    assert (upload_page(settings(*flags)) is not None) is expected


def test_its_licenses_go_along() -> None:
    assert b"tus-js-client" in get(f"/files/{page()._assets.address(LICENSES)}").body
