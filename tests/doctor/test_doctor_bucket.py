"""What the doctor says of a store that is the spool, and of the scratch before it."""

from __future__ import annotations

import pytest

from resumable.doctor import bucket
from resumable.remotes.s3.answers import parse
from resumable.remotes.s3.bucket_rules import BucketRules, LifecycleRule, is_versioned, lifecycle_rules

WEEK = 7 * 86400.0


def rules(text: str) -> list[LifecycleRule]:
    namespace = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    return list(lifecycle_rules(parse(f"<LifecycleConfiguration {namespace}>{text}</LifecycleConfiguration>".encode())))


ABORTS = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>3</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
ON = "<Status>Enabled</Status>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"<Rule>{ON}<Filter/>{ABORTS}</Rule>", [LifecycleRule("", 3)]),
        (f"<Rule>{ON}<Prefix>up/</Prefix>{ABORTS}</Rule>", [LifecycleRule("up/", 3)]),
        (f"<Rule>{ON}<Filter><Prefix>up/</Prefix></Filter>{ABORTS}</Rule>", [LifecycleRule("up/", 3)]),
        (
            f"<Rule>{ON}<Filter><And><Prefix>up/</Prefix><Tag><Key>a</Key><Value>b</Value></Tag></And></Filter>"
            "<Expiration><Days>30</Days></Expiration></Rule>",
            [LifecycleRule("up/", None, True)],
        ),
        (f"<Rule><Status>Disabled</Status><Filter/>{ABORTS}</Rule>", []),
        (
            f"<Rule>{ON}<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration></Rule>",
            [],
        ),
        (f"<Rule>{ON}<Transition><Days>1</Days><StorageClass>STANDARD_IA</StorageClass></Transition></Rule>", []),
        (
            f"<Rule>{ON}<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition></Rule>",
            [LifecycleRule("", None, True)],
        ),
    ],
)
def test_the_rules_of_a_bucket_are_read(text: str, expected: list[LifecycleRule]) -> None:
    assert rules(text) == expected


def test_versioning_is_read() -> None:
    answer = "<VersioningConfiguration>{}</VersioningConfiguration>"
    assert is_versioned(parse(answer.format("<Status>Enabled</Status>").encode()))
    assert not is_versioned(parse(answer.format("<Status>Suspended</Status>").encode()))
    assert not is_versioned(parse(answer.format("").encode()))


def judged(expire_after: float | None, *found: LifecycleRule, versioned: bool = False) -> list[tuple[str, str]]:
    facts = bucket.StoreFacts("s3://b/up", None, "up/", 8 << 20, BucketRules(found, versioned))
    return [(each.level, each.what) for each in bucket.judge(facts, expire_after, None)]


@pytest.mark.parametrize(
    ("expire_after", "rule", "level"),
    [
        (WEEK, LifecycleRule("", 3), "bad"),
        (WEEK, LifecycleRule("up/", 7), "bad"),
        (WEEK, LifecycleRule("up/", 30), "ok"),
        (None, LifecycleRule("up/", 30), "bad"),
        (WEEK, LifecycleRule("other/", 1), "ok"),
        (WEEK, LifecycleRule("up/.tails/", None, True), "warn"),
        (WEEK, LifecycleRule("other/", None, True), "ok"),
    ],
)
def test_a_rule_that_ends_uploads_too_early_is_told_of(
    expire_after: float | None, rule: LifecycleRule, level: str
) -> None:
    ((found, _),) = judged(expire_after, rule)
    assert found == level


def test_old_versions_are_a_warning() -> None:
    ((level, what),) = judged(WEEK, versioned=True)
    assert level == "warn" and "old versions" in what


def test_a_store_that_does_not_work_is_bad_with_its_remedy() -> None:
    (found,) = bucket.judge(bucket.StoreFacts("s3://b", "there is no bucket; make it"), WEEK, None)
    assert (found.level, found.what, found.advice) == ("bad", "there is no bucket", "Make it.")


@pytest.mark.parametrize("known", ["s3://other", "0123456789abcdef"])
def test_another_place_than_the_catalogs_is_bad(known: str) -> None:
    found, *_ = bucket.judge(bucket.StoreFacts("s3://b"), WEEK, known)
    assert found.level == "bad" and "--spool" in found.advice


def test_scratch_is_told_of_with_its_parts_and_where_it_does_not_fit() -> None:
    facts = bucket.ScratchFacts("/run", 3 << 30, True)
    (fine,) = bucket.judge_scratch(facts, 1 << 30, 8 << 20, 2)
    assert fine.level == "ok" and "in memory" in fine.what and "96 parts of 8 MiB" in fine.what
    (tight,) = bucket.judge_scratch(facts, 1 << 30, 8 << 20, 4)
    assert tight.level == "bad" and "--scratch-size" in tight.advice
