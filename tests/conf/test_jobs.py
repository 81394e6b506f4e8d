from __future__ import annotations

from pathlib import Path

import pytest

from sparkscore.conf import load_job
from sparkscore.errors import ConfigError
from sparkscore.package.params import ParamText

JOB = """\
model: models:/flight-delay@champion
source:
  uri: data/flights
where: flight_date = '${run_key}'
target: {uri: data/scores}
key: [flight_id]
columns:
  carrier: airline
mode: replace
replace_where: score_date = '${run_key}'
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "flights.yaml"
    path.write_text(JOB)
    return path


def refusal(path: Path | None, flags: dict[str, object], run_key: str | None = "k") -> str:
    with pytest.raises(ConfigError) as caught:
        load_job(path, flags, run_key=run_key)
    return str(caught.value)


def test_a_job_is_read_and_its_run_key_filled_in(path: Path) -> None:
    resolved = load_job(path, run_key="2013-10-01")
    job = resolved.values
    assert (job.name, job.model) == ("flights", "models:/flight-delay@champion")
    assert (job.source.uri, job.source.format, job.source.version) == ("data/flights", "auto", None)
    assert job.where == "flight_date = '2013-10-01'"
    assert job.replace_where == "score_date = '2013-10-01'"
    assert (job.key, job.keep, job.columns) == (("flight_id",), (), {"carrier": "airline"})
    assert resolved.origins["where"] == "flights.yaml:4"
    assert resolved.origins["columns.carrier"] == "flights.yaml:8"
    assert resolved.origins["mode"] == "flights.yaml:9"
    assert resolved.origins["keep"] == "default"


def test_flags_win_over_the_file(path: Path) -> None:
    flags: dict[str, object] = {
        "name": "nightly",
        "where": "day = 1",
        "source.version": 3,
        "keep": ("origin", "dest"),
        "columns": {"dest": "airport"},
        "replace_where": "",
    }
    resolved = load_job(path, flags, run_key="k")
    job = resolved.values
    assert (job.name, job.where, job.source.version) == ("nightly", "day = 1", 3)
    assert job.keep == ("origin", "dest")
    assert job.columns == {"carrier": "airline", "dest": "airport"}
    assert job.replace_where is None
    assert resolved.origins["where"] == "flag"


def test_flags_alone_describe_a_job() -> None:
    flags = {"model": "m", "source.uri": "s", "target.uri": "t", "key": "a,b"}
    job = load_job(None, flags).values
    assert (job.name, job.key, job.mode) == ("score-batch", ("a", "b"), "append")


def test_how_a_source_is_written_is_read_from_the_file_and_from_flags(path: Path) -> None:
    path.write_text(
        JOB.replace(
            "  uri: data/flights\n",
            "  uri: data/flights\n  format: csv\n  schema: id BIGINT, x DOUBLE\n"
            "  options: {header: true, nullValue: 0, sep: ;}\n",
        )
    )
    flags = {"source.schema": "id INT", "source.options.nullValue": "", "source.options.quote": "'"}
    resolved = load_job(path, flags, run_key="k")
    assert resolved.values.source.format == "csv"
    assert resolved.values.source.ddl == "id INT"
    assert resolved.values.source.options == {
        "header": "true",
        "nullValue": "",
        "sep": ";",
        "quote": "'",
    }
    assert resolved.origins["source.schema"] == "flag"
    shown = {item.key: item.value for item in resolved.described()}
    assert shown["source.schema"] == "id INT"


def test_params_keep_their_types_and_flags_stay_text(path: Path) -> None:
    path.write_text(JOB + "params: {n: 3, share: 0.5, word: '7', cuts: [1, 2], on: true}\n")
    flags: dict[str, object] = {"params.n": ParamText("4"), "params.day": ParamText("${run_key}")}
    params = load_job(path, flags, run_key="k").values.params
    assert params == {
        "n": "4", "share": 0.5, "word": "7", "cuts": [1, 2], "on": True, "day": "k"
    }  # fmt: skip
    kinds = {name: type(value) for name, value in params.items()}
    assert kinds == {
        "n": ParamText, "share": float, "word": str, "cuts": list, "on": bool, "day": ParamText
    }  # fmt: skip


def test_placeholders_are_filled_in_lists_too(path: Path) -> None:
    assert load_job(path, {"keep": ["x_${run_key}"]}, run_key="k").values.keep == ("x_k",)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"mode": "overwrite"}, "'mode' is 'overwrite' (flag): expected 'append', 'replace' or"),
        ({"source.version": -1}, "'source.version' is -1 (flag): expected greater than or equal"),
        ({"source.format": "xls"}, "expected 'auto', 'delta', 'parquet', 'csv', 'json' or 'orc'"),
        ({"source.ddl": "id INT"}, "unknown job key 'source.ddl' (flag)"),
        ({"source.options": "sep=;"}, "'source.options' is 'sep=;' (flag)"),
        ({"replace_were": "x"}, "unknown job key 'replace_were' (flag) (did you mean"),
        ({"where": "a = ${runkey}"}, "'where' (flag) has the unknown placeholder '${runkey}'"),
        ({"source": "x"}, "job key 'source' (flag) is a section; give one of its keys"),
    ],
)
def test_a_job_that_does_not_fit_is_refused(
    path: Path, flags: dict[str, object], expected: str
) -> None:
    assert expected in refusal(path, flags)


def test_an_unknown_key_in_the_file_is_refused_with_its_line(path: Path) -> None:
    path.write_text(JOB + "modell: x\n")
    assert "unknown job key 'modell' (flights.yaml:11) (did you mean 'model'?)" in refusal(path, {})


def test_features_are_read_and_what_is_misspelled_in_a_join_is_named(path: Path) -> None:
    block = """\
