"""A canary's entities are the same everywhere and for ever, and as many as were asked for."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from sparkscore.errors import ConfigError
from sparkscore.scoring.canary import Split, buckets_of, parse_share

SENSORS = pa.record_batch(
    {
        "sensor": pa.array([f"s{i}" for i in range(20_000)]),
        "line": pa.array([i % 7 for i in range(20_000)], pa.int32()),
    }
)


def chosen(share: float, batch: pa.RecordBatch = SENSORS) -> set[str]:
    places = Split(("sensor",), share).places_of(batch)
    return {
        name for name, place in zip(batch["sensor"].to_pylist(), places, strict=True) if place == 1
    }


def test_hash_is_the_first_bytes_of_a_sha_256_of_the_texts() -> None:
    columns = [pa.array(["pump", None]), pa.array([7, None], pa.int64())]
    # sha256(b"pump\x1f7") and sha256(b"\x1f"), as any tool says it: it must never change.
    assert buckets_of(columns).tolist() == [0x3CBBDB53, 0xFFE679BB]


def test_share_of_entities_is_chosen_whatever_else_is_in_the_batch() -> None:
    found = chosen(0.05)
    assert 900 < len(found) < 1100
    assert chosen(0.05, SENSORS.slice(500, 700)) == found & set(
        SENSORS["sensor"][500:1200].to_pylist()
    )


def test_entities_of_a_smaller_share_stay_in_a_larger_one() -> None:
    assert chosen(0.05) < chosen(0.1) < chosen(1.0)
    assert chosen(0.0) == set()
    assert len(chosen(1.0)) == SENSORS.num_rows


def test_columns_of_all_types_with_one_text_name_an_entity() -> None:
    day = dt.date(2026, 11, 29)
    columns = [pa.array([True]), pa.array([day]), pa.array(["a"]).dictionary_encode()]
    assert (
        buckets_of(columns).tolist() == buckets_of([pa.array(["true\x1f2026-11-29\x1fa"])]).tolist()
    )


@pytest.mark.parametrize(
    ("text", "share"), [("5%", 0.05), ("0.5 %", 0.005), ("0%", 0.0), ("100%", 1.0)]
)
def test_share_is_a_percentage(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "5", "-5%", "101%", "five%", "nan%", "1e1%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="from 0% to 100%"):
        parse_share(text)
