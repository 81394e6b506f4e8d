"""CSV, JSON lines and ORC: the files engine and Spark's reader give the same cells, or one refuses.

A text is read alike, or the files engine refuses it and names its line. It never takes what Spark
refuses.
"""

from __future__ import annotations

import bz2
import datetime as dt
import random
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import csv, orc

from sparkscore.errors import SourceError
from sparkscore.files.any_format import read_any_piece
from sparkscore.files.formats import FileFormat, parse_options
from sparkscore.files.planning import FilePiece, plan_tasks
from sparkscore.files.reading import TableReading
from sparkscore.scoring.engine import SourceSpec
from sparkscore.spark.files_source import FilesSource, open_files
from sparkscore.spark.source import columns_of, open_source

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

INTEGERS = ["1", "+1", "-0", "007", " 1", "1 ", "1.0", "1_000", "0x1F", "127", "128", "-129",
            "32768", "2147483648", "9223372036854775807", "9223372036854775808", "٣", "-", "--1",
            "++1", "1e2"]  # fmt: skip
FLOATS = ["1", "+1", "-0", " 1", "1 ", "1.", ".5", "1.5e3", "1E+05", "1d", "1f", "NaN", "nan",
          " NaN", "+NaN", "-NaN", "Inf", "-Inf", "+Inf", " Inf", "inf", "Infinity", "-Infinity",
          "+Infinity", "1e999", "-1e999", "1e-999", "0x1p3", "5e-324", "2.4703282292062327e-324",
          "0.1", "123456789012345678901234567890", "1.7976931348623159e308", "3.4028236e38",
          "16777217", "8.5e-46", "0.30000000000000004", "1,5", ".", "1e", "-", "1_0"]  # fmt: skip
DECIMALS = ["1", "1.25", "1.255", "-1.255", "999.99", "1000", "1e2", " 1", "+1.5", ".5", "1.",
            "-0", "1.2500", "٣", "NaN", "1d"]  # fmt: skip
BOOLEANS = ["true", "TRUE", "True", "false", "1", "t", " true", "yes", "fal\u017fe"]
DAYS = ["2013-10-01", "2013-1-5", "2013", "2013-10", "2013-02-30", "0000-01-01", "0001-01-01",
        "1582-10-10", "12013-10-01", " 2013-10-01", "2013-10-01T00:00", "2013-10-01 x",
        "9999-12-31", "-2013-10-01", "20131001", "10/01/2013"]  # fmt: skip
TIMES = ["2013-10-01", "2013-10-01 05:00", "2013-10-01T05:00:01", "2013-10-01T05:00:01Z",
         "2013-10-01 05:00:01.5", "2013-10-01 05:00:01.123456", "2013-10-01 05:00:01.1234567",
         "2013-10-01 05:00:01+01:00", "2013-10-01T05:00:01.123-05:30", "2013-10-01 05:00:01 Z",
         "2013-10-01 05", "2013-10-01 24:00:00", "2013-10-01 23:59:60", "2013-10-01T05:00Z",
         "0000-12-31 00:00:00", "9999-12-31 23:59:59.999999", "2013-10-01 05:00:01+18:00",
         "2013-10-01 05:00:01+18:01", "2013-10-01 05:00:01+01", "2013-10-01 05:00:01.",
         "2013-10-01 05:00:01 UTC", "2013-10-01 05:00:01 Europe/Berlin", "T05:00:00",
         "1582-10-10 00:00:00", "1380585600"]  # fmt: skip
TEXTS: Mapping[str, Sequence[str]] = {
    "tinyint": INTEGERS,
    "smallint": INTEGERS,
    "int": INTEGERS,
    "bigint": INTEGERS,
    "float": FLOATS,
    "double": FLOATS,
    "decimal(5,2)": DECIMALS,
    "boolean": BOOLEANS,
    "date": DAYS,
    "timestamp": TIMES,
    "string": ["x", " x ", "null", "NULL", "\ue000", "é", "-", "NaN"],
}


