"""CSV, JSON lines and ORC: the files engine and Spark's reader give the same cells, or one refuses.

A text is read alike, or the files engine refuses it with its line: it never takes what Spark refuses.
"""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import csv, orc

from sparkscore.errors import EngineUnfitError, SourceError
from sparkscore.files.any_format import read_any_piece
from sparkscore.files.facts import DataFile
from sparkscore.files.formats import FileFormat, parse_options
from sparkscore.files.planning import FilePiece, plan_tasks
from sparkscore.files.predicate import columns_in
from sparkscore.files.reading import TableReading
from sparkscore.scoring.engine import SourceSpec
from sparkscore.spark.delta import session_conf
from sparkscore.spark.files_source import FilesSource, open_files
from sparkscore.spark.source import columns_of, open_source

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

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
        line = numbered[int(Path(row.pop("file")).stem)]
        assert line not in answers
        answers[line] = None if row.pop("_corrupt") is not None else repr(row)
    return answers


def strict(
    path: Path, name: str, schema: pa.Schema, lines: Iterable[str], **options: str
) -> dict[str, str | None]:
    """What the files engine makes of each line: its row as text, or None where it refuses it."""
    answers: dict[str, str | None] = {}
    for line in lines:
        file = path / f"strict.{name}"
        file.write_bytes(line.encode())
        no_header = {"header": "false"} if name == "csv" else {}
        try:
            (row,) = read_alone(file, name, schema, **no_header, **options)
        except SourceError as exc:
            assert str(file) in str(exc)
            assert "line 1" in str(exc)
            answers[line] = None
        else:
            answers[line] = repr(row)
    return answers


def arrow_schema(spark: SparkSession, ddl: str) -> pa.Schema:
    columns = columns_of(spark.createDataFrame([], ddl).schema)
    return pa.schema([pa.field(column.name, column.type) for column in columns])



LINES = [r'"a\\b",1', r'"a\b",1', r'"a\\",1', r'"a\\\"b",1', r'"a\,b",1', r'"a\"b",1', r'a\b,1', r'a\"b,1', 'a"b,1', 'ab",1',
  ' "a",1', '"a" ,1', '"a""b",1', '"a"x,1', ',1', '"",1', ' ,1', '\t,1', 'x', 'x,1,2', 'x,1,', '"x,1', 'x,"1', 'é,ü', r'"\\\\",1', r'"\n\t",1',
  r'"a\\\b",1', "'a',1", '"a,b",1', '"a","b"', ',', '"",""', '"\\",1', 'a""b,1', '""",1', '"""",1', '"a"",1', '"a\0b",1', '\0,1', '#a,1', r'\"a\",1', r'"\\\\\"",1', '"a\\", "b"', 'NA,1', '"NA",1', ' NA,1', '-,-']


JSON_VALUES = ["1", "1.0", "-0", "-0.0", "0", "1e2", '"1"', "null", "true", "false", "1.5", "NaN", '"NaN"', "Infinity", "-Infinity", '"Infinity"',
 '"-Infinity"', '"INF"', '"-INF"', '"+INF"', "Inf", "-INF", "-Inf", "1e400", "-1e400", "1e-400", "9223372036854775807", "9223372036854775808", "123456789012345678901234567890", "[1]", "[]", "[1,null]", "[1.5,-0]",'["a"]', '[NaN]', "{}", '{"b":1}',
 "+1", "01", ".5", "5.", "0x1", '""', '"a"', '"NaN "', r'"\ud83d\ude00"', r'"\ud83d"', r'"\u0000"', r'"\/\n\""', '"\t"', r'"\x"', "200", "-129", "40000", '"2013-10-01"', '"2013-10-01T05:00:01.5Z"', '"2013-10-01 05:00:01"', '"2013-1-5"', "nul", "'a'", "1 ", '"é"', '"a-0,"', '":NaN"', "[true,null]", "[[1]]", "tru", "--1", "-"]
JSON_TYPES = ["tinyint", "smallint", "int", "bigint", "double", "boolean", "string", "date", "timestamp", "array<bigint>", "array<double>", "array<string>", "array<boolean>", "array<array<bigint>>"]
JSON_LINES = ['{"a":1}', "{'a':1}", '{"a":1}{"a":2}', '[{"a":1},{"a":2}]', '[{"a":1}]', '{"a":1,"a":2}', '{"A":1}', '{"a":1} x', '{}', 'null', '1', '"x"', '\ufeff{"a":1}', '{"a":1,}', '/*c*/{"a":1}',
 '{"a":1,"b":{"c":[1,}', '{"b":1}', '{"b":[1,{"a":2}],"a":3}', ' {"a":1} ', '\t{"a" : 1}', '{"a":1}}', '{"a":1', '{a:1}', '{"b":NaN,"a":1}', '{"b":Inf,"a":1}', '{"b":-0,"a":1}', '{"a":1,"b":{"x":1,"x":2}}', '{"b":01,"a":1}', '{"a":1}//c', 'x{"a":1}', '{"b":"\x01","a":1}', '{"a":1}\x00', '{"a":1},', '{"\\u0061":1}', '{"b":tru,"a":1}', '{"a":1;"b":2}']

def test_dump(spark: SparkSession, tmp_path: Path) -> None:
    for i, kind in enumerate(JSON_TYPES):
        (tmp_path / f"j{i}").mkdir()
        lines = ['{"a":%s}' % v for v in JSON_VALUES]
        spark_says = lenient(spark, tmp_path / f"j{i}", "json", f"a {kind}", lines)
        ours = strict(tmp_path / f"j{i}", "json", arrow_schema(spark, f"a {kind}"), lines)
        for t in lines:
            if spark_says.get(t) != ours[t]:
                print("DIFF" if ours[t] is not None else "refused", kind, repr(t), spark_says.get(t), ours[t])
    (tmp_path / f"l").mkdir()
    out = {}
    for t in JSON_LINES:
        (tmp_path/"x.json").write_bytes(t.encode())
        try: out[t] = repr([r.asDict() for r in spark.read.schema("a bigint").option("mode", "FAILFAST").json(str(tmp_path/"x.json")).collect()])
        except Exception: out[t] = None
        try: ours = repr(read_alone(tmp_path/"x.json", "json", arrow_schema(spark, "a bigint")))
        except SourceError: ours = None
        if out[t] != ours: print("DIFF" if ours is not None else "refused", repr(t), out[t], ours)
    assert 0
