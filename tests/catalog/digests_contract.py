"""What a catalog keeps of the digests of whole uploads, as a suite that any catalog can be put through."""

from __future__ import annotations

from attrs import evolve

from resumable.model.upload import Commit, GoneReason
from tests.catalog.contract import CatalogSuite, done, name, upload

ONE, OTHER = "sha-256=:YQ==:", "sha-512=:Yg==:"


class DigestsContract(CatalogSuite):
    """Tests of `announce`, `set_digest`, `undigested`, and of `Upload.draft`."""

    def test_digests_and_the_protocol_are_read_back_as_they_were(self) -> None:
        records = [
            upload(1, draft=True, announced=ONE, digest_due="sha-512"),
            done(upload(2, digest=f"{ONE}, {OTHER}")),
            upload(3),
        ]
        self.add(*records)
        assert [self.get(number) for number in (1, 2, 3)] == records
        kept = self.ask(self.catalog.get_many([record.id for record in records]))
        assert kept == {record.id: record for record in records}
        assert self.get(1).draft is True and self.get(2).draft is False

    def test_what_a_client_announces_is_recorded_until_the_end(self) -> None:
        self.add(upload(1), done(upload(2)), upload(3))
        self.ask(self.catalog.end(name(3), GoneReason.TERMINATED, 200.0, ()))
        told = [self.ask(self.catalog.announce(name(number), ONE)) for number in (1, 2, 3, 4)]
        assert told == [True, False, False, False]
        assert self.get(1) == upload(1, announced=ONE)
        assert self.get(2).announced is None
        assert self.ask(self.catalog.announce(name(1), OTHER)) is True
        assert self.get(1).announced == OTHER

    def test_the_change_that_finishes_may_bring_the_digest(self) -> None:
        self.add(upload(1, digest_due="sha-256"))
        change = Commit(name(1), 0, 0, 1000, 150.0, finished=True, digest=ONE)
        assert self.ask(self.catalog.commit(change)) is True
        assert self.get(1) == evolve(done(upload(1, touched_at=150.0)), digest=ONE)
        assert self.ids(self.catalog.undigested("", 10)) == []

    def test_the_change_with_the_last_byte_may_bring_it_before_the_finish(self) -> None:
        self.add(upload(1, digest_due="sha-256"), upload(2, announced=ONE))
        for number in (1, 2):
            assert self.ask(self.catalog.commit(Commit(name(number), 0, 0, 10, 150.0))) is True
        assert self.get(1).digest_due == "sha-256", "no other change touches it"
        for number in (1, 2):
            assert self.ask(self.catalog.commit(Commit(name(number), 0, 10, 1000, 150.0, digest=ONE))) is True
            assert self.ask(self.catalog.commit(Commit(name(number), 0, 1000, 1000, 150.0, finished=True))) is True
            assert self.get(number).digest == ONE and self.get(number).digest_due is None

    def test_a_finish_may_leave_it_due(self) -> None:
        self.add(upload(1))
        change = Commit(name(1), 0, 0, 1000, 150.0, finished=True, digest_due="sha-512")
        assert self.ask(self.catalog.commit(change)) is True
        assert self.get(1).digest_due == "sha-512"
        assert self.ids(self.catalog.undigested("", 10)) == [name(1)]

    def test_what_is_finished_without_its_digest_waits_for_it(self) -> None:
        self.add(*(upload(number, digest_due="sha-256") for number in range(1, 5)), upload(5))
        assert self.ids(self.catalog.undigested("", 10)) == []
        for number in (1, 2, 3, 5):
            self.ask(self.catalog.commit(Commit(name(number), 0, 0, 1000, 150.0, finished=True)))
        self.ask(self.catalog.end(name(3), GoneReason.TERMINATED, 200.0, ()))
        first, second = sorted([name(1), name(2)])
        assert self.ids(self.catalog.undigested("", 10)) == [first, second]
        assert self.ids(self.catalog.undigested("", 1)) == [first]
        assert self.ids(self.catalog.undigested(first, 10)) == [second]

    def test_a_digest_is_recorded_of_what_has_all_its_bytes(self) -> None:
        self.add(done(upload(1, digest_due="sha-256")), upload(2, digest_due="sha-256"), done(upload(3)))
        self.add(upload(5, offset=1000, adoptable=1000), upload(6, length=None))
        self.ask(self.catalog.end(name(3), GoneReason.TERMINATED, 200.0, ()))
        told = [self.ask(self.catalog.set_digest(name(number), ONE)) for number in (1, 2, 3, 4, 5, 6)]
        assert told == [True, False, False, False, True, False]
        assert self.get(5) == upload(5, offset=1000, adoptable=1000, digest=ONE)
        assert self.get(1) == done(upload(1, digest=ONE))
        assert self.get(2).digest is None
        assert self.ids(self.catalog.undigested("", 10)) == []
