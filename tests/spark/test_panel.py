from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkscore.batch_job import run_batch_job
from sparkscore.errors import (
    ConfigError,
    EngineUnfitError,
    InvalidRowsError,
    PredictionError,
    RunKeyConflictError,
    SignatureMismatchError,
)
from sparkscore.job_planning import prepare
from sparkscore.job_record import plan_facts
from sparkscore.job_result import JobResult
from sparkscore.names import parse_run_id
from sparkscore.package.signature import ColumnSchema, ColumnSpec, ScalarType
from sparkscore.testing.engine_cases import TEXT, X
from sparkscore.testing.models import Ending, Needing, Refusing, SeenAsText, Times, packaged
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

N_ROWS = 12
REGIONS = ["north", "south", "west", None]
ROWS = pa.table(
    {
        "id": pa.array(range(N_ROWS), pa.int64()),
        "x": pa.array([float(i) for i in range(N_ROWS)], pa.float64()),
        "y": pa.array([i * 10.0 for i in range(N_ROWS)], pa.float64()),
        "region": pa.array([REGIONS[i % 4] for i in range(N_ROWS)], pa.string()),
        "whole": pa.array([None if i == 5 else i for i in range(N_ROWS)], pa.int64()),
    }
)
Y = ColumnSchema((ColumnSpec("y", ScalarType.DOUBLE),))
WHOLE = ColumnSchema((ColumnSpec("whole", ScalarType.LONG),))

pytestmark = pytest.mark.parametrize("engine", ["files", "arrow"])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for i in range(3):
        pq.write_table(ROWS.slice(i * 4, 4), folder / f"{i}.parquet")
    return folder


@pytest.fixture
def workspace(spark: SparkSession, tmp_path: Path) -> Workspace:  # noqa: ARG001 - the running session
    return opened(tmp_path)


def opened(folder: Path, **settings: object) -> Workspace:
    overrides = {
        "tracking.uri": f"sqlite:///{folder}/store.db",
        "tracking.outbox": f"{folder}/outbox",
        "artifacts.uri": str(folder / "artifacts"),
        "cache.folder": str(folder / "cache"),
        "trust.allow_code": True,
    }
    return Workspace.open(overrides=overrides | settings)


def model(folder: Path, name: str, factor: float) -> str:
    """Answers x times a number."""
    packaged(Times(factor), folder / name, inputs=X)
    return str(folder / name)


def settings(source: Path, engine: str, **job: object) -> dict[str, object]:
    return {
        "name": "panel",
        "source.uri": str(source),
        "target.uri": str(source.with_name("scores")),
        "key": ["id"],
        "engine": engine,
        **job,
    }


def run(workspace: Workspace, source: Path, engine: str, **job: object) -> JobResult:
    run_key = str(job.pop("run_key", "night"))
    described = workspace.job(None, settings(source, engine, **job)).values
    return run_batch_job(workspace, described, run_key, lambda _: None)


def counts_of(result: JobResult) -> Mapping[str, Mapping[str, object]]:
    """What became of the rows of each model, by its label."""
    counts = result.output["models"]
    assert isinstance(counts, dict)
    return counts


def scores(source: Path) -> pa.Table:
    table = deltalake.DeltaTable(source.with_name("scores")).to_pyarrow_table()
    return table.sort_by(
        [(name, "ascending") for name in ("id", "model") if name in table.schema.names]
    )


def test_challengers_score_the_same_rows_each_from_its_own_columns(
    workspace: Workspace, source: Path, tmp_path: Path, engine: str
) -> None:
    packaged(Times(2.0, "y"), tmp_path / "other", inputs=Y)
    champion, other = model(tmp_path, "champion", 3.0), str(tmp_path / "other")
    named = f"next={model(tmp_path, 'third', 5.0)}"
    result = run(workspace, source, engine, model=champion, challengers=[other, named])
    written = scores(source)
    assert written["prediction"].to_pylist() == [i * 3.0 for i in range(N_ROWS)]
    assert [row["prediction"] for row in written["other"].to_pylist()] == [
        i * 20.0 for i in range(N_ROWS)
    ]
    assert [row["prediction"] for row in written["next"].to_pylist()] == [
        i * 5.0 for i in range(N_ROWS)
    ]
    assert set(written["model_name"].to_pylist()) == {"champion"}
    models = counts_of(result)
    assert {label: models[label]["rows_scored"] for label in models} == {
        "champion": N_ROWS,
        "other": N_ROWS,
        "next": N_ROWS,
    }


def test_metrics_of_each_model_are_recorded_apart(
    workspace: Workspace, source: Path, tmp_path: Path, engine: str
) -> None:
    champion, beside = model(tmp_path, "champion", 3.0), model(tmp_path, "beside", 2.0)
    result = run(workspace, source, engine, model=champion, challengers=[beside])
    metrics = workspace.runs.get_run(parse_run_id(str(result.run_id))).metrics
    found = {point.key: point.value for point in metrics.values()}
    for label in ("champion", "beside"):
        assert found[f"models/{label}/rows_scored"] == N_ROWS
        assert found[f"models/{label}/seconds_predict"] > 0


