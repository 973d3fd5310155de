"""The object store that is the spool: whether it can be used, what it does to uploads by itself, and the scratch.

Invariant: nothing stays in the store, and nothing is made in the run directory.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from attrs import frozen

from resumable.aio.threads import Pool
from resumable.config.options import Settings
from resumable.daemon.spool_in_store import made_store
from resumable.doctor.findings import Finding, age_text, size_text
from resumable.listening.run_directory import USUAL
from resumable.model.errors import StartupError
from resumable.remotes.errors import RemoteError
from resumable.remotes.probe import advice, probe
from resumable.remotes.s3.bucket_rules import BucketRules, ITellsRules
from resumable.remotes.urls import RemoteSpec
from resumable.spool.directory import file_system

NAME: Final = "spool"
SCRATCH: Final = "scratch"
DAY: Final = 86400.0
_DOCS: Final = "See docs/scaling.md, What to set in the bucket."


@frozen
class StoreFacts:
    """``wrong``: why the store can't be used, with what to change behind a semicolon; None: it can. ``rules``: None
    where it tells of none; ``unread``: why they aren't known. ``part_size``: bytes."""

    name: str
    wrong: str | None = None
    prefix: str = ""
    part_size: int = 0
    rules: BucketRules | None = None
    unread: str | None = None


async def look(reactor: Any, settings: Settings, spec: RemoteSpec) -> StoreFacts:
    """Try the store, and read the rules of its bucket. Never raises for what is wrong with it."""
    pool = Pool(reactor, 1, "spool")
    pool.start()
    try:
        store = made_store(settings, spec, reactor, pool, Random(secrets.randbits(64)))
        wrong = (await probe([(spec.name, store)], reactor))[spec.name]
        rules, unread = None, None
        if wrong is None and ITellsRules.providedBy(store):
            try:
                rules = await ITellsRules(store).rules()
            except RemoteError as error:
                unread = f"{error.reason}; {advice(error)}"
        await store.close()
        return StoreFacts(spec.name, wrong, store.prefix, store.part_size, rules, unread)
    except StartupError as error:
        return StoreFacts(spec.name, str(error))
    finally:
        await pool.stop()


def judge(found: StoreFacts, expire_after: float | None, known: str | None) -> list[Finding]:
    """The findings about the store. ``expire_after``: see the settings. ``known``: the directory or the URL that the
    catalog has; None: none, or that can't be told."""
    findings = []
    if known not in (None, found.name):
        what = f"the uploads of this catalog are in {known if '://' in str(known) else 'an upload directory'}"
        findings.append(Finding(NAME, "bad", what, "Name the --catalog and the --spool of one installation."))
    if found.wrong is not None:
        what, _, remedy = found.wrong.partition("; ")
        remedy = remedy or "correct the options that it names"
        return [*findings, Finding(NAME, "bad", what, f"{remedy[0].upper()}{remedy[1:].rstrip('.')}.")]
    if found.unread is not None:
        what, _, _ = found.unread.partition("; ")
        remedy = (
            "Allow s3:GetLifecycleConfiguration and s3:GetBucketVersioning, or compare its rules yourself. " + _DOCS
        )
        findings.append(Finding(NAME, "warn", f"the bucket's rules can't be read: {what}", remedy))
    if found.rules is not None:
        findings += _judge_rules(found.rules, found.prefix, expire_after)
    return findings or [Finding(NAME, "ok", f"{found.name} works")]


def _judge_rules(rules: BucketRules, prefix: str, expire_after: float | None) -> list[Finding]:
    findings = []
    concerned = [rule for rule in rules.lifecycle if rule.concerns(prefix)]
    aborts = min((rule.aborts_after for rule in concerned if rule.aborts_after is not None), default=None)
    if aborts is not None and (expire_after is None or aborts * DAY <= expire_after):
        kept = "for ever" if expire_after is None else f"for {age_text(expire_after)}"
        what = f"a lifecycle rule aborts multiparts after {aborts} d, and unfinished uploads are kept {kept} (idle)"
        remedy = f"Let the rule abort them later than uploads may take, or lower --expire-after. {_DOCS}"
        findings.append(Finding(NAME, "bad", what, remedy))
    if any(rule.removes for rule in concerned):
        what = "a lifecycle rule removes or archives objects of this prefix, unfinished uploads' too"
        findings.append(Finding(NAME, "warn", what, f"Limit the rule to another prefix, unless that is meant. {_DOCS}"))
    if rules.versioned:
        what = "the bucket keeps old versions: what is removed goes on to cost, also pieces of unfinished uploads"
        remedy = f"Add a rule that removes noncurrent versions below {prefix}.tails/ after a day. {_DOCS}"
        findings.append(Finding(NAME, "warn", what, remedy))
    return findings


@frozen
class ScratchFacts:
    """``free``: bytes of the file system of ``directory``, the run directory or the nearest above it."""

    directory: str
    free: int
    in_memory: bool = False


def look_at_scratch(run_dir: Path | None) -> ScratchFacts:
    """Where scratch would be. Raises OSError."""
    place = run_dir or (USUAL if os.access(USUAL, os.W_OK) else Path(tempfile.gettempdir()))
    while not place.exists():
        place = place.parent
    state = os.statvfs(place)
    return ScratchFacts(str(place), state.f_bavail * state.f_frsize, file_system(str(place)) in ("tmpfs", "ramfs"))


def judge_scratch(found: ScratchFacts, size: int, part_size: int, workers: int) -> Sequence[Finding]:
    """``size``: of each of the ``workers``; ``part_size``: 0 where it isn't known."""
    count = (size - size // 4) // part_size if part_size else 0  # a quarter is for completing uploads
    parts = f", which holds {count} parts of {size_text(part_size)} on their way" if count else ""
    each = f"{workers} workers have {size_text(size)} each" if workers > 1 else f"it has {size_text(size)}"
    there = f"in {found.directory}{', in memory' if found.in_memory else ''}"
    if size * workers > found.free:
        what = f"{each}, and {there} only {size_text(found.free)} are free"
        remedy = "Lower --scratch-size, or name a larger place with --run-dir: uploads fail with 507 when it is full."
        return [Finding(SCRATCH, "bad", what, remedy)]
    return [Finding(SCRATCH, "ok", f"{each} {there}{parts}")]