def by_files(source: FilesSource, max_bytes: int = 500) -> pa.Table:
    """All columns as the tasks of the files engine read them; each file is cut in two."""
    columns = [source.column(column.column.name) for column in source.columns]
    schema = pa.schema([pa.field(c.column.name, c.column.type) for c in columns])
    reading = TableReading(
        schema=schema,
        outputs=tuple(schema.names),
        physical={c.column.name: c.in_files for c in columns},
        where=source.where,
        max_bytes=max_bytes,
        format=source.format,
    )
    cuttable = {file.path for file in source.files if file.is_splittable}
    pieces = [piece for task in plan_tasks(source.files, 2) for piece in task]
    halves = [half for p in pieces for half in (cut(p) if p.path in cuttable else (p,))]
    batches = [batch for piece in halves for batch in read_any_piece(piece, reading)]
    return pa.Table.from_batches(batches, schema)


def cut(piece: FilePiece) -> tuple[FilePiece, FilePiece]:
    middle = (piece.start + piece.end) // 2
    return replace(piece, end=middle), replace(piece, start=middle)


def rows_of(table: pa.Table) -> list[dict[str, object]]:
    """Rows with days and times as numbers, since Python's end in the year 9999."""
    numbers = {pa.date32(): pa.int32(), pa.timestamp("us", "UTC"): pa.int64()}
    types = [(field.name, numbers.get(field.type, field.type)) for field in table.schema]
    return list(table.cast(pa.schema(types)).to_pylist())


def cells(table: pa.Table) -> list[str]:
    """Rows as texts, in one order, so that NaN is NaN and -0.0 is not 0.0."""
    return sorted(map(repr, rows_of(table)))


def read_alone(path: Path, name: str, schema: pa.Schema, **options: str) -> list[dict[str, object]]:
    """The rows of one file as a task of the files engine reads them, without Spark."""
    reading = TableReading(
        schema=schema,
        outputs=tuple(schema.names),
        physical={column: column for column in schema.names},
        where=None,
        max_bytes=10_000,
        format=FileFormat(name, parse_options(name, options), schema.names),
    )
    piece = FilePiece(str(path), 0, path.stat().st_size)
    return rows_of(pa.Table.from_batches(read_any_piece(piece, reading), schema))


def lenient(
    spark: SparkSession, path: Path, name: str, schema: str, lines: Iterable[str], **options: str
) -> dict[str, str | None]:
    """What Spark makes of each line: its row as text, or None where it is malformed."""
    numbered = list(lines)
    parts = path / "lenient"
    parts.mkdir()
    for number, line in enumerate(numbered):
        (parts / f"{number}.{name}").write_bytes(line.encode())
    corrupt = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": "_corrupt"}
    made = parse_options(name, options).for_spark(name) | corrupt | {"header": "false"}
    reader = spark.read.format(name).options(**made).schema(f"{schema}, _corrupt string")
    frame = reader.load(str(parts)).selectExpr("*", "_metadata.file_name AS file")
    answers: dict[str, str | None] = {}
    for row in rows_of(frame.toArrow()):
        line = numbered[int(Path(str(row.pop("file"))).stem)]
        assert line not in answers
        answers[line] = None if row.pop("_corrupt") is not None else repr(row)
    return answers


def strict(
    path: Path, name: str, schema: pa.Schema, lines: Iterable[str], **options: str
) -> dict[str, str | None]:
    """What the files engine makes of each line: its row as text, or None where it refuses it."""
    answers: dict[str, str | None] = {}
    refusals: list[str] = []
    for line in lines:
        file = path / f"strict.{name}"
        file.write_bytes(line.encode())
        no_header = {"header": "false"} if name == "csv" else {}
        try:
            (row,) = read_alone(file, name, schema, **no_header, **options)
        except SourceError as exc:
            answers[line] = None
            refusals.append(str(exc))
        else:
            answers[line] = repr(row)
    assert all(str(path) in text and "line 1" in text for text in refusals)
    return answers


def arrow_schema(spark: SparkSession, ddl: str) -> pa.Schema:
    columns = columns_of(spark.createDataFrame([], ddl).schema)
    return pa.schema([pa.field(column.name, column.type) for column in columns])


