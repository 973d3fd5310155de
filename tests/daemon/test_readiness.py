"""Whether the daemon is ready: who says what, and how often it is looked."""

from __future__ import annotations

import json
from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from resumable.catalog.sqlite import SqliteCatalog
from resumable.http.admin.readiness import FRESH, PATIENCE, Readiness
from resumable.http.cors import Cors, CrossOrigin
from resumable.http.origin import Origin
from resumable.http.site import Root
from resumable.http.tus import TusRoutes
from tests.daemon.site_rig import Listening, Site
from tests.http.admin_rig import tree
from tests.http.visitor import Nothing


class Checked:
    """A readiness with one check, ``disk``, which says ``wrong``, or waits when that is a Deferred."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wrong: str | Deferred[str | None] | Exception | None = None
        self.asked = 0
        self.readiness = Readiness({"disk": self._check, "other": self._well}, self.clock)

    async def _check(self) -> str | None:
        self.asked += 1
        if isinstance(self.wrong, Exception):
            raise self.wrong
        return await self.wrong if isinstance(self.wrong, Deferred) else self.wrong

    async def _well(self) -> str | None:
        return None

    def look(self) -> list[Mapping[str, str]]:
        """What is answered, once it is."""
        found: list[Mapping[str, str]] = []
        Deferred.fromCoroutine(self.readiness.wrong()).addCallback(found.append)
        return found


def test_it_is_ready_when_nothing_is_wrong() -> None:
    assert Checked().look() == [{}]


def test_what_is_wrong_has_the_name_of_its_check() -> None:
    checked = Checked()
    checked.wrong = "full"
    assert checked.look() == [{"disk": "full"}]


def test_an_answer_is_kept_for_a_moment_only() -> None:
    checked = Checked()
    checked.look()
    checked.wrong = "full"
    checked.clock.advance(FRESH * 0.9)
    assert (checked.look(), checked.asked) == ([{}], 1)
    checked.clock.advance(FRESH * 0.1)
    assert (checked.look(), checked.asked) == ([{"disk": "full"}], 2)


def test_all_who_ask_meanwhile_wait_for_one_look() -> None:
    checked = Checked()
    answer: Deferred[str | None] = Deferred()
    checked.wrong = answer
    waiting = [checked.look() for _ in range(5)]
    assert waiting == [[]] * 5
    answer.callback("full")
    assert waiting == [[{"disk": "full"}]] * 5
    assert checked.asked == 1


def test_a_check_that_hangs_is_wrong() -> None:
    checked = Checked()
    checked.wrong = Deferred()
    waiting = checked.look()
    checked.clock.advance(PATIENCE)
    assert waiting == [{"disk": "no answer within 5 s"}]
    assert not checked.clock.getDelayedCalls()


def test_a_check_that_fails_is_wrong_and_logged() -> None:
    checked = Checked()
    checked.wrong = RuntimeError("secret")
    with Listening() as events:
        assert checked.look() == [{"disk": "RuntimeError"}]
    assert [event["log_level"].name for event in events] == ["critical"]


def test_a_daemon_that_stops_is_not_ready_any_more() -> None:
    checked = Checked()
    checked.look()
    checked.readiness.stopping()
    (wrong,) = checked.look()
    assert list(wrong) == ["stopping"]


def test_who_goes_away_while_waiting_leaves_the_others() -> None:
    checked = Checked()
    answer: Deferred[str | None] = Deferred()
    checked.wrong = answer
    gone = Deferred.fromCoroutine(checked.readiness.wrong())
    stays = checked.look()
    gone.addErrback(lambda _: None)
    gone.cancel()
    answer.callback(None)
    assert stays == [{}]


# Over HTTP


def public(readiness: Readiness) -> Site:
    tus = TusRoutes(
        Nothing(),  # type: ignore[arg-type]
        origin=Origin("/files/", None, ()),
        cors=Cors(CrossOrigin(())),
        base_path="/files/",
        max_size=None,
        downloads=None,
    )
    return Site(tree=Root(tus, "/files/", readiness))


def for_operators(readiness: Readiness) -> Site:
    return Site(tree=tree(readiness).resource)


def test_the_public_answer_is_one_word() -> None:
    checked = Checked()
    reply = public(checked.readiness).ask(path="/readyz")
    assert (reply.status, reply.body) == (200, b"ready\n")
    checked.clock.advance(FRESH)
    checked.wrong = "full"
    reply = public(checked.readiness).ask(path="/readyz")
    assert (reply.status, reply.body, reply.get("cache-control")) == (503, b"not ready\n", "no-store")


def test_operators_are_told_what_is_wrong() -> None:
    checked = Checked()
    checked.wrong = "full"
    reply = for_operators(checked.readiness).ask(path="/readyz")
    assert (reply.status, reply.get("content-type")) == (503, "application/json")
    assert json.loads(reply.body) == {"ready": False, "wrong": {"disk": "full"}}


def test_head_is_answered_without_a_body() -> None:
    for site in (public(Checked().readiness), for_operators(Checked().readiness)):
        reply = site.ask(method="HEAD", path="/readyz")
        assert (reply.status, reply.body) == (200, b"")


def test_alive_is_not_ready() -> None:
    checked = Checked()
    checked.readiness.stopping()
    for site in (public(checked.readiness), for_operators(checked.readiness)):
        assert site.ask(path="/healthz").body == b"ok\n"
        assert site.ask(path="/readyz").status == 503


def test_metrics_are_for_operators_only() -> None:
    readiness = Checked().readiness
    assert public(readiness).ask(path="/metrics").status == 404
    reply = for_operators(readiness).ask(path="/metrics")
    assert (reply.status, reply.body) == (200, b"x 1\n")
    assert reply.get("content-type") == "text/plain; version=0.0.4; charset=utf-8"


def test_anything_else_is_a_problem_for_operators_too() -> None:
    site = for_operators(Checked().readiness)
    assert site.ask(path="/files/").status == 404
    assert site.ask(method="POST", path="/metrics").status == 405
    assert site.ask(path="/").get("content-type") == "application/problem+json"


# The catalog


def test_the_catalogs_check_is_a_change_that_is_made_durable(tmp_path) -> None:
    from tests.catalog.doubles import HandBatcher

    batchers: list[HandBatcher] = []

    def make(work):
        batchers.append(HandBatcher(work))
        return batchers[-1]

    catalog = SqliteCatalog(str(tmp_path / "c.sqlite3"), batcher=make)
    catalog.open()
    catalog.start()
    before = catalog.timing.seconds.count
    done: list[object] = []
    catalog.check().addCallback(done.append)
    assert done == []
    batchers[0].flush()
    assert done == [None]
    assert (catalog.timing.seconds.count, catalog.timing.jobs.total) == (before + 1, before + 1)
    reading = catalog.get("x")
    batchers[0].flush()
    assert catalog.timing.seconds.count == before + 1, "reads alone are no commit"
    reading.addCallback(done.append)
    catalog.stop()
