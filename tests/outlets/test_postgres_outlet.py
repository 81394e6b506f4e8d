"""The newest row of each key, in a real PostgreSQL: once, and never an older one over a newer."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from sparkscore.errors import ConfigError, OutletAwayError, OutletError, SparkscoreError
from sparkscore.outlets.base import CommittedBatch, ScoreShape
from sparkscore.outlets.postgres import PostgresOutlet, parse_postgres_uri
from sparkscore.testing.postgres_server import PostgresServer

SCHEMA = pa.schema(
    {
        "sensor": pa.string(),
        "ts": pa.timestamp("us", "UTC"),
        "score": pa.float64(),
        "scored_at": pa.timestamp("us", "UTC"),
    }
)
SHAPE = ScoreShape(SCHEMA, ("sensor",), "ts")
DAY = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
DATABASES = count()


def minute(number: int | None) -> dt.datetime | None:
    return None if number is None else DAY + dt.timedelta(minutes=number)


def batch(
    number: int, *rows: tuple[str, int | None, float], shape: ScoreShape = SHAPE
) -> CommittedBatch:
    """Rows of sensor, minute and score, which were scored in the batch's own minute."""
    values = [(sensor, minute(ts), score, minute(number)) for sensor, ts, score in rows]
    table = pa.table(
        dict(zip(SCHEMA.names, zip(*values, strict=True) if values else [()] * 4, strict=True)),
        schema=SCHEMA,
    )
    return CommittedBatch(shape, "stream", number, lambda: iter(table.to_batches(2)))


@dataclass
class Place:
    """A database with an outlet to its table `latest`."""

    server: PostgresServer
    database: str
    opened: list[PostgresOutlet] = field(default_factory=list)

    def outlet(self, table: str = "latest", **more: str) -> PostgresOutlet:
        query = "".join(f"&{name}={value}" for name, value in {"table": table, **more}.items())
        outlet = PostgresOutlet(parse_postgres_uri(self.server.url(self.database) + query))
        self.opened.append(outlet)
        return outlet

    def run(self, statement: str) -> None:
        self.server.run(statement, self.database)

    def rows(self, columns: str = "sensor, score", table: str = "latest") -> list[Any]:
        with psycopg.connect(self.server.url(self.database)) as connection:
            return connection.execute(
                f"SELECT {columns} FROM {table} ORDER BY 1".encode()
            ).fetchall()


@pytest.fixture
def place(postgres: PostgresServer) -> Iterator[Place]:
    name = f"outlets_{next(DATABASES)}"
    postgres.new_database(name)
    place = Place(postgres, name)
    yield place
    for outlet in place.opened:
        outlet.close()


def test_the_newest_row_of_each_key_is_kept(place: Place) -> None:
    outlet = place.outlet()
    outlet.check(SHAPE)
    rows = [("a", 1, 0.1), ("a", 3, 0.3), ("a", 2, 0.2), ("b", 1, 1.1), ("b", 1, 1.2)]
    assert outlet.publish(batch(0, *rows)) == 5
    assert place.rows() == [("a", 0.3), ("b", 1.2)]
    assert outlet.publish(batch(1, ("a", 2, 9.0), ("b", 2, 2.0), ("c", None, 3.0))) == 3
    assert place.rows() == [("a", 0.3), ("b", 2.0), ("c", 3.0)]
    outlet.publish(batch(2, ("b", None, 9.0), ("c", 1, 3.1)))
    assert place.rows() == [("a", 0.3), ("b", 2.0), ("c", 3.1)]


def test_without_event_time_the_row_that_was_scored_last_is_the_newest(place: Place) -> None:
    outlet, shape = place.outlet(), ScoreShape(SCHEMA, ("sensor",))
    outlet.check(shape)
    outlet.publish(batch(5, ("a", 9, 0.5), ("a", 1, 0.6), shape=shape))
    assert place.rows() == [("a", 0.6)]
    other = batch(4, ("a", 9, 0.4), shape=shape)
    outlet.publish(CommittedBatch(shape, "another stream", 8, other.rows))
    assert place.rows() == [("a", 0.6)]