def test_each_model_may_have_rows_of_its_own(
    workspace: Workspace, source: Path, tmp_path: Path, engine: str
) -> None:
    champion, beside = model(tmp_path, "champion", 3.0), model(tmp_path, "beside", 2.0)
    result = run(workspace, source, engine, model=champion, challengers=[beside], models_as="long")
    written = scores(source)
    factors = {"beside": 2.0, "champion": 3.0}
    assert written.select(["id", "model", "prediction", "model_name"]).to_pylist() == [
        {"id": i, "model": name, "prediction": i * factor, "model_name": name}
        for i in range(N_ROWS)
        for name, factor in factors.items()
    ]
    assert len(set(written["model_digest"].to_pylist())) == 2
    assert (result.output["rows"], result.input["rows"]) == (N_ROWS, N_ROWS)


@pytest.mark.parametrize("models_as", ["struct", "long"])
def test_merge_matches_rows_by_their_model_too(
    workspace: Workspace, source: Path, tmp_path: Path, engine: str, models_as: str
) -> None:
    if engine == "files":
        pytest.skip("it does not merge")
    named = f"beside={model(tmp_path, 'beside', 2.0)}"
    job: dict[str, object] = {
        "model": model(tmp_path, "champion", 3.0),
        "mode": "merge",
        "models_as": models_as,
    }
    run(workspace, source, engine, challengers=[named], **job)
    later = f"beside={model(tmp_path, 'later', 7.0)}"
    run(workspace, source, engine, run_key="again", challengers=[later], **job)
    written = scores(source)
    if models_as == "long":
        assert written.num_rows == 2 * N_ROWS
        assert written["prediction"].to_pylist() == [
            i * f for i in range(N_ROWS) for f in (7.0, 3.0)
        ]
    else:
        assert [row["prediction"] for row in written["beside"].to_pylist()] == [
            i * 7.0 for i in range(N_ROWS)
        ]


def test_failure_of_a_challenger_is_its_own(
    workspace: Workspace, source: Path, tmp_path: Path, engine: str
) -> None:
    packaged(Refusing(), tmp_path / "refusing", inputs=X)
    (tmp_path / "needed").touch()
    packaged(Needing(tmp_path / "needed"), tmp_path / "needing", inputs=X)
    (tmp_path / "needed").unlink()
    packaged(SeenAsText(), tmp_path / "whole", inputs=WHOLE, outputs=TEXT)
    beside = [str(tmp_path / name) for name in ("refusing", "needing", "whole")]
    result = run(
        workspace, source, engine, model=model(tmp_path, "champion", 3.0), challengers=beside
    )
    written = scores(source)
    assert written["prediction"].to_pylist() == [i * 3.0 for i in range(N_ROWS)]
    assert written["refusing"].null_count == written["needing"].null_count == N_ROWS
    assert [row is None for row in written["whole"].to_pylist()] == [i == 5 for i in range(N_ROWS)]
    counts = counts_of(result)
    assert (counts["refusing"]["n_failed"], counts["needing"]["n_failed"]) == (N_ROWS, N_ROWS)
    assert (counts["whole"]["n_rejected"], counts["whole"]["rows_scored"]) == (1, N_ROWS - 1)
    assert "PermissionError" in result.message
    assert result.output["rows"] == N_ROWS


def test_challenger_that_ends_its_worker_is_not_asked_any_more(
    workspace: Workspace, source: Path, tmp_path: Path, engine: str
) -> None:
    packaged(Ending("exit"), tmp_path / "ending", inputs=X)
    result = run(
        workspace,
        source,
        engine,
        model=model(tmp_path, "champion", 3.0),
        challengers=[str(tmp_path / "ending")],
    )
    written = scores(source)
    assert written["prediction"].to_pylist() == [i * 3.0 for i in range(N_ROWS)]
    assert written["ending"].to_pylist()[0] is None
    assert int(str(counts_of(result)["ending"]["n_failed"])) > 0
    assert "it has ended a Python worker" in result.message


def test_rows_of_a_failing_challenger_are_left_out_of_the_long_form(
    workspace: Workspace, source: Path, tmp_path: Path, engine: str
) -> None:
    packaged(Refusing(), tmp_path / "refusing", inputs=X)
    champion = model(tmp_path, "champion", 3.0)
    run(
        workspace,
        source,
        engine,
        model=champion,
        challengers=[str(tmp_path / "refusing")],
        models_as="long",
    )
    assert scores(source)["model"].to_pylist() == ["champion"] * N_ROWS


