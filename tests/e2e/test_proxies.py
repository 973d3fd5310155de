"""The examples for reverse proxies and what docs/proxies.md says, through the proxies themselves; skipped where one is
not installed.

Only ports, names and places are replaced in the examples, and the pieces of the page are put where it says.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from resumable.doctor.outside import check_origin
from resumable.doctor.proxy import check_proxy

from .daemon import ROOT, Daemon, eventually, free_port
from .tools import need
from .tus import Tus, metadata, patch_head, pattern

FLAGS = ("--behind-proxy", "loopback")
EXAMPLES = ROOT / "examples"


def example(name: str, replaced: Mapping[str, str]) -> str:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    for each, by in replaced.items():
        assert each in text, f"{name} has no {each!r} any more"
        text = text.replace(each, by)
    return text


def piece(language: str) -> str:
    """The first block in that language on the page about proxies."""
    page = (ROOT / "docs" / "proxies.md").read_text(encoding="utf-8")
    found = re.search(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert found, f"no block in {language}"
    return found[1]


def nginx(home: Path, port: int, upstream: int) -> list[str]:
    server = example("nginx.conf", {"listen 80;": f"listen 127.0.0.1:{port};", ":8080;": f":{upstream};"})
    return nginx_with(home, server)


def nginx_page(home: Path, port: int, upstream: int) -> list[str]:
    inside = piece("nginx").replace("127.0.0.1:8080", f"127.0.0.1:{upstream}")
    return nginx_with(home, f"server {{ listen 127.0.0.1:{port}; {inside} }}")


def nginx_with(home: Path, server: str) -> list[str]:
    places = " ".join(
        f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = home / "nginx.conf"
    path.write_text(
        f"daemon off; master_process off; pid {home}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {places}\n{server} }}"
    )
    return [need("nginx"), "-p", str(home), "-e", "stderr", "-c", str(path)]


def haproxy(home: Path, port: int, upstream: int) -> list[str]:
    path = home / "haproxy.cfg"
    binds = {"bind :80\n": f"bind 127.0.0.1:{port}\n", ":8080 check": f":{upstream} check"}
    path.write_text(example("haproxy.cfg", binds))
    return [need("haproxy"), "-db", "-f", str(path)]


def haproxy_page(home: Path, port: int, upstream: int) -> list[str]:
    path = home / "haproxy.cfg"
    page = (ROOT / "docs" / "proxies.md").read_text(encoding="utf-8")
    (line,) = set(re.findall(r"`(tune\.bufsize \d+)` belongs into the section `global`", page))
    inside = piece("haproxy").replace("\n", "\n    ")
    path.write_text(
        f"global\n    {line}\nlisten it\n    mode http\n    bind 127.0.0.1:{port}\n    timeout connect 5s\n"
        f"    {inside}\n    server one 127.0.0.1:{upstream}\n"
    )
    return [need("haproxy"), "-db", "-f", str(path)]


def caddy(home: Path, port: int, upstream: int) -> list[str]:
    binds = {"example.org {": f"http://127.0.0.1:{port} {{", "127.0.0.1:8080": f"127.0.0.1:{upstream}"}
    return caddy_with(home, example("Caddyfile", binds))


def caddy_page(home: Path, port: int, upstream: int) -> list[str]:
    inside = piece("caddyfile").replace("127.0.0.1:8080", f"127.0.0.1:{upstream}")
    return caddy_with(home, f"http://127.0.0.1:{port} {{\n{inside}}}\n")


def caddy_with(home: Path, site: str) -> list[str]:
    path = home / "Caddyfile"
    path.write_text(f"{{\n\tadmin off\n}}\n{site}")
    return [need("caddy"), "run", "--adapter", "caddyfile", "--config", str(path)]


def apache_page(home: Path, port: int, upstream: int) -> list[str]:
    path = home / "httpd.conf"
    modules = Path("/usr/lib/apache2/modules")
    names = ("mpm_event", "authz_core", "headers", "proxy", "proxy_http")
    loaded = "".join(f"LoadModule {name}_module {modules}/mod_{name}.so\n" for name in names)
    inside = piece("apache").replace("127.0.0.1:8080", f"127.0.0.1:{upstream}")
    path.write_text(
        f"{loaded}ServerName localhost\nServerRoot {home}\nDefaultRuntimeDir {home}\nPidFile {home}/pid\n"
        f"ErrorLog /dev/stderr\nListen 127.0.0.1:{port}\n{inside}"
    )
    return [need("apache2"), "-D", "FOREGROUND", "-f", str(path)]


PAGE = [nginx_page, haproxy_page, caddy_page, apache_page]


@pytest.fixture(params=[nginx, haproxy, caddy, *PAGE], ids=lambda make: make.__name__)
def outside(request: pytest.FixtureRequest, daemon: Daemon, tmp_path: Path) -> Iterator[Tus]:
    """A client that comes through the proxy."""
    make: Callable[[Path, int, int], list[str]] = request.param
    port = free_port()
    with (tmp_path / "proxy.log").open("wb") as log:
        proxy = subprocess.Popen(
            make(tmp_path, port, daemon.port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "XDG_DATA_HOME": str(tmp_path)},
            start_new_session=True,
        )
    try:
        with closing(Tus(port)) as tus:
            assert eventually(lambda: proxy.poll() is not None or answers(tus))
            assert proxy.poll() is None, (tmp_path / "proxy.log").read_text()
            yield tus
    finally:
        with suppress(ProcessLookupError):
            os.killpg(proxy.pid, signal.SIGKILL)  # Apache's workers outlive it
        proxy.wait()


def answers(tus: Tus) -> bool:
    try:
        return tus.options().status == 200
    except (OSError, EOFError, AssertionError):
        tus.close()
        return False


def test_what_arrived_before_a_client_dropped_has_gone_through(outside: Tus) -> None:
    """No request buffering: a connection that drops in the middle has delivered what was sent."""
    data = pattern(4_000_000, seed=41)
    path = outside.create(len(data))
    with outside.wire() as wire:
        wire.send(patch_head(path, 0, len(data)) + data[:1_500_000])
        assert eventually(lambda: outside.offset(path) == 1_500_000)
    outside.finish(path, data)
    assert outside.content(path) == data


@pytest.mark.parametrize("size", [3_000, 6_000, 12_000, 15_500])
def test_metadata_of_every_size_that_the_server_takes_goes_both_ways(outside: Tus, size: int) -> None:
    """It comes in one header field and goes back in one: a HEAD answered with 502 makes clients start over."""
    said = metadata(filename="x.bin", note="n" * (size * 3 // 4))
    assert len(said) > size
    made = outside.post(5, {"Upload-Metadata": said})
    assert made.status == 201
    asked = outside.head(made["location"])
    assert (asked.status, asked["upload-metadata"], asked["upload-offset"]) == (200, said, "0")


@pytest_twisted.ensureDeferred
async def test_the_doctor_finds_nothing_to_change(outside: Tus) -> None:
    url = f"http://127.0.0.1:{outside.port}/files/"
    found = await check_proxy(reactor, url, patience=2.0)
    found.append(await check_origin(reactor, url, "https://www.example.org"))
    assert {each.name for each in found} >= {"Location", "proxy buffering", "long metadata", "pages of other origins"}
    assert {each.level for each in found} == {"ok"}, found


def test_the_location_is_the_one_outside_whatever_a_client_claims(outside: Tus) -> None:
    claims = {
        "Forwarded": "host=evil.example;proto=https",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
    }
    for fields in ({}, claims):
        location = outside.post(5, fields)["location"]
        assert location.startswith("http://127.0.0.1/files/"), location
