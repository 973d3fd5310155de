"""The numbers in the docs' sentences are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from resumable.auth import basic, keys, rates, signed, tokens
from resumable.cli import commands
from resumable.doctor import database, machine, outside, proxy, records, syncs
from resumable.http import h1
from resumable.http.admin import query
from resumable.http.h2 import limits, link
from resumable.listening import listeners, proxy_protocol
from resumable.metrics import collector, meters
from resumable.model import segments, stored, workers
from resumable.protocol import names
from resumable.remotes import plan
from resumable.remotes.azure import records as blocks
from resumable.remotes.azure import records as properties
from resumable.remotes.gcs import records as gcs_objects
from resumable.remotes.gcs import store as sessions
from resumable.replication import copies
from resumable.spool import placing, sink
from resumable.uploads import append, appends, operators, shared_holds

DOCS = Path(__file__).parent.parent / "docs"
KIB, MIB = 1 << 10, 1 << 20

TOLD = [
    ("durability.md", r"up to (\d+) KiB with a Content-Length", append.SMALL / KIB),
    ("durability.md", r"longer \| each (\d+) MiB", append.PART / MIB),
    ("durability.md", r"after a second, if at least (\d+) MiB is new", appends.WORTHWHILE / MIB),
    ("durability.md", r"at most (\d+) MiB of one append", sink.HIGH / MIB),
    ("how-it-works.md", r"when the replica starts: (\d+) MiB each", plan.PART_SIZE / MIB),
    ("deployment.md", r"may send (\d+) MiB of one body ahead", limits.STREAM_WINDOW / MIB),
    ("deployment.md", r"and (\d+) MiB on one connection", limits.CONNECTION_WINDOW / MIB),
    ("deployment.md", r"hold at most (\d+) MiB in memory, all connections together", limits.MAX_HELD / MIB),
    ("proxies.md", r"one\s+of\s+more\s+than\s+(\d+)\s+KiB:\s+the\s+server\s+closes", proxy_protocol.LONGEST / KIB),
    ("proxies.md", r"the server accepts headers of (\d+) KiB", h1.MAX_HEAD / KIB),
    ("proxies.md", r"sends (\d+) KiB, cuts the connection", proxy.SENT / KIB),
    ("proxies.md", r"upload\s+has\s+(\d+,\d+)\s+bytes\s+of\s+it", proxy.METADATA_SIZES[0]),
    ("proxies.md", r"or\s+(\d+,\d+)\s+if\s+14,000\s+can't\s+be\s+sent", proxy.METADATA_SIZES[1]),
    ("doctor.md", r"fewer than (\d+) at once", machine.FEW_FILES),
    ("doctor.md", r"less than (\d+) MiB left", machine.LITTLE_MEMORY / MIB),
    ("doctor.md", r"less than (\d+) µs", syncs.TOO_FAST * 1e6),
    ("doctor.md", r"more than ([\d.]+) s, or much less", syncs.TOO_SLOW),
    ("doctor.md", r"ends within (\d+) days", outside.SOON),
    ("doctor.md", r"the (\d+,\d+) youngest uploads", records.COMPARED),
    ("downloads.md", r"is down,\s+after (\d+)\s+seconds", copies.OPENING),
    ("downloads.md", r"after a pause of (\d+)\s+seconds", copies.RESTING),
    ("operations.md", r"longer\s+than (five) seconds", collector.PATIENCE),
    ("operations.md", r"by\s+state at most every (\d+) s", meters.FRESH),
    ("api.md", r"\| `limit` \| 1 to (\d+)", query.MOST),
    ("api.md", r"1 to 1000; default (\d+)", query.LIMIT),
    ("api.md", r"looks at no more than (\d+,\d+) uploads", operators.MOST_ROWS),
    ("api.md", r"One\s+request retries about (\d+,\d+)", operators.MOST_CHANGED),
    ("cli.md", r"`--limit NUMBER` \((\d+)\)", commands.ENOUGH),
    ("access.md", r"a token of at least (\d+) characters", tokens.SHORTEST),
    ("access.md", r"a shared secret of at least (\d+) bytes", keys.SHORTEST_SECRET),
    ("access.md", r"RSA \((\d+,\d+) bits or more\)", keys.SHORTEST_RSA),
    ("access.md", r"correct password stays valid for (five) minutes", basic.REMEMBERED / 60),
    ("access.md", r"again after (ten) minutes", keys.REFRESH / 60),
    ("access.md", r"at most every (ten) seconds", keys.PATIENCE),
    ("access.md", r"has one key of at\s+least\s+(\d+)\s+characters", signed.SHORTEST_KEY),
    ("access.md", r"never longer than (\d+) seconds", rates.LONGEST_PAUSE),
    ("placing.md", r"cuts a name to (\d+) bytes", placing.MAX_NAME),
    ("placing.md", r"and so on; after (\d+) its id", placing.NUMBERS - 1),
    ("remotes.md", r"cuts it to (\d+) bytes", names.MAX_NAME),
    ("remotes.md", r"always have at most (\d+,\d+) parts", plan.S3.parts),
    ("azure.md", r"at most (\d+,\d+) of at most 4,000 MiB", blocks.LIMITS.parts),
    ("azure.md", r"planned for (\d+) TiB", blocks.UNKNOWN_LENGTH / plan.TIB),
    ("azure.md", r"encoded as in RFC 2047, (\d+) KiB in all", properties.ROOM.total / KIB),
    ("google.md", r"without control characters, (\d+) KiB in all", gcs_objects.ROOM.total / KIB),
    ("object-store.md", r"up to (\d+) KiB with a Content-Length", stored.MOST_IN_ROW / KIB),
    ("object-store.md", r"One of up\s+to (\d+) KiB is gathered in memory", stored.MOST_IN_ROW / KIB),
    ("scaling.md", r"those up to\s+(\d+) KiB that don't fill a part", stored.MOST_IN_ROW / KIB),
    ("scaling.md", r"Each worker has (five) connections", database.EACH),
    ("scaling.md", r"must be at least (\d+) \S workers", database.EACH),
    ("scaling.md", r"and warns above (\d+) ms", database.SLOW * 1e3),
    ("scaling.md", r"another one continues after (\d+) seconds", workers.DEAD_AFTER),
    ("scaling.md", r"durability.md#when-is-a-byte-committed\): each (\d+) MiB", append.PART / MIB),
    ("scaling.md", r"does so at most (\d+) times a second", 1 / append.PAUSE),
    ("scaling.md", r"at least (\d+) seconds after it was replaced", segments.REMOVED_AFTER),
    ("scaling.md", r"never more than (\d+) a second and worker", appends.PER_TICK),
    ("scaling.md", r"waits for at most (\d+) ms", shared_holds.PATIENCE * 1e3),
    ("google.md", r"whole multiples of (\d+) KiB", sessions.QUANTUM / KIB),
]
WORDS = {"five": 5, "ten": 10}


@pytest.mark.parametrize(("page", "sentence", "value"), TOLD, ids=lambda each: str(each)[:40])
def test_a_number_that_is_told_is_the_one_that_counts(page: str, sentence: str, value: float) -> None:
    found = re.findall(sentence, (DOCS / page).read_text(encoding="utf-8"))
    assert found, "the sentence has changed: change this too"
    for told in found:
        assert WORDS.get(told) == value or float(told.replace(",", "")) == pytest.approx(value)


def test_a_hundred_requests_are_at_once_on_one_connection() -> None:
    told = " ".join((DOCS / "deployment.md").read_text(encoding="utf-8").split())
    found = re.search(r"While (\d+) requests of one connection are under way, the server refuses the next one", told)
    assert found and int(found[1]) == link.MAX_STREAMS == 100


def test_certificates_are_checked_each_minute() -> None:
    assert "The server checks the files each minute" in (DOCS / "deployment.md").read_text(encoding="utf-8")
    assert listeners.LOOK_EVERY == 60
