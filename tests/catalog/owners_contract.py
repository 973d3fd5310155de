"""What a catalog tells of those to whom uploads belong, as a suite that any catalog can be put through."""

from __future__ import annotations

from resumable.catalog.upload_work import Owned
from resumable.model.upload import GoneReason
from tests.catalog.contract import CatalogSuite, done, name, upload


class OwnersContract(CatalogSuite):
    """Tests of `owner_of` and `owners`."""

    def test_whose_an_upload_is_can_be_asked(self) -> None:
        self.add(upload(1, owner="ann"), upload(2))
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        found = [self.ask(self.catalog.owner_of(name(number))) for number in (1, 2, 3)]
        assert found == ["ann", "", None]

    def test_owners_are_told_with_all_that_they_have(self) -> None:
        assert list(self.catalog.owners()) == []
        self.add(upload(1, owner="ann", offset=10), done(upload(2, owner="ann")))
        self.add(upload(3, owner="bob", length=None, offset=7), done(upload(4)), upload(7, owner="", length=1))
        self.add(upload(5, owner="ann", gone=GoneReason.LOST, gone_at=3.0), upload(6, owner="eve"))
        self.ask(self.catalog.end(name(6), GoneReason.EXPIRED, 200.0, ()))
        found = self.catalog.owners()
        assert found == [Owned("", 1001, 1, 1), Owned("ann", 2000, 1000, 1), Owned("bob", 7, 7, 1)]

    def test_owners_whose_lengths_add_up_to_more_than_a_number_holds(self) -> None:
        self.add(*(upload(number, owner="ann", length=(1 << 63) - 1) for number in range(1, 4)))
        (found,) = self.catalog.owners()
        assert found.size == found.unfinished_size == 3 * (1 << 63) and found.unfinished == 3
