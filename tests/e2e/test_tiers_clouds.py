"""Azure and Google as S3: whatever a request meets, and whenever the daemon dies, appends go well and the object is
whole, once.

The whole matrix is S3's; here is each request with what may happen to it, and a death in some of them; in all of them
with RESUMABLE_LONG=1.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.remotes.s3_proxy import answer

from .clouds import CLOUDS, Azure, Google
from .daemon import Daemon
from .stores import LONG, QUICK, Proxy, proxied, ready, stored, whole
from .tiers import EACH, LARGE, MOST, SMALL, begun, kill_in, send, survived
from .tus import Tus

pytestmark = pytest.mark.slow

PREFIX = "clouds"
CONTENTS = {"small": SMALL, "large": LARGE}
Cloud = Azure | Google
UNAVAILABLE = answer("503 Service Unavailable")
HOWS = {"refuse": 0, "answer": 0, "lose": 1, "reset": 1}
"""How often; 0: until the client is done."""


@pytest.fixture(scope="module", params=list(CLOUDS))
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with CLOUDS[request.param](tmp_path_factory.mktemp("store")) as it:
        yield it


@pytest.fixture(scope="module")
def proxy(cloud: Cloud) -> Iterator[Proxy]:
    with proxied(cloud) as it:
        yield it


@pytest.fixture(scope="module")
def daemon(cloud: Cloud, proxy: Proxy) -> Iterator[Daemon]:
    with Daemon("--remote", cloud.remote(proxy.url, PREFIX), *QUICK, env=cloud.env) as it:
        it.start()
        yield it
        assert not it.complaints(), "\n".join(it.complaints())
        for secret in cloud.secrets:
            assert secret not in it.log


@pytest.fixture(autouse=True)
def undisturbed(daemon: Daemon, tus: Tus, proxy: Proxy) -> Iterator[None]:
    """Nothing but the test's own requests come from now on."""
    ready(daemon)
    proxy.forget()
    yield
    proxy.calm()


def right(tus: Tus, path: str, data: bytes, cloud: Cloud, before: dict[str, int]) -> None:
    """The object is there, once, and nothing else."""
    stored(tus, path)
    whole(cloud, PREFIX, path, data)
    assert len(cloud.objects(PREFIX)) == len(before) + 1
    assert not cloud.multiparts(PREFIX)


@pytest.mark.parametrize("how", HOWS)
def test_the_object_is_right_and_no_append_has_failed(how: str, cloud: Cloud, tus: Tus, proxy: Proxy) -> None:
    for operation, kind in cloud.steps.items():
        if how == "reset" and operation not in cloud.bodies:
            continue
        data, before = CONTENTS[kind], cloud.objects(PREFIX)
        proxy.forget()
        proxy.trouble(operation, how, answer=UNAVAILABLE, times=HOWS[how])
        path = send(tus, data)
        proxy.wait_for(1)
        if not HOWS[how]:
            assert tus.content(path) == data
            proxy.calm()
        right(tus, path, data, cloud, before)
        assert len(proxy.of(path)) <= cloud.requests[kind] + EACH * proxy.struck, proxy.counts(path)


def deaths(cloud: Cloud) -> Iterator[tuple[str, str]]:
    """At which requests it dies: a part and the finish of a large one, or all."""
    *others, part, finish = cloud.steps
    yield from (("middle", part), ("before", finish), ("after", finish))
    if LONG:
        yield from (("after", each) for each in (*others, part))
        yield from (("middle" if each in cloud.bodies else "before", each) for each in others)


@pytest.mark.parametrize("number", range(8 if LONG else 3))
def test_killed_at_a_request_the_object_is_there_once(
    number: int, daemon: Daemon, cloud: Cloud, tus: Tus, proxy: Proxy
) -> None:
    cases = list(deaths(cloud))
    if number >= len(cases):
        pytest.skip("it takes fewer kinds of requests")
    step, operation = cases[number]
    kind = cloud.steps[operation]
    data, before = CONTENTS[kind], cloud.objects(PREFIX)
    kill_in(daemon, proxy, step, 0, operation)
    path = begun(tus, data)
    survived(daemon)
    tus.finish(path, data)
    right(tus, path, data, cloud, before)
    assert len(proxy.of(path)) <= MOST + cloud.requests[kind], proxy.counts(path)
    assert tus.content(path) == data