REFUSED: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(["tinyint", "smallint", "int", "bigint"], frozenset({"٣"})),
    **dict.fromkeys(["float", "double"], frozenset({"1d", "1f", "+NaN", "-NaN", "0x1p3"})),
    "decimal(5,2)": frozenset({"1.255", "-1.255", "1e2", "٣"}),
    "boolean": frozenset(),
    "date": frozenset({"2013-1-5", "2013", "2013-10", "12013-10-01", " 2013-10-01",
             "2013-10-01T00:00",
             "2013-10-01 x", "-2013-10-01"}),
    "timestamp": frozenset({"2013-10-01 05:00:01.1234567", "2013-10-01 05:00:01 Z", "2013-10-01 05",
                  "2013-10-01 05:00:01+01", "2013-10-01 05:00:01.", "2013-10-01 05:00:01 UTC",
                  "2013-10-01 05:00:01 Europe/Berlin", "T05:00:00"}),
    "string": frozenset(),
}  # fmt: skip
"""Texts that Spark takes and the files engine does not; of all others they say the same."""

LINES = [
    r'"a\\b",1', r'"a\b",1', r'"a\\",1', r'"a\\\"b",1', r'"a\,b",1', r'"a\"b",1', r"a\b,1",
    r'a\"b,1', 'a"b,1', 'ab",1', ' "a",1', '"a" ,1', '"a""b",1', '"a"x,1', ",1", '"",1', " ,1",
    "\t,1", "x", "x,1,2", "x,1,", '"x,1', 'x,"1', "é,ü", r'"\\\\",1', r'"\n\t",1', r'"a\\\b",1',
    "'a',1", '"a,b",1', '"a","b"', ",", '"",""', 'a""b,1', '""",1', '"""",1', '"a"",1',
    '"a\0b",1', "\0,1", "#a,1", r'\"a\",1', r'"\\\\\"",1', '"a\\", "b"', "NA,1", '"NA",1',
    " NA,1", "-,-", "a;b", '"a;b";1', "'a''b',1", "'a\\'b',1",
]  # fmt: skip
DOUBTED = {'"a" ,1', '"a""b",1', '"a"x,1', 'x,"1', '""",1', '"""",1', '"a"",1', '"a\0b",1', "\0,1"}
"""Lines that Spark takes in one of several ways that there are."""
DIALECTS: Mapping[str, tuple[Mapping[str, str], Set[str]]] = {
    "usual": ({}, DOUBTED),
    "doubled quotes": (
        {"escape": '"'},
        {r'"a\\\"b",1', r'"a\"b",1', '"a" ,1', '"a"x,1', 'x,"1', '"a\0b",1', "\0,1"},
    ),
    "null as a word": ({"nullValue": "NA"}, DOUBTED),
    "other quotes": ({"quote": "'"}, {"'a''b',1", '"a\0b",1', "\0,1"}),
    "semicolons": ({"sep": ";"}, set()),
}

