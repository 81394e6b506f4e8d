"""Generated Delta tables: the files engine, the arrow engine and Spark's own reader agree.

A table goes through random steps: rows of random types come, go by deletion vectors, columns are
added, renamed, dropped and widened, with columns mapped by name, by id or not at all. Then every
cell is compared, with and without a random filter, at the newest and at an earlier version.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sparkscore.errors import EngineUnfitError
from sparkscore.files.planning import plan_tasks
from sparkscore.files.predicate import columns_in
from sparkscore.files.reading import TableReading, read_piece
from sparkscore.scoring.engine import SourceSpec
from sparkscore.spark.files_source import open_files
from sparkscore.spark.source import OpenedSource, open_source, quoted

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

N_EXAMPLES = 25
FIRST_MOMENT, LAST_MOMENT = dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999)

scalars: dict[str, tuple[pa.DataType, st.SearchStrategy[object]]] = {
    "TINYINT": (pa.int8(), st.integers(-(2**7), 2**7 - 1)),
    "SMALLINT": (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "INT": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "BIGINT": (pa.int64(), st.integers(-(2**63), 2**63 - 1) | st.just(2**53 + 1)),
    "FLOAT": (pa.float32(), st.floats(width=32)),
    "DOUBLE": (pa.float64(), st.floats() | st.sampled_from([-0.0, 0.0])),
    "BOOLEAN": (pa.bool_(), st.booleans()),
    "STRING": (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=8)),
    "BINARY": (pa.binary(), st.binary(max_size=4)),
    "DATE": (pa.date32(), st.dates()),
    "TIMESTAMP": (
        pa.timestamp("us", "UTC"),
        st.datetimes(FIRST_MOMENT, LAST_MOMENT, timezones=st.just(dt.UTC)),
    ),
    "TIMESTAMP_NTZ": (pa.timestamp("us"), st.datetimes(FIRST_MOMENT, LAST_MOMENT)),
    "DECIMAL(9,2)": (pa.decimal128(9, 2), st.integers(-(10**9) + 1, 10**9 - 1).map(
        lambda n: Decimal(n).scaleb(-2))),
    "DECIMAL(38,10)": (pa.decimal128(38, 10), st.integers(-(10**27), 10**27).map(
        lambda n: Decimal(n).scaleb(-10))),
}  # fmt: skip
PARTITIONS = (
    "TINYINT", "INT", "BIGINT", "STRING", "BOOLEAN", "DATE", "DOUBLE", "TIMESTAMP",
    "TIMESTAMP_NTZ", "DECIMAL(9,2)",
)  # fmt: skip
WIDER = {"TINYINT": "INT", "SMALLINT": "BIGINT", "INT": "BIGINT", "FLOAT": "DOUBLE"}
UNFIT = (
    "is a struct whose fields have other names in the files",
    "it knows",
    "deletion vectors",
    "is more than it reads",
)
"""Of the reasons of a refusal: what only Spark can do."""


@dataclass(frozen=True)
class Kind:
    """A type as Spark SQL calls it, and what its values are."""

    sql: str
    arrow: pa.DataType
    values: st.SearchStrategy[object]

    def nullable(self) -> st.SearchStrategy[object]:
        return st.none() | self.values


def scalar(name: str) -> Kind:
    return Kind(name, *scalars[name])


def array_of(kind: Kind) -> Kind:
    values = st.lists(kind.nullable(), max_size=3)
    return Kind(f"ARRAY<{kind.sql}>", pa.list_(kind.arrow), values.map(list))


def map_of(kind: Kind) -> Kind:
    pairs = st.dictionaries(st.text("abc", max_size=2), kind.nullable(), max_size=2)
    return Kind(
        f"MAP<STRING,{kind.sql}>",
        pa.map_(pa.string(), kind.arrow),
        pairs.map(lambda known: list(known.items())),
    )


def struct_of(kinds: tuple[Kind, ...]) -> Kind:
    names = [f"f{i}" for i in range(len(kinds))]
    fields = ", ".join(f"{name}: {kind.sql}" for name, kind in zip(names, kinds, strict=True))
    values = st.fixed_dictionaries(
        {name: kind.nullable() for name, kind in zip(names, kinds, strict=True)}
    )
    types = [(name, kind.arrow) for name, kind in zip(names, kinds, strict=True)]
    return Kind(f"STRUCT<{fields}>", pa.struct(types), values.map(dict))


kinds = st.recursive(
    st.sampled_from(sorted(scalars)).map(scalar),
    lambda inner: (
        inner.map(array_of)
        | inner.map(map_of)
        | st.lists(inner, min_size=1, max_size=3).map(tuple).map(struct_of)
    ),
    max_leaves=4,
)


@dataclass
class Table:
    """A table that is being made: what Spark SQL was told, and which columns there are."""

    spark: SparkSession
    path: Path
    mapping: str
    has_vectors: bool
    columns: dict[str, Kind]
    partition: str | None
    n_rows: int = 0
    told: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"delta.`{self.path}`"

    @property
    def can_widen(self) -> bool:
        """deltalake reads no deletion vectors of such a table."""
        return self.mapping == "none" and not self.has_vectors

    def sql(self, text: str) -> None:
        self.told.append(text)
        self.spark.sql(text)

    def create(self) -> None:
        columns = ", ".join(f"{quoted(n)} {k.sql}" for n, k in self.columns.items())
        properties = {
            "delta.columnMapping.mode": self.mapping,
            "delta.enableDeletionVectors": str(self.has_vectors).lower(),
            "delta.feature.timestampNtz": "supported",
            "delta.enableTypeWidening": str(self.can_widen).lower(),
        }
        listed = ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())
        by = f"PARTITIONED BY ({quoted(self.partition)})" if self.partition else ""
        self.sql(f"CREATE TABLE {self.name} (id BIGINT, {columns}) USING delta {by} "
                 f"TBLPROPERTIES ({listed})")  # fmt: skip

    def append(self, rows: list[dict[str, object]]) -> None:
        numbered = [{"id": self.n_rows + i, **row} for i, row in enumerate(rows)]
        schema = pa.schema([("id", pa.int64()), *((n, k.arrow) for n, k in self.columns.items())])
        self.told.append(f"append {numbered}")
        frame = self.spark.createDataFrame(pa.Table.from_pylist(numbered, schema))
        # PySpark takes naive times for instants of the session's zone.
        typed = [
            frame[quoted(name)].cast(kind.sql).alias(name) for name, kind in self.columns.items()
        ]
        frame = frame.select("id", *typed)
        frame.repartition(2).write.format("delta").mode("append").save(str(self.path))
        self.n_rows += len(rows)


def rows_of(columns: dict[str, Kind]) -> st.SearchStrategy[list[dict[str, object]]]:
    row = st.fixed_dictionaries({name: kind.nullable() for name, kind in columns.items()})
    return st.lists(row, min_size=2, max_size=12)


def grow(table: Table, data: st.DataObject) -> None:
    """One random step."""
    steps = ["append", "add", "delete"]
    free = [name for name in table.columns if name != table.partition]
    if table.mapping != "none" and len(free) > 1:
        steps += ["rename", "drop"]
    wider = [name for name in free if table.columns[name].sql in WIDER]
    if table.can_widen and wider:
        steps.append("widen")
    step = data.draw(st.sampled_from(steps))
    if step == "append":
        table.append(data.draw(rows_of(table.columns)))
    elif step == "add":
        name, kind = f"a{len(table.told)}", data.draw(kinds)
        table.sql(f"ALTER TABLE {table.name} ADD COLUMNS ({name} {kind.sql})")
        table.columns[name] = kind
    elif step == "delete":
        remainder = data.draw(st.integers(0, 2))
        table.sql(f"DELETE FROM {table.name} WHERE id % 3 = {remainder}")
    elif step == "widen":
        name = data.draw(st.sampled_from(wider))
        kind = scalar(WIDER[table.columns[name].sql])
        table.sql(f"ALTER TABLE {table.name} ALTER COLUMN {quoted(name)} TYPE {kind.sql}")
        table.columns[name] = kind
    elif step == "rename":
        old, new = data.draw(st.sampled_from(free)), f"r {len(table.told)}"
        table.sql(f"ALTER TABLE {table.name} RENAME COLUMN {quoted(old)} TO {quoted(new)}")
        table.columns[new] = table.columns.pop(old)
    else:
        name = data.draw(st.sampled_from(free))
        table.sql(f"ALTER TABLE {table.name} DROP COLUMN {quoted(name)}")
        del table.columns[name]


def filters(columns: dict[str, Kind]) -> st.SearchStrategy[str]:
    """Filters of the kind that the files engine understands."""
    choices = [
        st.sampled_from(["id < 3", "id >= 2 AND id <> 4", "id IN (0, 5) OR id > 6", "NOT (id = 1)"])
    ]
    for name, kind in columns.items():
        choices.append(st.sampled_from([f"{quoted(name)} IS NULL", f"{quoted(name)} IS NOT NULL"]))
        if kind.sql in ("TINYINT", "INT", "BIGINT", "DOUBLE"):
            tests = (f"{quoted(name)} {sign} 0" for sign in ("<", "<=", "=", "!=", ">="))
            choices.append(st.sampled_from(list(tests)))
        if kind.sql == "DATE":
            choices.append(st.just(f"{quoted(name)} < DATE '2000-01-01'"))
        if kind.sql == "STRING":
            choices.append(st.just(f"{quoted(name)} >= 'a'"))
    return st.one_of(choices)


@dataclass
class Tally:
    """What was really compared, and how often the files engine left a table to Spark."""

    n_cells: int = 0
    features: Counter[str] = field(default_factory=Counter)
    unfit: Counter[str] = field(default_factory=Counter)


def agree(spark: SparkSession, spec: SourceSpec, tally: Tally) -> None:
    opened = open_source(spark, spec)
    arrow = comparable(opened.frame.toArrow().to_pylist(maps_as_pydicts="strict"))
    assert arrow == comparable(by_spark(opened))
    try:
        source = open_files(spark, spec)
    except EngineUnfitError as exc:
        tally.unfit[exc.reason] += 1
        return
    columns = []
    for each in source.columns:
        try:
            columns.append(source.column(each.column.name))
        except EngineUnfitError as exc:
            tally.unfit[exc.reason] += 1
    schema = pa.schema([pa.field(c.column.name, c.column.type) for c in columns])
    if source.where is not None and not columns_in(source.where) <= set(schema.names):
        return
    reading = TableReading(
        schema=schema,
        outputs=tuple(schema.names),
        physical={c.column.name: c.in_files for c in columns},
        where=source.where,
        max_bytes=500,
    )
    tasks = plan_tasks(source.files, 2)
    batches = [b for task in tasks for piece in task for b in read_piece(piece, reading)]
    files = pa.Table.from_batches(batches, schema).to_pylist(maps_as_pydicts="strict")
    assert comparable(files) == [{name: row[name] for name in schema.names} for row in arrow]
    tally.n_cells += len(files) * len(schema)


def by_spark(opened: OpenedSource) -> list[dict[str, object]]:
    """The rows as Spark itself hands them to Python, without Arrow."""
    return [row.asDict(recursive=True) for row in opened.frame.collect()]


def comparable(rows: list[dict[str, object]]) -> list[dict[str, str]]:
    """Rows by id, each value as text, so that NaN equals NaN and -0.0 is not 0.0."""
    found = [{name: repr(_plain(value)) for name, value in row.items()} for row in rows]
    return sorted(found, key=lambda row: int(row["id"]))


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in sorted(value.items())}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(dt.UTC).replace(tzinfo=None)
    return value


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    counted = Tally()
    yield counted
    # Without this the tests below could pass by comparing nothing.
    assert counted.n_cells > 40 * N_EXAMPLES, counted
    assert all(any(known in reason for known in UNFIT) for reason in counted.unfit), counted
    assert min(counted.features[name] for name in ("none", "name", "id")) > 0, counted


@settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_files_arrow_and_spark_agree_on_every_cell(
    data: st.DataObject, spark: SparkSession, tmp_path: Path, tally: Tally
) -> None:
    drawn = data.draw(st.lists(kinds, min_size=3, max_size=6), label="columns")
    columns = {f"c {i}" if i % 2 else f"c{i}": kind for i, kind in enumerate(drawn)}
    mapping = data.draw(st.sampled_from(["none", "name", "id"]), label="mapping")
    if mapping == "none":
        columns = {name.replace(" ", "_"): kind for name, kind in columns.items()}
    partition = None
    if data.draw(st.booleans(), label="is partitioned"):
        partition = "p"
        columns[partition] = scalar(data.draw(st.sampled_from(PARTITIONS), label="partition"))
    has_vectors = data.draw(st.booleans(), label="has deletion vectors")
    table = Table(spark, tmp_path / uuid.uuid4().hex, mapping, has_vectors, columns, partition)
    table.create()
    table.append(data.draw(rows_of(columns)))
    for _ in range(data.draw(st.integers(0, 4), label="steps")):
        grow(table, data)
    tally.features[mapping] += 1
    agree(spark, SourceSpec(str(table.path)), tally)
    where = data.draw(filters(table.columns), label="where")
    agree(spark, SourceSpec(str(table.path), where=where), tally)
    agree(spark, SourceSpec(str(table.path), version=1), tally)