def test_failure_of_the_champion_fails_the_job(
    workspace: Workspace, source: Path, tmp_path: Path, engine: str
) -> None:
    packaged(Refusing(), tmp_path / "refusing", inputs=X)
    with pytest.raises(PredictionError, match="PermissionError"):
        run(
            workspace,
            source,
            engine,
            model=str(tmp_path / "refusing"),
            challengers=[model(tmp_path, "beside", 2.0)],
        )
    assert not (source.with_name("scores") / "_delta_log").exists()


def test_challenger_answers_for_rows_that_the_champion_rejects_in_the_long_form(
    spark: SparkSession,  # noqa: ARG001 - the running session
    source: Path,
    tmp_path: Path,
    engine: str,
) -> None:
    workspace = opened(tmp_path, **{"scoring.on_invalid": "quarantine"})
    packaged(Times(2.0, "whole"), tmp_path / "whole", inputs=WHOLE)
    result = run(
        workspace,
        source,
        engine,
        model=str(tmp_path / "whole"),
        challengers=[model(tmp_path, "beside", 3.0)],
        models_as="long",
    )
    written = scores(source)
    assert written.num_rows == 2 * N_ROWS - 1
    assert written.filter(pa.compute.equal(written["id"], 5))["model"].to_pylist() == ["beside"]
    assert (result.output["rows"], result.output["rejected"]) == (N_ROWS - 1, 1)


@pytest.mark.parametrize(
    ("ensemble", "factor"),
    [
        ({"combine": "mean"}, 4.0),
        ({"combine": "median"}, 3.0),
        ({"combine": "weighted", "weights": [1, 0, 1]}, 4.5),
    ],
)
def test_ensemble_gives_one_answer(
    workspace: Workspace,
    source: Path,
    tmp_path: Path,
    engine: str,
    ensemble: dict[str, object],
    factor: float,
) -> None:
    members = [model(tmp_path, name, f) for name, f in (("a", 2.0), ("b", 3.0), ("c", 7.0))]
    flat = {f"ensemble.{name}": value for name, value in ensemble.items()}
    result = run(workspace, source, engine, **{"ensemble.members": members, **flat})
    written = scores(source)
    assert written["prediction"].to_pylist() == [i * factor for i in range(N_ROWS)]
    assert set(written["model_name"].to_pylist()) == {"ensemble"}
    assert counts_of(result).keys() == {"a", "b", "c"}


def test_each_row_is_scored_by_the_model_of_its_route(
    workspace: Workspace, source: Path, tmp_path: Path, engine: str
) -> None:
    north, south, other = (
        model(tmp_path, name, f) for name, f in (("n", 2.0), ("s", 3.0), ("o", 5.0))
    )
    beside = model(tmp_path, "beside", 7.0)
    result = run(
        workspace,
        source,
        engine,
        **{
            "routes.column": "region",
            "routes.models": {"north": north, "south": south},
            "routes.default": other,
            "challengers": [beside],
        },
    )
    written = scores(source)
    factors, names = [2.0, 3.0, 5.0, 5.0], ["n", "s", "o", "o"]
    assert written["prediction"].to_pylist() == [i * factors[i % 4] for i in range(N_ROWS)]
    assert written["model_name"].to_pylist() == [names[i % 4] for i in range(N_ROWS)]
    assert len(set(written["model_digest"].to_pylist())) == 3
    assert [row["prediction"] for row in written["beside"].to_pylist()] == [
        i * 7.0 for i in range(N_ROWS)
    ]
    counts = counts_of(result)
    assert {label: counts[label]["rows_scored"] for label in counts} == {
        "n": 3,
        "s": 3,
        "o": 6,
        "beside": N_ROWS,
    }


def test_rows_without_a_route_fail_unless_they_are_to_be_left_out(
    workspace: Workspace, source: Path, tmp_path: Path, engine: str
) -> None:
    routes: dict[str, object] = {
        "routes.column": "region",
        "routes.models": {"north": model(tmp_path, "n", 2.0)},
    }
    with pytest.raises(InvalidRowsError, match=r"'region' is 'south', for which routes\.models"):
        run(workspace, source, engine, **routes)
    result = run(workspace, source, engine, **routes, **{"routes.default": "reject"})
    assert scores(source)["id"].to_pylist() == [0, 4, 8]
    assert (result.output["rows"], result.output["rejected"]) == (3, 9)


def test_rejected_rows_of_several_models_are_replayed_by_a_named_one(
    spark: SparkSession,  # noqa: ARG001 - the running session
    source: Path,
    tmp_path: Path,
    engine: str,
) -> None:
    routes: dict[str, object] = {
        "routes.column": "region",
        "routes.models": {"north": model(tmp_path, "n", 2.0)},
    }
    workspace = opened(tmp_path, **{"scoring.on_invalid": "quarantine"})
    result = run(workspace, source, engine, **routes)
    told = f"sparkscore score replay --run {result.run_id}"
    assert result.message.endswith(f"{told} --model URI")