def test_a_batch_that_is_published_again_changes_nothing(place: Place) -> None:
    outlet = place.outlet()
    outlet.check(SHAPE)
    outlet.publish(batch(0, ("a", 1, 0.1)))
    outlet.publish(batch(1, ("a", 2, 0.2)))
    place.run("UPDATE latest SET score = -1")
    assert place.outlet().publish(batch(1, ("a", 2, 0.2))) == 0
    assert place.outlet().publish(batch(0, ("a", 7, 0.7))) == 0
    assert place.rows() == [("a", -1.0)]
    assert place.rows("stream_id, table_name, batch", "sparkscore_published") == [
        ("stream", "latest", 1)
    ]


def test_a_batch_that_fails_half_way_leaves_nothing(place: Place) -> None:
    outlet = place.outlet()
    outlet.check(SHAPE)
    with pytest.raises(OutletError, match="0x00"):
        outlet.publish(batch(0, ("a", 1, 0.1), ("b", 1, 0.2), ("nul\0", 1, 0.3)))
    assert place.rows() == []
    assert outlet.publish(batch(0, ("a", 1, 0.1))) == 1
    assert place.rows() == [("a", 0.1)]


def test_every_type_of_a_score_table_comes_back_as_it_was(place: Place) -> None:
    values: Mapping[str, tuple[pa.DataType, list[object]]] = {
        "id": (pa.int64(), [1, 2]),
        "flag": (pa.bool_(), [True, None]),
        "tiny": (pa.int8(), [-128, None]),
        "whole": (pa.int32(), [2**31 - 1, None]),
        "single": (pa.float32(), [float("-inf"), None]),
        "double": (pa.float64(), [0.1 + 0.2, None]),
        "text": (pa.string(), ['a "b",\n\\N', ""]),
        "bytes": (pa.binary(), [b"\0\xff", None]),
        "day": (pa.date32(), [dt.date(1582, 10, 4), None]),
        "local": (pa.timestamp("us"), [dt.datetime(1, 1, 1, 0, 0, 0, 1), None]),
        "price": (pa.decimal128(20, 3), [Decimal("12345678901234567.125"), None]),
        "vector": (pa.list_(pa.float64()), [[1.5, None, float("nan")], None]),
        "struct": (pa.struct({"x": pa.int64()}), [{"x": 1}, None]),
        "tags": (pa.map_(pa.string(), pa.string()), [[("k", "v")], None]),
        "Odd name": (pa.string(), ["x", None]),
        "scored_at": (pa.timestamp("us", "UTC"), [DAY, DAY]),
    }
    schema = pa.schema({name: kind for name, (kind, _) in values.items()})
    table = pa.table({name: column for name, (_, column) in values.items()}, schema=schema)
    shape = ScoreShape(schema, ("id",))
    outlet = place.outlet()
    outlet.check(shape)
    outlet.publish(CommittedBatch(shape, "s", 0, lambda: iter(table.to_batches())))
    place.outlet().check(shape)
    first, second = place.rows("*")
    assert first == (
        *(column[0] for _, column in list(values.values())[:4]),
        *(float("-inf"), 0.1 + 0.2, 'a "b",\n\\N', b"\0\xff", dt.date(1582, 10, 4)),
        *(dt.datetime(1, 1, 1, 0, 0, 0, 1), Decimal("12345678901234567.125")),
        *([1.5, None, "NaN"], {"x": 1}, {"k": "v"}, "x", DAY),
    )
    assert second == (2, *[None] * 5, "", *[None] * 8, DAY)


def test_a_table_of_another_shape_is_refused(place: Place) -> None:
    place.run("CREATE TABLE latest (sensor text PRIMARY KEY, ts timestamp, score float8)")
    with pytest.raises(OutletError) as refused:
        place.outlet().check(SHAPE)
    told = str(refused.value)
    assert (
        "ts: the table has timestamp without time zone, the stream publishes timestamp with" in told
    )
    assert "scored_at: the table has no such column" in told
    assert "score:" not in told


def test_a_table_without_the_key_is_refused(place: Place) -> None:
    place.run(
        "CREATE TABLE latest (sensor text, ts timestamptz, score float8, scored_at timestamptz)"
    )
    with pytest.raises(OutletError, match="no unique"):
        place.outlet().check(SHAPE)


