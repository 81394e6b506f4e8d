"""Which engine a job gets, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import deltalake
import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sparkscore.errors import EngineUnfitError
from sparkscore.flavors import save_model
from sparkscore.job_planning import Announce, PreparedJob, prepare, runtime_facts
from sparkscore.job_record import plan_facts
from sparkscore.testing.engine_cases import X
from sparkscore.testing.models import Third, packaged
from sparkscore.workspace import Workspace

pytestmark = pytest.mark.usefixtures("spark")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model and a table to score."""
    packaged(Third(), tmp_path / "model", inputs=X)
    rows = pa.table({"id": pa.array([1, 2], pa.int64()), "x": [0.5, 1.5], "word": ["a", "b"]})
    deltalake.write_deltalake(tmp_path / "source", rows)
    return tmp_path


def prepared(folder: Path, **keys: object) -> PreparedJob:
    return announced(folder, keys, lambda _: None)


def announced(folder: Path, keys: Mapping[str, object], announce: Announce) -> PreparedJob:
    overrides = {
        "tracking.uri": f"sqlite:///{folder}/runs.db",
        "tracking.outbox": f"{folder}/outbox",
        "artifacts.uri": f"{folder}/artifacts",
    }
    described = {
        "model": str(folder / "model"),
        "source.uri": str(folder / "source"),
        "target.uri": str(folder / "scores"),
        "key": ["id"],
        **keys,
    }
    workspace = Workspace.open(overrides=overrides)
    return prepare(workspace, workspace.job(None, described).values, "night", announce)


def engine_facts(job: PreparedJob) -> object:
    return plan_facts(job)["engine"]


def test_auto_takes_files_where_it_can(folder: Path) -> None:
    assert engine_facts(prepared(folder, where="word = 'a'")) == {
        "name": "files",
        "reason": "auto: Python reads and writes the files itself, so that no row crosses the JVM",
        "crossing": "nothing crosses: Python reads the files",
        "writing": "Python writes the files, and the JVM sees their names and reports",
    }


@pytest.mark.parametrize(
    ("keys", "reason", "writing"),
    [
        (
            {"mode": "merge"},
            "it does not merge",
            "Python writes files, and Spark takes them into the table",
        ),
        (
            {"where": "word LIKE 'a%'"},
            "the filter \"word LIKE 'a%'\" is more than it reads",
            "Python writes the files, and no score crosses back",
        ),
    ],
)
def test_auto_takes_arrow_for_the_rest_and_says_why(
    keys: dict[str, object], reason: str, writing: str, folder: Path
) -> None:
    facts = engine_facts(prepared(folder, **keys))
    assert isinstance(facts, dict)
    assert facts["name"] == "arrow"
    assert str(facts["reason"]).startswith(f"auto: not the files engine, since {reason}")
    assert facts["crossing"] == "one by one: fewer than 4 columns are doubles"
    assert facts["writing"] == writing


def test_auto_takes_files_for_csv_and_tells_the_schema_that_it_inferred(folder: Path) -> None:
    (folder / "rows.csv").write_text("id,x,the word\n1,0.5,a\n")
    told: list[str] = []
    given = {"source.uri": str(folder / "rows.csv"), "where": "`the word` = 'a'"}
    facts = engine_facts(announced(folder, given, told.append))
    assert isinstance(facts, dict)
    assert facts["name"] == "files"
    schema = "`id` int, `x` double, `the word` string"
    assert told[-1].endswith(f"save that by --source-schema '{schema}'")
    announced(folder, given | {"source.schema": schema}, told.append)
    assert told[-1].startswith("Planned")


def test_plan_names_the_runtime_of_a_booster_and_why(folder: Path) -> None:
    rows = pd.DataFrame({"x": np.linspace(0, 1, 100)})
    settings = {"verbose": -1, "num_threads": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, rows["x"] ** 2), 3)
    save_model(booster, folder / "booster", input_example=rows)
    job = prepared(folder, model=str(folder / "booster"))
    assert runtime_facts(job)["name"] == "compiled trees"
    assert "equal to the library" in str(runtime_facts(job)["reason"])


def test_plan_says_why_a_model_that_cannot_be_loaded_has_no_runtime(folder: Path) -> None:
    facts = runtime_facts(prepared(folder))  # A pickle, which these settings do not allow.
    assert facts["name"] == "unknown"
    assert "--trust-code" in str(facts["reason"])


def test_files_by_name_is_refused_where_it_cannot(folder: Path) -> None:
    with pytest.raises(EngineUnfitError, match=r"it does not merge; take --engine arrow"):
        prepared(folder, engine="files", mode="merge")


@pytest.mark.parametrize("engine", ["files", "arrow", "pandas"])
def test_engine_by_name_is_that_one(engine: str, folder: Path) -> None:
    facts = engine_facts(prepared(folder, engine=engine))
    assert isinstance(facts, dict)
    assert (facts["name"], facts["reason"]) == (engine, "asked for by name")


def test_identity_of_a_run_does_not_depend_on_the_engine(folder: Path) -> None:
    by_files, by_spark = (
        prepared(folder, engine=engine, where="word = 'a'") for engine in ("files", "arrow")
    )
    assert by_files.plan == by_spark.plan
