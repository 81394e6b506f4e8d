"""A message is in the spool for good, once, or not at all."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sparkscore.errors import CheckpointError, SourceAwayError
from sparkscore.files.spool import Message, Spool, segment_path, segments_in

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def message(payload: bytes, topic: str = "plant/a") -> Message:
    return Message(topic, payload, NOON)


def rows(folder: Path) -> list[dict[str, object]]:
    numbers = segments_in(folder)
    return [row for n in numbers for row in pq.read_table(segment_path(folder, n)).to_pylist()]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def test_messages_are_kept_with_their_topic_and_time(spool: Spool, tmp_path: Path) -> None:
    spool.add([message(b"\xff\0"), message(b"", "plant/b")])
    spool.add([message(b"c")])
    assert rows(tmp_path) == [
        {"value": b"\xff\0", "mqtt_topic": "plant/a", "mqtt_received_at": NOON},
        {"value": b"", "mqtt_topic": "plant/b", "mqtt_received_at": NOON},
        {"value": b"c", "mqtt_topic": "plant/a", "mqtt_received_at": NOON},
    ]
    assert segments_in(tmp_path) == [1, 2]


def test_a_spool_goes_on_where_it_was(spool: Spool, tmp_path: Path) -> None:
    first, second = message(b"1"), message(b"2")
    spool.add([first])
    spool.close()
    segment_path(tmp_path, 1).unlink()  # It was scored.
    again = Spool(tmp_path)
    assert (again.recent, again.is_new) == ((first.digest,), False)
    again.add([second])
    assert segments_in(tmp_path) == [2]
    assert again.recent == (first.digest, second.digest)


def test_messages_are_told_by_topic_and_payload() -> None:
    one = message(b"1")
    assert one.digest == Message("plant/a", b"1", NOON + dt.timedelta(days=1)).digest
    assert len({one.digest, message(b"1", "plant/b").digest, message(b"2").digest}) == 3


def test_a_process_that_dies_before_the_state_names_a_segment_has_added_nothing(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.add([message(b"1")])

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sparkscore.files.spool.write_whole", die)
        with pytest.raises(KeyboardInterrupt):
            spool.add([message(b"2")])
    assert len(list((tmp_path / "segments").glob(".*"))) == 1
    spool.close()
    assert len(Spool(tmp_path).recent) == len(rows(tmp_path)) == 1
    assert list((tmp_path / "segments").glob(".*")) == []


def test_a_process_that_dies_after_it_has_added_all(spool: Spool, tmp_path: Path) -> None:
    spool.add([message(b"1")])
    final = segment_path(tmp_path, 1)
    final.rename(final.with_name(f".{final.name}"))  # As it was before it got its name.
    spool.close()
    assert len(Spool(tmp_path).recent) == len(rows(tmp_path)) == 1


def test_one_process_fills_a_spool(spool: Spool, tmp_path: Path) -> None:
    assert spool.is_new
    with pytest.raises(SourceAwayError, match="another process"):
        Spool(tmp_path)
    spool.close()
    Spool(tmp_path).close()


def test_a_damaged_state_is_named(spool: Spool, tmp_path: Path) -> None:
    spool.close()
    (tmp_path / "state.json").write_text("{")
    for _ in range(2):  # It is locked by nobody after the first.
        with pytest.raises(CheckpointError, match=r"state\.json"):
            Spool(tmp_path)


def test_a_folder_that_takes_no_files_is_named(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "segments").rmdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        spool.add([message(b"1")])
    assert spool.recent == ()


@pytest.mark.parametrize("step", ["replace", "_sync_folder"])
def test_a_segment_whose_name_could_not_be_given_is_added_once(
    step: str, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *_: object) -> None:
        if path.name == "segments" or path.suffix == ".parquet":  # Not the state, nor its folder.
            raise OSError("no space left on device")

    messages = [message(b"1"), message(b"2")]
    with monkeypatch.context() as patch:
        if step == "replace":
            patch.setattr(Path, "replace", fail)
        else:
            patch.setattr("sparkscore.files.spool._sync_folder", fail)
        with pytest.raises(CheckpointError, match="no space left"):
            spool.add(messages)
    spool.add(messages)
    spool.add([message(b"3")])
    assert [row["value"] for row in rows(tmp_path)] == [b"1", b"2", b"3"]
