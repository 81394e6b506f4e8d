"""Tables that grow at random, read three ways: each cell is the same in all of them.

Spark SQL makes each table and changes it. Then the tasks of the files engine, the Arrow that the
`arrow` engine is fed with, and the Python rows of Spark's own reader are compared.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sparkscore.errors import EngineUnfitError
from sparkscore.files.planning import FilePiece, plan_tasks
from sparkscore.files.predicate import columns_in
from sparkscore.files.reading import TableReading, read_piece
from sparkscore.scoring.engine import SourceSpec
from sparkscore.spark.delta import session_conf
from sparkscore.spark.files_source import FilesSource, open_files
from sparkscore.spark.source import open_source

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

N_EXAMPLES = 2
"""For each kind of table; each takes 5 s. A hunt takes 30 of them, and no `derandomize`."""
N_ROWS = 40
"""Of one append."""
N_FILTERS = 8

SMALL_ROW_GROUPS = {"parquet.block.row.count.limit": "3"}

NESTED = pa.struct(
    [("a", pa.int32()), ("b", pa.list_(pa.string())), ("at", pa.timestamp("us", "UTC"))]
)
INNER = pa.struct([("x", pa.float64()), ("raw", pa.binary())])


@dataclass(frozen=True)
class Kind:
    """A SQL type with the values that tell readers apart; null is added to all of them.

    Attributes:
        literals: Values as a filter would say them; empty: the files engine filters no such column.
        widens_to: What Delta may change the type to.
    """

    arrow: pa.DataType
    values: tuple[object, ...]
    literals: tuple[str, ...] = ()
    widens_to: tuple[str, ...] = ()


def decimals(precision: int, scale: int) -> tuple[Decimal, ...]:
    digits = "123456789" * 5
    texts = ("0", "1", f"-{digits[:precision]}", "9" * precision)
    return tuple(Decimal(f"{text}E-{scale}") for text in texts)


DAYS = ("0001-01-01", "1582-10-04", "1582-10-15", "1969-12-31", "2013-10-01", "9999-12-31")
TIMES = (
    "1700-03-01 00:00:00.000001",
    "1969-12-31 23:59:59.999999",
    "1970-01-01 00:00:00.000000",
    "2013-10-27 01:30:00.123456",
    "2500-01-01 00:00:00.000001",
    "9998-12-31 23:59:59.999999",
)
WORDS = (
    "",
    " ",
    "a",
    "A",
    "a/b=c%d e",
    "%2F",
    "null",
    "ü€😀",
    "\ue000",
    "z" * 50,
    "x\n\ty",
    "a:b#?",
)
DOUBLES = (0.0, -0.0, 1.5, -1e300, 5e-324, 2.0**53, float("nan"), float("inf"), float("-inf"))

KINDS: Mapping[str, Kind] = {
    "TINYINT": Kind(
        pa.int8(), (-128, -1, 0, 127), ("-128", "0", "127", "1000"),
        ("SMALLINT", "INT", "BIGINT", "DOUBLE", "DECIMAL(12,2)"),
    ),
    "SMALLINT": Kind(
        pa.int16(), (-(2**15), 0, 7, 2**15 - 1), ("-32768", "7"),
        ("INT", "BIGINT", "DOUBLE", "DECIMAL(12,2)"),
    ),
    "INT": Kind(
        pa.int32(), (-(2**31), 0, 5, 2**31 - 1), ("-2147483648", "5", "2147483648"),
        ("BIGINT", "DOUBLE", "DECIMAL(12,2)"),
    ),
    "BIGINT": Kind(
        pa.int64(), (-(2**63), -1, 0, 2**53, 2**53 + 1, 2**63 - 1),
        ("-1", "9007199254740992", "9007199254740993", "9223372036854775807"),
        ("DECIMAL(38,18)",),
    ),
    "FLOAT": Kind(pa.float32(), (0.0, -0.0, 1.5, *DOUBLES[-3:]), (), ("DOUBLE",)),
    "DOUBLE": Kind(pa.float64(), DOUBLES, ("0", "-0.0", "1.5", "9007199254740993", "-1.25")),
    "DECIMAL(5,0)": Kind(pa.decimal128(5, 0), decimals(5, 0), (), ("DECIMAL(12,2)",)),
    "DECIMAL(12,2)": Kind(pa.decimal128(12, 2), decimals(12, 2), (), ("DECIMAL(38,18)",)),
    "DECIMAL(38,0)": Kind(pa.decimal128(38, 0), decimals(38, 0)),
    "DECIMAL(38,18)": Kind(pa.decimal128(38, 18), decimals(38, 18)),
    "BOOLEAN": Kind(pa.bool_(), (True, False), ("TRUE", "FALSE")),
    "STRING": Kind(pa.string(), WORDS, tuple(f"'{word}'" for word in (*WORDS, "b", "zz"))),
    "BINARY": Kind(pa.binary(), (b"", b"\x00\xff", b"abc")),
    "DATE": Kind(
        pa.date32(), tuple(dt.date.fromisoformat(day) for day in DAYS),
        (*tuple(f"DATE '{day}'" for day in DAYS), "'1970-01-01'"), ("TIMESTAMP_NTZ",),
    ),
    "TIMESTAMP": Kind(
        pa.timestamp("us", "UTC"),
        tuple(dt.datetime.fromisoformat(time).replace(tzinfo=dt.UTC) for time in TIMES),
        (*tuple(f"TIMESTAMP '{time}Z'" for time in TIMES), "'2013-10-27 02:30:00+01:00'"),
    ),
    "TIMESTAMP_NTZ": Kind(
        pa.timestamp("us"), tuple(dt.datetime.fromisoformat(time) for time in TIMES)
    ),
    "ARRAY<STRING>": Kind(pa.list_(pa.string()), ([], ["a", None], ["", "ü"])),
    "MAP<STRING,BIGINT>": Kind(
        pa.map_(pa.string(), pa.int64()), ([], [("k", 2**53 + 1), ("l", None)])
    ),
    "ARRAY<STRUCT<x:DOUBLE,raw:BINARY>>": Kind(
        pa.list_(INNER), ([], [None, {"x": float("nan"), "raw": None}, {"x": -0.0, "raw": b""}])
    ),
    "STRUCT<a:INT,b:ARRAY<STRING>,at:TIMESTAMP>": Kind(
        NESTED,
        (
            {"a": 1, "b": ["x", None], "at": dt.datetime(2013, 10, 1, tzinfo=dt.UTC)},
            {"a": None, "b": None, "at": None},
        ),
    ),
}  # fmt: skip

FILTERED = tuple(name for name, kind in KINDS.items() if kind.literals)
PARTITIONING = tuple(
    name for name in KINDS if name != "BINARY" and not name.startswith(("ARRAY", "MAP", "STRUCT"))
)
INTEGERS = frozenset({"TINYINT", "SMALLINT", "INT", "BIGINT"})
UNFIT_PARTITIONS = frozenset({"FLOAT", "DOUBLE", "TIMESTAMP", "TIMESTAMP_NTZ"})


@dataclass(frozen=True)
class Column:
    """A column of a generated table; `earlier` are types that it had before."""

    name: str
    sql: str
    is_partition: bool = False
    earlier: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableState:
    """What the table is after a step; the id is not among its columns.

    Attributes:
        mapping: By what columns are found in files: none, name or id.
        changes: What else the table is made for: vectors of deleted rows, or widening. A table with
            both is left to Spark as a whole.
    """

    columns: tuple[Column, ...]
    mapping: str
    changes: str

    def unfit_columns(self) -> set[str]:
        """Exactly the columns that the files engine may leave to Spark."""
        return {column.name for column in self.columns if self._is_unfit(column)}

    def _is_unfit(self, column: Column) -> bool:
        is_renamed_inside = self.mapping != "none" and "STRUCT" in column.sql
        is_cut_apart = column.is_partition and column.sql in UNFIT_PARTITIONS
        was_integer = not INTEGERS.isdisjoint(column.earlier)
        return is_renamed_inside or is_cut_apart or (was_integer and "DECIMAL" in column.sql)


@dataclass(frozen=True)
class Step:
    """One commit, and what the table is after it.

    Attributes:
        sql: The statement, with {t} for the table; empty: an append of random rows.
        seed: What the rows of an append are drawn from.
        timestamps: How its files hold timestamps.
        n_files: Files of an append, for each of its partitions.
    """

    after: TableState = field(repr=False)
    sql: str = ""
    seed: int = 0
    timestamps: str = "INT96"
    n_files: int = 1


@dataclass(frozen=True)
class History:
    """A table from its first rows on.

    Attributes:
        pinned: Step whose version is read too when the table has gone on.
        seed: What the filters are drawn from.
    """

    create: TableState
    steps: tuple[Step, ...]
    pinned: int
    seed: int


def history(draw: random.Random, mapping: str, changes: str) -> History:
    """Rows, two changes, more rows, and deleted ones."""
    state = created(draw, mapping, changes)
    steps = [appended(draw, state)]
    for i in range(2):
        name = f"n{i}" if mapping == "none" else f"n {i},="
        steps.append(changed(draw, steps[-1].after, name))
    steps.append(appended(draw, steps[-1].after))
    steps.append(Step(steps[-1].after, "DELETE FROM {t} WHERE id % 3 = 0"))
    return History(state, tuple(steps), draw.randrange(len(steps) - 1), draw.getrandbits(32))


def created(draw: random.Random, mapping: str, changes: str) -> TableState:
    kinds = draw.sample(list(KINDS), k=draw.randint(8, 14))
    cutting = draw.sample(PARTITIONING, k=draw.randint(0, 2))
    name = "c{}" if mapping == "none" else "c {};"
    columns = [
        Column(name.format(i), sql, is_partition=i >= len(kinds))
        for i, sql in enumerate([*kinds, *cutting])
    ]
    return TableState(tuple(columns), mapping, changes)


def appended(draw: random.Random, state: TableState) -> Step:
    return Step(
        state,
        seed=draw.getrandbits(32),
        timestamps=draw.choice(["INT96", "TIMESTAMP_MICROS"]),
        n_files=draw.randint(1, 2),
    )


def changed(draw: random.Random, state: TableState, new_name: str) -> Step:
    """A column added, renamed, dropped or widened, or rows deleted."""
    any_column = draw.choice(state.columns)
    others = [column for column in state.columns if not column.is_partition]
    wider = [column for column in others if KINDS[column.sql].widens_to]
    changes = [
        added(state, new_name, draw.choice(list(KINDS))),
        Step(state, f"DELETE FROM {{t}} WHERE id % {draw.randint(2, 9)} = 1"),
    ]
    if state.mapping != "none":
        changes += [renamed(state, any_column, new_name), dropped(state, draw.choice(others))]
    if state.changes == "widening" and wider:
        column = draw.choice(wider)
        changes += [widened(state, column, draw.choice(KINDS[column.sql].widens_to))] * 4
    return draw.choice(changes)


def added(state: TableState, name: str, sql: str) -> Step:
    columns = (*state.columns, Column(name, sql))
    return Step(replace(state, columns=columns), f"ALTER TABLE {{t}} ADD COLUMNS (`{name}` {sql})")


def renamed(state: TableState, old: Column, name: str) -> Step:
    columns = tuple(replace(c, name=name) if c == old else c for c in state.columns)
    return Step(
        replace(state, columns=columns),
        f"ALTER TABLE {{t}} RENAME COLUMN `{old.name}` TO `{name}`",
    )


def dropped(state: TableState, old: Column) -> Step:
    columns = tuple(column for column in state.columns if column != old)
    return Step(replace(state, columns=columns), f"ALTER TABLE {{t}} DROP COLUMN `{old.name}`")


def widened(state: TableState, old: Column, sql: str) -> Step:
    new = replace(old, sql=sql, earlier=(*old.earlier, old.sql))
    columns = tuple(new if column == old else column for column in state.columns)
    return Step(
        replace(state, columns=columns), f"ALTER TABLE {{t}} ALTER COLUMN `{old.name}` TYPE {sql}"
    )


def perform(spark: SparkSession, path: Path, history: History) -> list[int]:
    """Make the table; the version that it has after each step."""
    versions = []
    for number, step in enumerate(history.steps):
        timestamps = {"spark.sql.parquet.outputTimestampType": step.timestamps}
        with session_conf(spark, SMALL_ROW_GROUPS | timestamps):
            if step.sql:
                spark.sql(step.sql.format(t=f"delta.`{path}`"))
            else:
                append(spark, path, step, history.create, first_id=number * N_ROWS)
        versions.append(len(list((path / "_delta_log").glob("*.json"))) - 1)
    return versions


def append(
    spark: SparkSession, path: Path, step: Step, create: TableState, *, first_id: int
) -> None:
    """Random rows; the first ones make the table, with properties and partitions of `create`."""
    columns = (f"`{column.name}` {column.sql}" for column in step.after.columns)
    schema = ", ".join(["id BIGINT", *columns])
    frame = spark.createDataFrame(rows(step, first_id), schema).coalesce(step.n_files)
    writer = frame.write.format("delta").mode("append")
    if first_id == 0:
        partitions = [column.name for column in create.columns if column.is_partition]
        writer = writer.partitionBy(*partitions).options(**properties(create))
    writer.save(str(path))


def properties(state: TableState) -> dict[str, str]:
    found = {"delta.feature.timestampNtz": "supported"}  # Columns may come to be of that type.
    if state.mapping != "none":
        found["delta.columnMapping.mode"] = state.mapping
    switch = "DeletionVectors" if state.changes == "vectors" else "TypeWidening"
    found[f"delta.enable{switch}"] = "true"
    return found


def rows(step: Step, first_id: int) -> pa.Table:
    draw = random.Random(step.seed)
    columns = {"id": pa.array(range(first_id, first_id + N_ROWS), pa.int64())}
    for column in step.after.columns:
        kind = KINDS[column.sql]
        # Few partitions, so that a file has several rows and row groups.
        values = draw.sample(kind.values, k=2) if column.is_partition else kind.values
        values = draw.choices([*values, None], k=N_ROWS)
        columns[column.name] = pa.array(values, kind.arrow)
    return pa.table(columns)


def by_files(source: FilesSource, names: Sequence[str]) -> pa.Table:
    """Columns as the tasks of the files engine read them; each file is cut in two."""
    filtered = [] if source.where is None else sorted(columns_in(source.where))
    columns = [source.column(name) for name in dict.fromkeys([*names, *filtered])]
    schema = pa.schema([pa.field(c.column.name, c.column.type) for c in columns])
    reading = TableReading(
        schema=schema,
        outputs=tuple(names),
        physical={c.column.name: c.in_files for c in columns},
        where=source.where,
        max_bytes=500,
    )
    pieces = [half for task in plan_tasks(source.files, 2) for piece in task for half in cut(piece)]
    batches = [batch for piece in pieces for batch in read_piece(piece, reading)]
    return pa.Table.from_batches(batches, pa.schema([schema.field(name) for name in names]))


def cut(piece: FilePiece) -> tuple[FilePiece, FilePiece]:
    middle = (piece.start + piece.end) // 2
    return replace(piece, end=middle), replace(piece, start=middle)


def cells(table: pa.Table) -> dict[int, dict[str, str]]:
    """Rows by id, each cell as text, so that NaN is NaN, -0.0 is not 0.0, and 1 is not 1.0."""
    assert table["id"].null_count == 0
    types = {f.name: f.type for f in table.schema}
    return by_id(table.to_pylist(), types)


def by_id(
    found: Sequence[Mapping[str, object]], types: Mapping[str, pa.DataType]
) -> dict[int, dict[str, str]]:
    as_text = [{name: text(row[name], types[name]) for name in types} for row in found]
    assert len({row["id"] for row in as_text}) == len(as_text)
    return {int(row["id"]): row for row in as_text}


def text(value: object, data_type: pa.DataType) -> str:
    """A value of Arrow or of a Spark row as the same text."""
    if value is None:
        return "null"
    if pa.types.is_struct(data_type):
        return str([text(value[f.name], f.type) for f in data_type])  # type: ignore[index]
    if pa.types.is_list(data_type):
        return str([text(one, data_type.value_type) for one in value])  # type: ignore[attr-defined]
    if pa.types.is_map(data_type):
        pairs = value.items() if isinstance(value, dict) else value
        # Python rows have maps as dicts, in no order that is Spark's.
        return str(sorted((key, text(one, data_type.item_type)) for key, one in pairs))  # type: ignore[attr-defined]
    if isinstance(value, dt.datetime) and data_type.tz is not None:
        return value.astimezone(dt.UTC).isoformat()  # Spark's rows hold the local time.
    if isinstance(value, bytes | bytearray):
        return repr(bytes(value))
    return f"{value:f}" if isinstance(value, Decimal) else repr(value)


def differences(
    have: Mapping[int, Mapping[str, str]], want: Mapping[int, Mapping[str, str]]
) -> list[str]:
    """The first cells that differ; a row that one side lacks differs in its id."""
    found = [
        f"{name!r} of row {number}: {have.get(number, {}).get(name)} is not "
        f"{want.get(number, {}).get(name)}"
        for number in sorted({*have, *want})
        for name in have.get(number, {"id": ""})
        if have.get(number, {}).get(name) != want.get(number, {}).get(name)
    ]
    return found[:5]


def a_filter(draw: random.Random, columns: Sequence[Column], depth: int = 2) -> str:
    """A filter of the grammar that the files engine understands."""
    if depth and draw.random() < 0.5:
        parts = [a_filter(draw, columns, depth - 1) for _ in range(2)]
        return draw.choice(
            [f"({parts[0]} AND {parts[1]})", f"({parts[0]} OR {parts[1]})", f"NOT ({parts[0]})"]
        )
    column = draw.choice(columns)
    name, literals = f"`{column.name}`", KINDS[column.sql].literals
    one, other = draw.choices(literals, k=2)
    sign = draw.choice(["=", "==", "!=", "<>", "<", "<=", ">", ">="])
    conditions = [
        f"{name} {sign} {one}",
        f"{one} {sign} {name}",
        f"{name} IN ({one}, {other})",
        f"{name} NOT IN ({one})",
        f"{name} BETWEEN {one} AND {other}",
        f"{name} NOT BETWEEN {one} AND {other}",
        f"{name} IS NULL",
        f"{name} IS NOT NULL",
    ]
    return draw.choice([*conditions[:1] * 3, *conditions, *[name] * (column.sql == "BOOLEAN")])


def refuses(source: FilesSource, name: str) -> bool:
    try:
        source.column(name)
    except EngineUnfitError:
        return True
    return False


def check_version(
    spark: SparkSession, spec: SourceSpec, state: TableState, draw: random.Random, n_filters: int
) -> int:
    """Compare all ways of reading one version, whole and through filters.

    Returns:
        Cells that were compared.
    """
    opened, source = open_source(spark, spec), open_files(spark, spec)
    assert source.table == opened.table
    unfit = {column.name for column in state.columns if refuses(source, column.name)}
    assert unfit == state.unfit_columns()
    fit = [column for column in state.columns if column.name not in unfit]
    filterable = [Column("id", "BIGINT"), *(column for column in fit if column.sql in FILTERED)]
    filters = [a_filter(draw, filterable) for _ in range(n_filters)]
    types = {"id": pa.int64()} | {column.name: KINDS[column.sql].arrow for column in fit}
    frame = opened.frame.select(*(f"`{name}`" for name in types))
    answered = frame.selectExpr("*", *filters).collect()
    expected = by_id([dict(zip(types, row, strict=False)) for row in answered], types)
    assert differences(cells(frame.toArrow()), expected) == []
    assert differences(cells(by_files(source, list(types))), expected) == []
    for number, where in enumerate(filters, start=len(types)):
        ids = [row["id"] for row in answered if row[number]]
        filtered = open_files(spark, replace(spec, where=where))
        read = cells(by_files(filtered, list(types)))
        assert differences(read, {i: expected[i] for i in ids}) == [], where
    # The last one as Spark's own filter too, which prunes as it does.
    own = open_source(spark, replace(spec, where=filters[-1])).frame.select("id").collect()
    assert {row["id"] for row in own} == {row["id"] for row in answered if row[-1]}, filters[-1]
    return len(expected) * len(types)


@pytest.mark.parametrize(
    ("mapping", "changes"), [("none", "widening"), ("name", "vectors"), ("id", "vectors")]
)
def test_files_arrow_and_spark_agree_on_every_cell(
    mapping: str, changes: str, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> None:
    n_cells: list[int] = []

    def history_of(seed: int) -> History:
        return history(random.Random(seed), mapping, changes)

    @settings(
        max_examples=N_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # To shrink a table takes minutes; its steps are in the message.
    )
    @given(st.integers(0, 2**32 - 1).map(history_of))
    def check(made: History) -> None:
        path = tmp_path_factory.mktemp("table")
        versions = perform(spark, path, made)
        draw = random.Random(made.seed)
        for index, n_filters in ((made.pinned, 1), (len(made.steps) - 1, N_FILTERS)):
            spec, state = SourceSpec(str(path), version=versions[index]), made.steps[index].after
            n_cells.append(check_version(spark, spec, state, draw, n_filters))
        files = open_files(spark, SourceSpec(str(path))).files
        assert any(pq.ParquetFile(file.path).num_row_groups > 1 for file in files)
        assert any(file.deleted is not None for file in files) == (changes == "vectors")

    check()
    assert len(n_cells) == 2 * N_EXAMPLES
    assert min(n_cells) > 100