features:
  watermark: {column: ts}
  window: {length: 1 hour, by: [sensor], columns: {m: avg(x), n: count(*)}}
  joins:
    - {table: sensors, by: [sensor], missing: drop}
"""
    path.write_text(JOB + block)
    features = load_job(path, run_key="k").values.features
    assert (features.watermark.column, features.watermark.delay) == ("ts", "0 seconds")
    assert features.window.columns == {"m": "avg(x)", "n": "count(*)"}
    assert [(j.table, j.by, j.missing) for j in features.joins] == [
        ("sensors", ("sensor",), "drop")
    ]
    path.write_text(JOB + block.replace("missing:", "mising:"))
    assert "'features.joins'" in refusal(path, {})
    assert "'mising' (did you mean 'missing'?)" in refusal(path, {})
    path.write_text(JOB + block.replace("length:", "lenght:"))
    assert "(flights.yaml:13) (did you mean 'features.window.length'?)" in refusal(path, {})


def test_a_missing_key_is_refused() -> None:
    assert "job key 'source' is missing; give it in the file or by a flag" in refusal(None, {})
    flags: dict[str, object] = {"source.version": 1, "target.uri": "t"}
    assert "job key 'source.uri' is missing" in refusal(None, flags)


def test_a_placeholder_without_a_run_key_is_refused(path: Path) -> None:
    message = refusal(path, {}, run_key=None)
    assert "job key 'where' (flights.yaml:4) needs a run key for ${run_key}" in message


def test_a_run_key_that_could_change_a_filter_is_refused(path: Path) -> None:
    assert "holds a quote or backslash" in refusal(path, {}, run_key="x' OR '1'='1")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert f"cannot read {tmp_path / 'none.yaml'}" in refusal(tmp_path / "none.yaml", {})


def test_columns_may_be_mapped_by_their_positions(path: Path) -> None:
    path.write_text(JOB.replace("  carrier: airline\n", "  0: airline\n  '1': tail\n"))
    job = load_job(path, run_key="k").values
    assert job.columns == {"0": "airline", "1": "tail"}
    assert load_job(path, {"columns.0": "carrier"}, run_key="k").values.columns["0"] == "carrier"