def test_a_table_may_have_more_columns_and_lie_in_a_schema(place: Place) -> None:
    place.run("CREATE SCHEMA live")
    place.run(
        "CREATE TABLE live.latest (sensor text, ts timestamptz, score float8, "
        "scored_at timestamptz, note text DEFAULT 'new', UNIQUE (sensor, ts))"
    )
    outlet = place.outlet("live.latest", key="sensor,ts")
    outlet.check(SHAPE)
    outlet.publish(batch(0, ("a", 1, 0.1), ("a", 2, 0.2)))
    assert place.rows("score, note", "live.latest") == [(0.1, "new"), (0.2, "new")]


def test_a_check_leaves_no_row(place: Place) -> None:
    place.outlet().check(SHAPE)
    assert place.rows("count(*)") == place.rows("count(*)", "sparkscore_published") == [(0,)]


def test_a_user_without_rights_is_refused_before_the_first_row(place: Place) -> None:
    place.outlet().check(SHAPE)
    place.run("DROP ROLE IF EXISTS reader")
    place.run("CREATE ROLE reader LOGIN")
    place.run("GRANT SELECT ON latest, sparkscore_published TO reader")
    uri = place.server.url(place.database, "reader") + "&table=latest"
    outlet = PostgresOutlet(parse_postgres_uri(uri))
    place.opened.append(outlet)
    with pytest.raises(OutletError, match="permission denied"):
        outlet.check(SHAPE)


def test_a_server_that_was_away_is_asked_anew(place: Place) -> None:
    outlet = place.outlet()
    outlet.check(SHAPE)
    outlet.publish(batch(0))
    place.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{place.database}' AND pid <> pg_backend_pid()"
    )
    with pytest.raises(OutletAwayError, match="did not answer"):
        outlet.publish(batch(1, ("a", 1, 0.1)))
    assert outlet.publish(batch(1, ("a", 1, 0.1))) == 1


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("postgresql://u:geheim@h/db", "names no table"),
        ("postgresql://u:geheim@h/db?table=a.b.c", "names no table"),
        ("postgresql://u:geheim@h?table=t", "names no database"),
        ("postgresql://u:geheim@h/db?table=t&nonsense=1&password=geheim", "nonsense"),
        ("postgresql://u:geheim@h:port/db?table=t", "port"),
    ],
)
def test_a_uri_that_is_not_whole_is_refused_without_its_password(uri: str, named: str) -> None:
    with pytest.raises(SparkscoreError, match=named) as refused:
        PostgresOutlet(parse_postgres_uri(uri)).check(SHAPE)
    assert "geheim" not in str(refused.value)
    assert "geheim" not in repr(refused.value.__cause__)


def test_passwords_are_in_no_name_and_no_message() -> None:
    uri = "postgresql://u:geheim@127.0.0.1:1/db?table=t&sslpassword=geheim&key=a,b&host=127.0.0.2"
    outlet = PostgresOutlet(parse_postgres_uri(uri))
    assert outlet.name == "postgresql://u@127.0.0.1:1/db?host=127.0.0.2&table=t&key=a,b"
    with pytest.raises(OutletAwayError) as away:
        outlet.publish(batch(0, ("a", 1, 0.1)))
    assert "geheim" not in str(away.value)


@pytest.mark.parametrize(
    ("shape", "key", "named"),
    [
        (ScoreShape(SCHEMA, ()), "", "there is no key"),
        (SHAPE, "machine", "--keep machine"),
        (ScoreShape(SCHEMA, ("sensor",), "arrived"), "", "--keep arrived"),
        (
            ScoreShape(pa.schema({"sensor": pa.month_day_nano_interval()}), ("sensor",)),
            "",
            "no type",
        ),
        (ScoreShape(SCHEMA.append(pa.field("ä" * 32, pa.int8())), ("sensor",)), "", "63 bytes"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    shape: ScoreShape, key: str, named: str, place: Place
) -> None:
    with pytest.raises(ConfigError, match=named):
        place.outlet(key=key).check(shape)
    assert place.rows("to_regclass('latest')", "(SELECT 1) AS one") == [(None,)]
