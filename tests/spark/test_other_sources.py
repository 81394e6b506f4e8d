"""Sources in CSV, JSON and ORC: which files are found, what is refused, and whole jobs."""

from __future__ import annotations

import datetime as dt
import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from sparkscore.errors import EngineUnfitError, SourceError
from sparkscore.files.planning import plan_tasks
from sparkscore.files.sink import FilesSink
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.facts import ModelFacts
from sparkscore.scoring.outcome import Outcome
from sparkscore.scoring.plan import plan_scoring
from sparkscore.spark.delta import DeltaSink, session_conf
from sparkscore.spark.engine import SparkEngine
from sparkscore.spark.failures import SPARK_FAILURES
from sparkscore.spark.files_engine import FilesEngine
from sparkscore.spark.files_source import open_files
from sparkscore.spark.source import open_source
from sparkscore.testing.engine_cases import TRUST, X, request
from sparkscore.testing.models import Third, packaged

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ENGINES = ("files", "arrow", "pandas")
SCHEMA = "id BIGINT, x DOUBLE"
RUN = RunFacts(run_id="run-1", scored_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for data files."""
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@dataclass(frozen=True)
class Bench:
    """A source folder, a model of x / 3, and a score table for each engine."""

    spark: SparkSession
    folder: Path
    model: ModelFacts

    def score(
        self, engine: str, *, before_run: Callable[[], object] = bool, schema: str | None = None
    ) -> Outcome:
        """Plan and run; `before_run` is called between the two."""
        spec = SourceSpec(str(self.folder), schema=schema)
        asked = request(self._target(engine))
        if engine == "files":
            by_files = FilesEngine(self.spark, TRUST)
            source = by_files.open(spec)
            plan = plan_scoring(self.model, source.table, asked)
            before_run()
            return by_files.run(plan, source, FilesSink(asked.target), RUN)
        by_spark = SparkEngine(self.spark, engine, TRUST)
        opened = by_spark.open(spec)
        plan = plan_scoring(self.model, opened.table, asked)
        before_run()
        return by_spark.run(plan, opened, DeltaSink(self.spark, asked.target), RUN)

    def scores(self, engine: str) -> dict[int, str]:
        """Prediction by id, as text, so that NaN is equal to NaN."""
        rows = deltalake.DeltaTable(self._target(engine)).to_pyarrow_table().to_pylist()
        return {row["id"]: repr(row["prediction"]) for row in rows}

    def left(self, engine: str) -> list[Path]:
        """Commits, and for the files engine all else too; Spark leaves files to VACUUM."""
        kinds = (".json", ".parquet") if engine == "files" else (".json",)
        return [path for path in self._target(engine).rglob("*") if path.suffix in kinds]

    def _target(self, engine: str) -> Path:
        return self.folder.parent / f"scores-{engine}"


@pytest.fixture
def bench(spark: SparkSession, folder: Path, tmp_path: Path) -> Bench:
    """A bench whose folder is empty."""
    return Bench(spark, folder, packaged(Third(), tmp_path / "model", inputs=X))


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def ids(spark: SparkSession, spec: SourceSpec) -> list[int]:
    frame = open_source(spark, spec).frame
    return sorted(row["id"] for row in frame.select("id").collect())


@pytest.mark.parametrize(
    ("name", "lines", "expected"),
    [
        ("a.csv", ["id,x", "1,0.5"], "csv"),
        ("A.CSV", ["id,x", "1,0.5"], "csv"),
        ("a.json", ['{"id":1,"x":0.5}'], "json"),
        ("a.jsonl", ['{"id":1,"x":0.5}'], "json"),
        ("a.ndjson", ['{"id":1,"x":0.5}'], "json"),
    ],
)
def test_the_names_of_files_tell_their_format(
    name: str, lines: list[str], expected: str, spark: SparkSession, folder: Path
) -> None:
    write(folder / name, *lines)
    write(folder / "_SUCCESS")
    write(folder / ".a.orc.crc", "no orc")
    for uri in (folder, folder / name):
        source = open_files(spark, SourceSpec(str(uri)))
        assert source.table.format == expected
        assert [Path(file.path).name for file in source.files] == [name]
        assert ids(spark, SourceSpec(str(uri))) == [1]


def test_files_of_several_formats_are_refused_unless_one_is_named(
    spark: SparkSession, folder: Path
) -> None:
    write(folder / "a.csv", "id", "1")
    write(folder / "b.json", '{"id":2}')
    for opens in (open_files, open_source):
        with pytest.raises(SourceError, match=r"has files of several formats, such as .*a\.csv"):
            opens(spark, SourceSpec(str(folder)))
    spec = SourceSpec(str(folder / "b.json"), format="csv", options={"header": "false"})
    assert open_source(spark, spec).frame.columns == ["_c0"]


def test_a_named_format_needs_no_ending(spark: SparkSession, folder: Path) -> None:
    write(folder / "data.txt", "id;x", "1;0.5")
    spec = SourceSpec(str(folder), format="csv", options={"sep": ";"})
    assert open_files(spark, spec).table == open_source(spark, spec).table
    assert ids(spark, spec) == [1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            SourceSpec("", options={"seperator": ";"}),
            r"'seperator' is unknown.*takes dateFormat, en",
        ),
        (SourceSpec("", options={"nullvalue": ""}), r"did you mean 'nullValue'"),
        (SourceSpec("", options={"header": "yes"}), "'header' is 'yes'; give true or false"),
        (SourceSpec("", options={"quote": "<>"}), "'quote' is '<>'; give one character"),
        (SourceSpec("", options={"sep": ""}), "'sep' is empty"),
        (SourceSpec("", schema="id BIGINTT"), "source schema 'id BIGINTT' is no list of columns"),
        (SourceSpec("", schema="bigint"), "source schema 'bigint' is no list of columns"),
        (SourceSpec("", version=1), "version 1 of .* was asked for; CSV has no versions"),
    ],
    ids=str,
)
def test_a_request_that_makes_no_sense_is_refused_by_all_engines(
    spec: SourceSpec, message: str, spark: SparkSession, folder: Path
) -> None:
    write(folder / "a.csv", "id", "1")
    for opens in (open_files, open_source):
        with pytest.raises(SourceError, match=message):
            opens(spark, replace(spec, uri=str(folder)))


@pytest.mark.parametrize("asked", [{"options": {"sep": ";"}}, {"schema": "id BIGINT"}])
def test_delta_and_parquet_take_no_options(
    asked: dict[str, object], spark: SparkSession, tmp_path: Path
) -> None:
    rows = pa.table({"id": [1]})
    deltalake.write_deltalake(tmp_path / "delta", rows)
    pq.write_table(rows, tmp_path / "a.parquet")
    for name in ("delta", "a.parquet"):
        for opens in (open_files, open_source):
            with pytest.raises(SourceError, match="takes no options and no schema"):
                opens(spark, SourceSpec(str(tmp_path / name), **asked))  # type: ignore[arg-type]


def test_another_way_of_reading_is_another_version(spark: SparkSession, folder: Path) -> None:
    write(folder / "a.csv", "id,x", "1,0.5")
    plain = SourceSpec(str(folder))
    others = [
        plain,
        replace(plain, options={"nullValue": "1"}),
        replace(plain, schema=SCHEMA),
        replace(plain, schema="id STRING, x DOUBLE"),
    ]
    versions = [open_source(spark, spec).table.version for spec in others]
    assert len(set(versions)) == len(others)
    assert versions[0] == open_source(spark, replace(plain, options={"sep": ","})).table.version
    write(folder / "b.csv", "id,x", "2,0.5")
    assert open_source(spark, plain).table.version not in versions


def test_a_source_without_rows_needs_a_schema(spark: SparkSession, folder: Path) -> None:
    write(folder / "a.json")
    with pytest.raises(SourceError, match="no row to tell its columns by; give --source-schema"):
        open_source(spark, SourceSpec(str(folder)))
    assert ids(spark, SourceSpec(str(folder), schema=SCHEMA)) == []


def test_folders_inside_are_read_by_spark_alone(spark: SparkSession, folder: Path) -> None:
    write(folder / "a.csv", "id", "1")
    write(folder / "inside" / "b.csv", "id", "2")
    assert ids(spark, SourceSpec(str(folder))) == [1, 2]
    with pytest.raises(EngineUnfitError, match=r"files in folders of its own: '.*inside/b\.csv'"):
        open_files(spark, SourceSpec(str(folder)))


def test_partition_folders_are_read_by_spark_alone(spark: SparkSession, folder: Path) -> None:
    write(folder / "day=1" / "a.csv", "id", "1")
    write(folder / "day=2" / "b.csv", "id", "2")
    opened = open_source(spark, SourceSpec(str(folder)))
    assert sorted((row["id"], row["day"]) for row in opened.frame.collect()) == [(1, 1), (2, 2)]
    with pytest.raises(EngineUnfitError, match=r"partitions in its folders: '.*day=1/a\.csv'"):
        open_files(spark, SourceSpec(str(folder)))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"multiLine": "true"}, r"may go over several lines \(multiLine\)"),
        ({"encoding": "iso-8859-1"}, "is written in ISO-8859-1"),
        ({"sep": "||"}, "option sep is '||'"),
        ({"escape": "^"}, "its escape '^'"),
        ({"quote": ""}, "option quote is ''"),
    ],
)
def test_what_only_spark_understands_is_left_to_spark(
    options: dict[str, str], reason: str, spark: SparkSession, folder: Path
) -> None:
    write(folder / "a.csv", "id", "1")
    spec = SourceSpec(str(folder), options=options)
    with pytest.raises(EngineUnfitError, match=reason.replace("||", r"\|\|").replace("^", r"\^")):
        open_files(spark, spec)
    assert ids(spark, spec) == [1]


def test_rows_over_several_lines_are_read_by_spark(spark: SparkSession, folder: Path) -> None:
    write(folder / "a.csv", "id,word", '1,"two', 'lines"', "2,one")
    spec = SourceSpec(str(folder), options={"multiLine": "true"})
    rows = open_source(spark, spec).frame.collect()
    assert [tuple(row) for row in rows] == [(1, "two\nlines"), (2, "one")]


def test_compressions_of_hadoop_are_left_to_spark(spark: SparkSession, folder: Path) -> None:
    frame = spark.createDataFrame([(1, 0.5)], SCHEMA)
    frame.write.option("compression", "snappy").mode("overwrite").json(str(folder))
    spec = SourceSpec(str(folder), schema=SCHEMA)
    assert ids(spark, spec) == [1]
    with pytest.raises(EngineUnfitError, match=r"only Spark unpacks .*\.snappy"):
        open_files(spark, spec)


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("csv", "TIMESTAMP_NTZ", "is timestamp_ntz, which only Spark reads from CSV"),
        ("csv", "BINARY", "is binary, which only Spark reads from CSV"),
        ("json", "DECIMAL(5,2)", r"is decimal\(5,2\), which only Spark reads from JSON"),
        ("json", "FLOAT", "is float, which only Spark reads from JSON"),
        ("json", "STRUCT<a:INT>", "is struct<a:int>, which only Spark reads from JSON"),
    ],
)
def test_a_column_of_another_kind_is_left_to_spark_and_others_are_not(
    name: str, kind: str, reason: str, spark: SparkSession, folder: Path
) -> None:
    write(folder / f"a.{name}")
    source = open_files(spark, SourceSpec(str(folder), schema=f"id BIGINT, odd {kind}"))
    assert source.column("id").column.type == pa.int64()
    with pytest.raises(EngineUnfitError, match=f"column 'odd' {reason}"):
        source.column("odd")


def test_times_are_read_by_files_where_the_session_is_in_utc(
    spark: SparkSession, folder: Path
) -> None:
    write(folder / "a.csv", "day,at", "2013-10-01,2013-10-01 05:00:00")
    spec = SourceSpec(str(folder))
    assert open_files(spark, spec).column("at").doubt is None
    with session_conf(spark, {"spark.sql.session.timeZone": "Europe/Berlin"}):
        source = open_files(spark, spec)
        assert source.column("day").doubt is None
        with pytest.raises(EngineUnfitError, match="may mean the session's time zone, Europe/Be"):
            source.column("at")
    patterned = open_files(spark, replace(spec, options={"dateFormat": "yyyy-MM-dd"}))
    with pytest.raises(EngineUnfitError, match="'day' is date, and only Spark knows dateFormat"):
        patterned.column("day")


def test_times_of_orc_are_left_to_spark(spark: SparkSession, folder: Path) -> None:
    at = pa.array([dt.datetime(2013, 10, 1)], pa.timestamp("us"))
    orc.write_table(pa.table({"id": [1], "at": at}), folder / "a.orc")
    source = open_files(spark, SourceSpec(str(folder)))
    with pytest.raises(EngineUnfitError, match=r"column 'at' is timestamp.*, which only Spark"):
        source.column("at")


def test_orc_files_of_several_schemas_are_one_table_or_refused(bench: Bench) -> None:
    orc.write_table(pa.table({"id": [1]}), bench.folder / "a.orc")
    orc.write_table(pa.table({"x": [0.5], "id": [2]}), bench.folder / "b.orc")
    for engine in ENGINES:
        bench.score(engine)
        assert bench.scores(engine) == {1: "nan", 2: repr(0.5 / 3)}
    orc.write_table(pa.table({"id": ["three"]}), bench.folder / "c.orc")
    for opens in (open_files, open_source):
        with pytest.raises(SourceError, match="Failed to merge incompatible data types"):
            opens(bench.spark, SourceSpec(str(bench.folder)))


def test_a_schema_of_orc_is_a_promise_that_is_checked(spark: SparkSession, folder: Path) -> None:
    orc.write_table(pa.table({"id": [1], "x": [0.5]}), folder / "a.orc")
    spec = SourceSpec(str(folder), schema="id BIGINT")
    assert open_files(spark, spec).table == open_source(spark, spec).table
    assert open_source(spark, spec).frame.columns == ["id"]
    for lie in ("id INT", "id BIGINT, y DOUBLE"):
        with pytest.raises(SourceError, match="has other columns than its schema says"):
            open_source(spark, replace(spec, schema=lie))


def test_a_packed_file_is_one_piece_and_a_plain_one_is_cut(
    spark: SparkSession, folder: Path
) -> None:
    text = "id\n" + "1234567\n" * 2_000_000
    (folder / "plain.csv").write_text(text)
    (folder / "packed.csv.gz").write_bytes(gzip.compress(text.encode(), 0))
    files = open_files(spark, SourceSpec(str(folder), schema="id BIGINT")).files
    pieces = [Path(piece.path).name for task in plan_tasks(files, 2) for piece in task]
    assert pieces.count("packed.csv.gz") == 1
    assert pieces.count("plain.csv") > 1


GOOD = pa.table({"id": pa.array(range(6), pa.int64()), "x": [0.5, None, -1.5, 2.0, 1e300, 0.1]})


def store(folder: Path, name: str) -> str | None:
    """Two files of one format with the rows of GOOD; the schema that is to be given."""
    halves = (GOOD.slice(0, 3), GOOD.slice(3))
    for number, half in enumerate(halves):
        rows = half.to_pandas()
        if name == "csv":
            rows.to_csv(folder / f"{number}.csv", index=False)
        elif name == "csv.gz":
            rows.to_csv(folder / f"{number}.csv.gz", index=False)
        elif name == "json":
            rows.to_json(
                folder / f"{number}.json", orient="records", lines=True, double_precision=15
            )
        else:
            orc.write_table(half, folder / f"{number}.orc")
    return None if name == "orc" else SCHEMA


@pytest.mark.parametrize("name", ["csv", "csv.gz", "json", "orc"])
def test_every_engine_scores_the_same_rows(name: str, bench: Bench) -> None:
    schema = store(bench.folder, name)
    for engine in ENGINES:
        outcome = bench.score(engine, schema=schema)
        assert (outcome.n_read, outcome.n_scored) == (6, 6)
        thirds = [float("nan") if x is None else x / 3 for x in GOOD["x"].to_pylist()]
        assert bench.scores(engine) == {i: repr(third) for i, third in enumerate(thirds)}


@pytest.mark.parametrize(
    ("engine", "name", "line", "reason"),
    [
        ("files", "csv", "7,1_000", "'1_000' for column 'x' in line 5, which is no double"),
        ("files", "csv", "seven,0.5", "'seven' for column 'id' in line 5, which is no int64"),
        ("files", "csv", "7", "1 values in line 5, but the source has 2 columns"),
        ("files", "csv", "7,0.5,1", "3 values in line 5, but the source has 2 columns"),
        ("files", "csv", '7,"0.5', "has quotes in line 5 that readers take in different ways"),
        ("files", "json", '{"id":7,"x":"half"}', "in line 4, .* column 'x' is double, and the va"),
        ("files", "json", '{"id":7,"x":0.5', "in line 4, which is no JSON object"),
        ("files", "json", '{"id":7.5,"x":0.5}', "in line 4, .* column 'id' is int64"),
        ("files", "json", '{"id":7}{"id":8}', "in line 4, .* Extra data"),
        ("arrow", "csv", "7,1_000", "1_000"),
        ("arrow", "csv", "7", "Malformed CSV record: 7"),
        ("arrow", "json", '{"id":7,"x":0.5', "end-of-input"),
        ("pandas", "json", '{"id":7.5,"x":0.5}', "Cannot parse"),
    ],
)
def test_a_malformed_row_ends_the_job_with_the_name_of_its_file(
    engine: str, name: str, line: str, reason: str, bench: Bench
) -> None:
    schema = store(bench.folder, name)
    bad = bench.folder / f"1.{name}"
    bad.write_text(bad.read_text().rstrip() + f"\n{line}\n")
    with pytest.raises(SourceError, match=rf"(?s)1\.{name}.*{reason}"):
        bench.score(engine, schema=schema)
    assert bench.left(engine) == []


def test_a_line_that_ends_too_early_is_malformed_whichever_columns_are_read(
    spark: SparkSession, folder: Path
) -> None:
    write(folder / "a.csv", "id,x,word", "1,0.5,a", "2,0.5")
    frame = open_source(spark, SourceSpec(str(folder), schema=f"{SCHEMA}, word STRING")).frame
    with pytest.raises(SPARK_FAILURES, match=r"Malformed CSV record: 2,0\.5"):
        frame.select("id", "x").collect()


def in_other_order(file: Path) -> None:
    file.write_text("x,id\n0.5,1\n")


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-12])


def of_text(file: Path) -> None:
    orc.write_table(pa.table({"id": ["one"], "x": [0.5]}), file)


@pytest.mark.parametrize("engine", ["files", "arrow"])
@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("csv", Path.unlink),
        ("json", Path.unlink),
        ("orc", Path.unlink),
        ("csv.gz", cut_short),
        ("orc", cut_short),
    ],
)
def test_a_file_that_is_damaged_after_the_plan_ends_the_job(
    engine: str, name: str, broken: Callable[[Path], None], bench: Bench
) -> None:
    schema = store(bench.folder, name)
    bad = bench.folder / f"1.{name}"
    with pytest.raises(SourceError, match=f"1.{name}"):
        bench.score(engine, before_run=lambda: broken(bad), schema=schema)
    assert bench.left(engine) == []


def of_numbers(file: Path) -> None:
    pq.write_table(pa.table({"id": [1], "x": [1]}), file)


@pytest.mark.parametrize("broken", [cut_short, of_numbers])
def test_a_parquet_file_that_spark_cannot_read_is_named(
    broken: Callable[[Path], None], bench: Bench
) -> None:
    for name in ("1", "2"):
        pq.write_table(pa.table({"id": [int(name)], "x": [0.5]}), bench.folder / f"{name}.parquet")
    bad = bench.folder / "2.parquet"
    with pytest.raises(SourceError, match=r"2\.parquet' cannot be read"):
        bench.score("arrow", before_run=lambda: broken(bad))
    assert bench.left("arrow") == []


def test_a_file_that_holds_another_type_after_the_plan_ends_the_job(bench: Bench) -> None:
    schema = store(bench.folder, "orc")
    with pytest.raises(SourceError, match=r"1\.orc.* it has \d+ bytes, and had"):
        bench.score("files", before_run=lambda: of_text(bench.folder / "1.orc"), schema=schema)
    assert bench.left("files") == []


@pytest.mark.parametrize("engine", ["files", "arrow"])
def test_a_header_in_another_order_ends_the_job(engine: str, bench: Bench) -> None:
    schema = store(bench.folder, "csv")
    in_other_order(bench.folder / "1.csv")
    with pytest.raises(SourceError, match=r"1\.csv.*header"):
        bench.score(engine, schema=schema)
    assert bench.left(engine) == []