JSON_VALUES = [
    "1", "1.0", "-0", "-0.0", "0", "1e2", '"1"', "null", "true", "false", "1.5", "NaN", '"NaN"',
    "Infinity", "-Infinity", '"Infinity"', '"-Infinity"', '"INF"', '"-INF"', '"+INF"', "Inf",
    "-INF", "-Inf", "1e400", "-1e400", "1e-400", "9223372036854775807", "9223372036854775808",
    "123456789012345678901234567890", "[1]", "[]", "[1,null]", "[1.5,-0]", '["a"]', "[NaN]", "{}",
    '{"b":1}', "+1", "01", ".5", "5.", "0x1", '""', '"a"', '"NaN "', r'"\ud83d\ude00"',
    r'"\ud83d"', r'"\u0000"', r'"\/\n\""', '"\t"', r'"\x"', "200", "-129", "40000",
    '"2013-10-01"', '"2013-10-01T05:00:01.5Z"', '"2013-10-01 05:00:01"', '"2013-1-5"', "nul",
    "'a'", "1 ", '"é"', '"a-0,"', '":NaN"', "[true,null]", "[[1]]", "tru", "--1", "-",
]  # fmt: skip
NUMBERS = frozenset({"1", "-0", "0", "9223372036854775807", "200", "-129", "40000", "1 "})
JSON_REFUSED: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(["smallint", "int", "bigint", "boolean"], frozenset[str]()),
    "tinyint": frozenset({"200"}),  # It is -56 to Spark.
    "double": frozenset({'"-INF"', '"+INF"', "-INF"}),
    # Spark writes them anew, and not always alike.
    "string": frozenset(
        {
            *("1.0", "-0", "-0.0", "1e2", "1.5", "NaN", "Infinity", "-Infinity", "-INF", "1e400"),
            *("-1e400", "1e-400", "[1]", "[]", "[1,null]", "[1.5,-0]", '["a"]', "[NaN]", "{}"),
            *('{"b":1}', r'"\ud83d"', "'a'", "[true,null]", "[[1]]"),
        }
    ),
    "date": frozenset({'"1"', '"2013-10-01T05:00:01.5Z"', '"2013-10-01 05:00:01"', '"2013-1-5"'}),
    "timestamp": NUMBERS | {'"2013-1-5"'},
    **dict.fromkeys(
        ["array<bigint>", "array<double>", "array<boolean>", "array<array<bigint>>"],
        frozenset[str](),
    ),
    "array<string>": frozenset({"[1.5,-0]", "[NaN]", "[[1]]"}),
}
JSON_LINES: Mapping[str, bool] = {
    '{"a":1}': True, "{'a':1}": False, '{"a":1}{"a":2}': False, '[{"a":1},{"a":2}]': False,
    '[{"a":1}]': False, '{"a":1,"a":2}': False, '{"A":1}': True, '{"a":1} x': False, "{}": True,
    "null": False, "1": False, '"x"': False, '\ufeff{"a":1}': True, '{"a":1,}': False,
    '/*c*/{"a":1}': False, '{"a":1,"b":{"c":[1,}': False, '{"b":1}': True,
    '{"b":[1,{"a":2}],"a":3}': True, ' {"a":1} ': True, '\t{"a" : 1}': True, '{"a":1}}': False,
    '{"a":1': False, "{a:1}": False, '{"b":NaN,"a":1}': True, '{"b":Inf,"a":1}': False,
    '{"b":-0,"a":1}': True, '{"b":01,"a":1}': False, '{"a":1}//c': False, 'x{"a":1}': False,
    '{"b":"\x01","a":1}': False, '{"a":1}\x00': False, '{"a":1},': False, '{"\\u0061":1}': True,
    '{"b":tru,"a":1}': False, '{"a":1;"b":2}': False,
}  # fmt: skip
"""Lines, and whether the files engine reads them; what it reads, Spark reads alike."""


@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_of_csv_is_read_as_spark_reads_it_or_refused(
    kind: str, spark: SparkSession, tmp_path: Path
) -> None:
    lines = TEXTS[kind]
    expected = lenient(spark, tmp_path, "csv", f"a {kind}", lines)
    read = strict(tmp_path, "csv", arrow_schema(spark, f"a {kind}"), lines)
    check_agreement(read, expected, REFUSED[kind])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_line_of_csv_is_split_as_spark_splits_it_or_refused(
    dialect: str, spark: SparkSession, tmp_path: Path
) -> None:
    options, refused = DIALECTS[dialect]
    expected = lenient(spark, tmp_path, "csv", "a string, b string", LINES, **options)
    read = strict(tmp_path, "csv", arrow_schema(spark, "a string, b string"), LINES, **options)
    check_agreement(read, expected, refused)


@pytest.mark.parametrize("kind", JSON_REFUSED)
def test_a_value_of_json_is_read_as_spark_reads_it_or_refused(
    kind: str, spark: SparkSession, tmp_path: Path
) -> None:
    lines = [f'{{"a":{value}}}' for value in JSON_VALUES]
    expected = lenient(spark, tmp_path, "json", f"a {kind}", lines)
    read = strict(tmp_path, "json", arrow_schema(spark, f"a {kind}"), lines)
    check_agreement(read, expected, {f'{{"a":{value}}}' for value in JSON_REFUSED[kind]})