def test_rows_that_share_a_key_are_on_the_books_of_several_models(
    workspace: Workspace, source: Path, tmp_path: Path, engine: str
) -> None:
    pq.write_table(ROWS.slice(0, 2), source / "again.parquet")
    job: dict[str, object] = {
        "model": model(tmp_path, "champion", 3.0),
        "challengers": [model(tmp_path, "beside", 2.0)],
        "duplicates": "first",
        "order_by": "x",
    }
    if engine == "files":
        engine = "auto"
    result = run(workspace, source, engine, **job)
    assert (result.output["rows"], result.output["skipped"]) == (N_ROWS, 2)
    assert counts_of(result)["beside"]["n_rows"] == N_ROWS


def test_run_key_of_another_panel_is_refused(
    workspace: Workspace, source: Path, tmp_path: Path, engine: str
) -> None:
    champion, beside = model(tmp_path, "champion", 3.0), model(tmp_path, "beside", 2.0)
    named: dict[str, object] = {"model": champion, "challengers": [f"next={beside}"]}
    assert run(workspace, source, engine, **named).status == "succeeded"
    assert run(workspace, source, engine, **named).status == "skipped"
    other = model(tmp_path, "other", 2.5)
    with pytest.raises(RunKeyConflictError, match="panel"):
        run(workspace, source, engine, model=champion, challengers=[f"next={other}"])


def test_plan_shows_all_models(
    workspace: Workspace, source: Path, tmp_path: Path, engine: str
) -> None:
    champion, beside = model(tmp_path, "champion", 3.0), model(tmp_path, "beside", 2.0)
    job = settings(source, engine, model=champion, challengers=[beside])
    facts = plan_facts(prepare(workspace, workspace.job(None, job).values, "night", lambda _: None))
    panel = facts["panel"]
    assert isinstance(panel, dict)
    assert [(one["label"], one["role"]) for one in panel["models"]] == [
        ("champion", "champion"),
        ("beside", "challenger"),
    ]
    columns = facts["score_columns"]
    assert isinstance(columns, list)
    assert columns[:3] == ["id", "prediction", "beside"]


def test_what_does_not_go_together_is_refused_before_a_row_is_read(
    workspace: Workspace, source: Path, tmp_path: Path, engine: str
) -> None:
    champion = model(tmp_path, "champion", 3.0)
    packaged(
        Times(1.0, "gone"),
        tmp_path / "gone",
        inputs=ColumnSchema((ColumnSpec("gone", ScalarType.DOUBLE),)),
    )
    packaged(SeenAsText(), tmp_path / "text", inputs=X, outputs=TEXT)
    text, gone = str(tmp_path / "text"), str(tmp_path / "gone")
    same: dict[str, object] = {"model": champion, "challengers": [f"x={champion}", f"x={champion}"]}
    with_gone: dict[str, object] = {"model": champion, "challengers": [gone]}
    two_heads: dict[str, object] = {"model": champion, "ensemble.members": [champion, text]}
    cases: list[tuple[type[Exception], str, dict[str, object]]] = [
        (
            SignatureMismatchError,
            "model 'gone' does not fit",
            with_gone,
        ),
        (ConfigError, "two models of the panel are called 'x'", same),
        (
            SignatureMismatchError,
            r"model 'text' predicts 'prediction: string'",
            {"model": champion, "challengers": [text], "models_as": "long"},
        ),
        (SignatureMismatchError, "let them vote", {"ensemble.members": [champion, text]}),
        (
            ConfigError,
            "only one of them",
            two_heads,
        ),
        (ConfigError, "'model' is missing", {}),
        (ConfigError, r"routes\.column is missing", {"routes.models": {"a": champion}}),
        (
            ConfigError,
            "'regoin' is not in .*did you mean 'region'",
            {"routes.models": {"a": champion}, "routes.column": "regoin"},
        ),
        (
            ConfigError,
            "'x' of .* is double; route by",
            {"routes.models": {"a": champion}, "routes.column": "x"},
        ),
        (
            ConfigError,
            "env_manager 'virtualenv'",
            {"model": champion, "challengers": [text], "env_manager": "virtualenv"},
        ),
        (
            EngineUnfitError,
            "pandas engine cannot",
            {"model": champion, "challengers": [text], "engine": "pandas"},
        ),
        (
            ConfigError,
            "columns maps 'no', which no model",
            {"model": champion, "challengers": [text], "columns": {"no": "x"}},
        ),
    ]
    for kind, message, job in cases:
        described = workspace.job(None, {**settings(source, engine), **job}).values
        with pytest.raises(kind, match=message):
            prepare(workspace, described, "night", lambda _: None)
