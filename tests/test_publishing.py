"""Each outlet gets each batch once, as far as anybody can know, and is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest

from sparkscore.errors import OutletAwayError
from sparkscore.files.checkpoint import Checkpoint
from sparkscore.outlets.base import CommittedBatch, ScoreShape
from sparkscore.publishing import Patience, Publisher

SHAPE = ScoreShape(pa.schema({"id": pa.int64()}), ("id",))


@dataclass
class ListOutlet:
    """Keeps the numbers of batches; away for so many calls first."""

    name: str
    n_away: int = 0
    taken: list[int] = field(default_factory=list)

    def check(self, shape: ScoreShape) -> None:
        """Take all."""

    def publish(self, batch: CommittedBatch) -> int:
        if self.n_away:
            self.n_away -= 1
            raise OutletAwayError(f"{self.name} is away")
        self.taken.append(batch.number)
        return sum(rows.num_rows for rows in batch.rows())

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Clock:
    now_s: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class Desk:
    """A publisher of a stream that may be started again."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    told: list[str | None] = field(default_factory=list)

    def publisher(self, *outlets: ListOutlet) -> Publisher:
        patience = Patience(60, lambda: self.clock.now_s, self.clock.sleep)
        return Publisher(
            outlets,
            Checkpoint(self.folder),
            patience,
            lambda reason: self.told.append(None if reason is None else str(reason)),
        )


def batch(number: int) -> CommittedBatch:
    def rows() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"id": [1, 2, 3]})

    return CommittedBatch(SHAPE, "stream", number, rows)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_every_outlet_gets_every_batch(desk: Desk) -> None:
    one, other = ListOutlet("one"), ListOutlet("other")
    publisher = desk.publisher(one, other)
    assert [publisher.publish(batch(number)) for number in (0, 1)] == [6, 6]
    assert one.taken == other.taken == [0, 1]
    assert desk.told == []


def test_a_stream_that_starts_again_leaves_out_what_is_known_to_be_there(desk: Desk) -> None:
    one, other = ListOutlet("one"), ListOutlet("other", n_away=1000)
    with pytest.raises(OutletAwayError):
        desk.publisher(one, other).publish(batch(0))
    again = ListOutlet("other")
    publisher = desk.publisher(one, again)
    assert publisher.publish(batch(0)) == 3
    assert publisher.publish(batch(1)) == 6
    assert one.taken == again.taken == [0, 1]


def test_an_outlet_that_joins_later_gets_what_comes_from_then_on(desk: Desk) -> None:
    desk.publisher(ListOutlet("one")).publish(batch(0))
    joined = ListOutlet("joined")
    desk.publisher(joined).publish(batch(1))
    assert joined.taken == [1]


def test_an_outlet_that_is_away_is_waited_for_and_told_of_once(desk: Desk) -> None:
    outlet = ListOutlet("one", n_away=5)
    assert desk.publisher(outlet).publish(batch(0)) == 3
    assert outlet.taken == [0]
    assert desk.told == ["one is away", None]
    assert desk.clock.now_s == 0.25 + 0.5 + 1 + 2 + 4


def test_patience_ends(desk: Desk) -> None:
    outlet = ListOutlet("one", n_away=1000)
    with pytest.raises(OutletAwayError):
        desk.publisher(outlet).publish(batch(0))
    assert 45 < desk.clock.now_s <= 60
    assert desk.told == ["one is away"]