def test_a_line_of_json_is_read_as_spark_reads_it_or_refused(
    spark: SparkSession, tmp_path: Path
) -> None:
    taken = [line for line, is_taken in JSON_LINES.items() if is_taken]
    expected = lenient(spark, tmp_path, "json", "a bigint", taken)
    read = strict(tmp_path, "json", arrow_schema(spark, "a bigint"), JSON_LINES)
    assert {line for line, row in read.items() if row is not None} == set(taken)
    assert {line: read[line] for line in taken} == expected


def check_agreement(
    read: Mapping[str, str | None], expected: Mapping[str, str | None], refused: Set[str]
) -> None:
    """All is read alike, but for what only the files engine refuses."""
    differing = {line for line in read if read[line] != expected[line]}
    assert {line: (read[line], expected[line]) for line in differing - refused} == {}
    assert {line for line in refused if read[line] is not None or expected[line] is None} == set()


WORDS = ("", " ", "a", "NA", "null", "x,y", "it's", 'say "hi"', "a\\b", "end\\", "ü€😀", "z" * 300,
         "tab\tx", "1.5", "#", "'q'", "-0")  # fmt: skip
VALUES: Mapping[str, tuple[pa.DataType, Sequence[object]]] = {
    "i": (pa.int32(), (-(2**31), 0, 7, 2**31 - 1)),
    "n": (pa.int64(), (-(2**63), -1, 2**53 + 1, 2**63 - 1)),
    "x": (pa.float64(), (0.0, -0.0, 0.1, -1e300, 5e-324, 2.0**53, 1 / 3)),
    "flag": (pa.bool_(), (True, False)),
    "word": (pa.string(), WORDS),
    "day": (pa.date32(), (dt.date(1582, 10, 15), dt.date(2013, 10, 1), dt.date(9999, 12, 31))),
}
TIME = (
    pa.timestamp("us", "UTC"),
    (
        dt.datetime(1969, 12, 31, 23, 59, 59, tzinfo=dt.UTC),
        dt.datetime(2013, 10, 1, tzinfo=dt.UTC),
    ),
)
ODD_FLOATS = (pa.float64(), (0.5, float("nan"), float("inf"), float("-inf"), -0.0))
IN_ORC: Mapping[str, tuple[pa.DataType, Sequence[object]]] = {
    "small": (pa.int8(), (-128, 127)),
    "narrow": (pa.float32(), (0.1, float("nan"), -0.0)),
    "price": (pa.decimal128(12, 2), (Decimal("1.50"), Decimal("-9999999999.99"))),
    "raw": (pa.binary(), (b"", b"\x00\xff")),
    "tags": (pa.list_(pa.string()), ([], ["a", None])),
    "pair": (pa.struct([("l", pa.int32()), ("r", pa.string())]), ({"l": 1, "r": None},)),
    "lines": (pa.string(), ("a\nb", '"', "\r")),
}
DDL = {
    "id": "BIGINT", "i": "INT", "n": "BIGINT", "x": "DOUBLE", "flag": "BOOLEAN", "word": "STRING",
    "day": "DATE", "at": "TIMESTAMP", "odd": "DOUBLE",
}  # fmt: skip


def drawn(
    draw: random.Random, kinds: Mapping[str, tuple[pa.DataType, Sequence[object]]], n_rows: int
) -> pa.Table:
    """Random rows with an id, nulls among them."""
    columns = {"id": pa.array(range(n_rows), pa.int64())}
    for name, (data_type, values) in kinds.items():
        columns[name] = pa.array(draw.choices([*values, None], k=n_rows), data_type)
    return pa.table(columns)


def spark_writes(spark: SparkSession, table: pa.Table, folder: Path, name: str) -> None:
    frame = spark.createDataFrame(table).repartition(2)
    frame.write.format(name).option("header", "true").save(str(folder))


