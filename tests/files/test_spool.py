"""A message is in the spool for good, once, or not at all; whatever else is set aside."""

from __future__ import annotations

import base64
import datetime as dt
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkscore.errors import CheckpointError, SourceError, SourceUnavailableError
from sparkscore.files.spool import ENVELOPE, Message, Spool, segment_path, segments_in

PAYLOAD = pa.schema({"id": pa.int64(), "x": pa.float64(), "at": pa.timestamp("us", "UTC")})
SCHEMA = pa.schema([*PAYLOAD, *ENVELOPE])
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def message(payload: bytes, topic: str = "plant/a") -> Message:
    return Message(topic, payload, NOON)


def rows(folder: Path) -> list[dict[str, object]]:
    numbers = segments_in(folder)
    return [row for n in numbers for row in pq.read_table(segment_path(folder, n)).to_pylist()]


def malformed(folder: Path) -> list[dict[str, str]]:
    paths = sorted((folder / "malformed").glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, SCHEMA)


def test_messages_become_rows_with_their_topic_and_time(spool: Spool, tmp_path: Path) -> None:
    pretty = b'{\n  "id": 2,\r\n  "other": [1],\n  "at": "2026-03-01T11:59:00Z"\n}\n'
    spool.add([message(b'{"id": 1, "x": 0.1}'), message(pretty, "plant/b")])
    spool.add([message(b'{"id": 3}')])
    minute_before = NOON - dt.timedelta(minutes=1)
    envelope = {"topic": "plant/a", "received_at": NOON}
    assert rows(tmp_path) == [
        {"id": 1, "x": 0.1, "at": None, **envelope},
        {"id": 2, "x": None, "at": minute_before, **envelope, "topic": "plant/b"},
        {"id": 3, "x": None, "at": None, **envelope},
    ]
    assert segments_in(tmp_path) == [1, 2]


@pytest.mark.parametrize(
    "payload",
    [b"", b" ", b"[1]", b"{", b'{"id": "one"}', b'{"id": 1.5}', b"\xff{}", b'{"id": 1} {"id": 2}'],
)
def test_payload_that_is_malformed_is_set_aside(
    payload: bytes, spool: Spool, tmp_path: Path
) -> None:
    spool.add([message(b'{"id": 1}'), message(payload, "plant/odd"), message(b'{"id": 2}')])
    assert [row["id"] for row in rows(tmp_path)] == [1, 2]
    (aside,) = malformed(tmp_path)
    assert (aside["topic"], base64.b64decode(aside["payload"])) == ("plant/odd", payload)
    assert aside["reason"]
    assert spool.n_malformed == 1


def test_malformed_payloads_alone_are_no_segment(spool: Spool, tmp_path: Path) -> None:
    spool.add([message(b"no")])
    spool.add([message(b'{"id": 1}')])
    assert segments_in(tmp_path) == [2]


def test_a_spool_goes_on_where_it_was(spool: Spool, tmp_path: Path) -> None:
    first, second = message(b'{"id": 1}'), message(b'{"id": 2}')
    spool.add([first])
    spool.close()
    segment_path(tmp_path, 1).unlink()  # It was scored.
    again = Spool(tmp_path, SCHEMA)
    assert (again.recent, again.is_new) == ((first.digest,), False)
    again.add([second])
    assert segments_in(tmp_path) == [2]
    assert again.recent == (first.digest, second.digest)


@pytest.mark.parametrize("step", ["sparkscore.files.spool.write_whole", "pathlib.Path.replace"])
def test_a_process_that_dies_has_added_all_or_nothing(
    step: str, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.add([message(b'{"id": 1}')])

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(step, die)
        with pytest.raises(KeyboardInterrupt):
            spool.add([message(b'{"id": 2}')])
    spool.close()
    again = Spool(tmp_path, SCHEMA)
    assert len(again.recent) == len(rows(tmp_path)) == 1
    assert list((tmp_path / "segments").glob(".*")) == []


def test_a_process_that_dies_before_the_last_step_has_added_all(
    spool: Spool, tmp_path: Path
) -> None:
    spool.add([message(b'{"id": 1}')])
    final = segment_path(tmp_path, 1)
    final.rename(final.with_name(f".{final.name}"))  # As it was before it got its name.
    spool.close()
    assert len(Spool(tmp_path, SCHEMA).recent) == len(rows(tmp_path)) == 1


def test_one_process_fills_a_spool(spool: Spool, tmp_path: Path) -> None:
    assert spool.is_new
    with pytest.raises(SourceUnavailableError, match="another process"):
        Spool(tmp_path, SCHEMA)
    spool.close()
    Spool(tmp_path, SCHEMA).close()


def test_a_damaged_state_is_named(spool: Spool, tmp_path: Path) -> None:
    spool.close()
    (tmp_path / "state.json").write_text("{")
    for _ in range(2):  # It is locked by nobody after the first.
        with pytest.raises(CheckpointError, match=r"state\.json"):
            Spool(tmp_path, SCHEMA)


def test_a_folder_that_takes_no_files_is_named(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "segments").rmdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        spool.add([message(b'{"id": 1}')])
    assert spool.recent == ()


def test_types_that_json_does_not_tell_exactly_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="DOUBLE"):
        Spool(tmp_path, pa.schema([pa.field("x", pa.float32()), *ENVELOPE]))
