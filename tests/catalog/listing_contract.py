"""What IListing promises, as a suite that any catalog can be put through."""

from __future__ import annotations

from unittest.mock import patch

from attrs import evolve
from zope.interface.verify import verifyObject

from resumable.catalog import upload_listing as on_sqlite
from resumable.model.listing import Filter, Found, IListing, UploadState
from resumable.model.upload import GoneReason, Replica, ReplicaState
from tests.catalog.contract import CatalogSuite, done, name, upload


def joined(pages: list[list[str]]) -> list[str]:
    return [each for page in pages for each in page]


class ListingContract(CatalogSuite):
    """One test for each promise of IListing's docstrings."""

    def setUp(self) -> None:
        super().setUp()
        self.listing = self.catalog.listing

    def pages(self, wanted: Filter, limit: int, newest: bool = False) -> list[list[str]]:
        """Ids, page by page, to the end."""
        pages, place = [], None
        while True:
            found: Found = self.ask(self.listing.look(wanted, place, limit, newest))
            pages.append([record.id for record, _ in found.uploads])
            if found.place is None:
                return pages
            place = found.place

    def names(self, wanted: Filter, newest: bool = False) -> list[str]:
        return joined(self.pages(wanted, 100, newest))

    def test_it_provides_the_interface(self) -> None:
        verifyObject(IListing, self.listing)

    def test_uploads_come_in_the_order_of_creation_with_their_replicas(self) -> None:
        replica = Replica(name(1), "far")
        self.ask(self.catalog.create(upload(1), (), [replica]))
        self.add(upload(2))
        found = self.ask(self.listing.look(Filter(), None, 10))
        assert [record for record, _ in found.uploads] == [self.get(1), self.get(2)]
        assert [[evolve(each, seq=0) for each in replicas] for _, replicas in found.uploads] == [[replica], []]
        assert found.place is None

    def test_pages_meet_without_gap_or_overlap(self) -> None:
        self.add(*(upload(number) for number in range(1, 8)))
        everything = [name(number) for number in range(1, 8)]
        for limit in (1, 2, 3, 7, 8):
            with patch.object(on_sqlite, "ROWS", 3):
                assert joined(self.pages(Filter(), limit)) == everything
                assert joined(self.pages(Filter(), limit, True)) == everything[::-1]

    def test_one_answer_looks_at_so_many_rows_only(self) -> None:
        self.add(*(upload(number) for number in range(1, 6)), evolve(upload(6), owner="ann"))
        with patch.object(on_sqlite, "ROWS", 2):
            assert self.pages(Filter(owner="ann"), 10) == [[], [], [name(6)], []]

    def test_a_page_goes_on_where_its_last_row_has_gone(self) -> None:
        self.add(*(upload(number) for number in range(1, 5)))
        first = self.ask(self.listing.look(Filter(), None, 2))
        self.ask(self.catalog.end(name(2), GoneReason.TERMINATED, 200.0, ()))
        self.ask(self.catalog.removed([name(2)]))
        self.ask(self.catalog.forget(201.0, 10))
        assert self.ask(self.catalog.get(name(2))) is None
        rest = self.ask(self.listing.look(Filter(), first.place, 10))
        assert [record.id for record, _ in rest.uploads] == [name(3), name(4)]

    def test_each_filter_means_what_it_says(self) -> None:
        self.add(
            evolve(upload(1), created_at=10.0, touched_at=20.0, length=None, offset=0),
            evolve(done(upload(2)), created_at=20.0, touched_at=30.0, finished_at=30.0, owner="ann"),
        )
        first, second = [name(1)], [name(2)]
        size = self.get(2).length
        for wanted, names in (
            (Filter(created_after=20.0), second),
            (Filter(created_before=20.0), first),
            (Filter(finished_after=30.0), second),
            (Filter(finished_before=30.0), []),
            (Filter(idle_since=30.0), first),
            (Filter(owner="ann"), second),
            (Filter(owner=""), first),
            (Filter(min_size=size), second),
            (Filter(states=frozenset({UploadState.FINISHED})), second),
            (Filter(states=frozenset({UploadState.UPLOADING})), first),
            (Filter(states=frozenset()), []),
            (Filter(owner="ann' OR '1'='1"), []),
        ):
            assert self.names(wanted) == names, wanted

    def test_uploads_are_found_by_the_beginning_of_their_id(self) -> None:
        ids = ["abcd" + "0" * 28, "abce" + "0" * 28, "abcd" + "z" * 28, "abc_" + "-" * 28, "ABCD" + "0" * 28]
        self.add(*(evolve(upload(number), id=each) for number, each in enumerate(ids, 1)))
        for rows in (1, 2, 500):
            with patch.object(on_sqlite, "ROWS", rows):
                assert self.names(Filter(id_prefix="abcd")) == [ids[0], ids[2]], rows
                assert self.names(Filter(id_prefix="abcd"), True) == [ids[2], ids[0]], rows
                assert joined(self.pages(Filter(id_prefix="abc"), 1)) == ids[:4], rows
                assert self.names(Filter(id_prefix="abc_")) == [ids[3]]
                assert self.names(Filter(id_prefix=ids[1])) == [ids[1]]
                assert self.names(Filter(id_prefix="abcd1")) == []
                assert self.names(Filter(id_prefix="abcd", states=frozenset())) == []

    def test_a_beginning_that_few_ids_have_is_found_in_one_look(self) -> None:
        self.add(*(upload(number) for number in range(1, 9)), evolve(upload(9), id="abcd" + "0" * 28))
        with patch.object(on_sqlite, "ROWS", 2):
            assert self.pages(Filter(id_prefix="abcd"), 10) == [["abcd" + "0" * 28]]

    def test_replicas_are_looked_for_in_one_remote_or_any(self) -> None:
        for number, remote in ((1, "far"), (2, "near")):
            self.ask(self.catalog.create(done(upload(number)), (), [Replica(name(number), remote)]))
        self.ask(self.catalog.replicas.park(Replica(name(1), "far"), "denied", 1.0))
        assert self.names(Filter(remote="far")) == [name(1)]
        assert self.names(Filter(replica=ReplicaState.PARKED)) == [name(1)]
        assert self.names(Filter(remote="near", replica=ReplicaState.PARKED)) == []
        assert self.ask(self.listing.parked("far", None)).upload_ids == [name(1)]
        assert self.ask(self.listing.parked("near", None)).upload_ids == []

    def test_everything_is_counted_in_pieces(self) -> None:
        self.add(*(upload(number) for number in range(1, 5)), done(upload(5)))
        self.ask(self.catalog.create(done(upload(6)), (), [Replica(name(6), "far")]))
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 9.0, ()))
        with patch.object(on_sqlite, "ROWS", 4):
            first = self.ask(self.listing.count_uploads(None))
            assert first.uploads == {UploadState.GONE: 1, UploadState.UPLOADING: 3}
            rest = self.ask(self.listing.count_uploads(first.place))
            assert (rest.uploads, rest.place) == ({UploadState.FINISHED: 2}, None)
        assert self.ask(self.listing.count_replicas(None)).replicas == {("far", ReplicaState.OPEN): 1}

    def test_what_is_unfinished_is_counted(self) -> None:
        self.add(upload(1), done(upload(2)), evolve(done(upload(3)), concat="partial"), upload(4))
        self.ask(self.catalog.end(name(4), GoneReason.TERMINATED, 9.0, ()))
        assert self.ask(self.listing.unfinished()) == 2