def pandas_writes_csv(spark: SparkSession, table: pa.Table, folder: Path) -> None:  # noqa: ARG001
    folder.mkdir()
    for number, half in enumerate((table.slice(0, 30), table.slice(30))):
        columns = {name: half[name].to_pandas(integer_object_nulls=True) for name in DDL
                   if name in half.column_names}  # fmt: skip
        pd.DataFrame(columns).to_csv(folder / f"{number}.csv.gz", index=False)


def pandas_writes_json(spark: SparkSession, table: pa.Table, folder: Path) -> None:  # noqa: ARG001
    folder.mkdir()
    frame = table.drop(["day", "at"]).to_pandas(integer_object_nulls=True)
    frame.to_json(folder / "all.jsonl", orient="records", lines=True, double_precision=15)


def arrow_writes_csv(spark: SparkSession, table: pa.Table, folder: Path) -> None:  # noqa: ARG001
    folder.mkdir()
    csv.write_csv(table.drop(["at"]), folder / "all.csv")
    plain = (folder / "all.csv").read_bytes()
    (folder / "again.csv.bz2").write_bytes(bz2.compress(plain))


def arrow_writes_orc(spark: SparkSession, table: pa.Table, folder: Path) -> None:  # noqa: ARG001
    folder.mkdir()
    orc.write_table(table, folder / "all.orc", stripe_size=1, batch_size=10)


Write = Callable[["SparkSession", pa.Table, Path], None]
DOUBLED = {"escape": '"'}
WRITERS: Mapping[str, tuple[Write, Mapping[str, str]]] = {
    "csv by Spark": (lambda s, t, f: spark_writes(s, t, f, "csv"), {}),
    "csv by pandas": (pandas_writes_csv, DOUBLED),
    "csv by Arrow": (arrow_writes_csv, DOUBLED),
    "json by Spark": (lambda s, t, f: spark_writes(s, t, f, "json"), {}),
    "json by pandas": (pandas_writes_json, {}),
    "orc by Spark": (lambda s, t, f: spark_writes(s, t, f, "orc"), {}),
    "orc by Arrow": (arrow_writes_orc, {}),
}
FILTERS = ("i > 5", "x <= 0.1 OR flag", "word = 'x,y'", "n IS NULL", "NOT (i = 7) AND flag")


@pytest.mark.parametrize("writer", WRITERS)
def test_files_and_arrow_agree_on_every_cell_of_what_others_wrote(
    writer: str, spark: SparkSession, tmp_path: Path
) -> None:
    write, options = WRITERS[writer]
    draw = random.Random(writer)
    is_orc = writer.startswith("orc")
    kinds = {**VALUES, **(IN_ORC if is_orc else {"at": TIME})}
    if writer == "json by Spark":
        kinds["odd"] = ODD_FLOATS
    table = drawn(draw, kinds, 60)
    write(spark, table, tmp_path / "source")
    spec = SourceSpec(str(tmp_path / "source"), options=options)
    given = SourceSpec(spec.uri, options=options, schema=ddl(spark, spec))
    # Spark takes a column for texts in which it finds "NaN" as it wrote it.
    inferred = [] if "odd" in kinds else [spec]
    for one in (*inferred, given, *(replace(given, where=where) for where in FILTERS)):
        opened, source = open_source(spark, one), open_files(spark, one)
        assert source.table == opened.table
        assert cells(by_files(source)) == cells(opened.frame.toArrow())
    whole = by_files(open_files(spark, given))
    assert whole.num_rows == (2 if writer == "csv by Arrow" else 1) * table.num_rows
    if is_orc:
        assert cells(whole.select(table.column_names)) == cells(table)


def ddl(spark: SparkSession, spec: SourceSpec) -> str | None:
    """The columns of a source as a schema says them, with the types that they were written with."""
    found = open_source(spark, spec)
    if found.table.format == "orc":
        return ", ".join(f"{column.name} {column.type_name}" for column in found.table.columns)
    return ", ".join(f"{name} {DDL[name]}" for name in found.frame.columns)
