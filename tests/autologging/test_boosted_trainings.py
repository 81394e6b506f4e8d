from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.model_selection import GridSearchCV

import sparkscore
from sparkscore.autologging.boosting import Steps
from sparkscore.names import RunId
from sparkscore.package.signature import ColumnSchema
from sparkscore.records import Run, RunStatus
from sparkscore.testing.faults import Fault, failing
from sparkscore.tracking import Tracking
from sparkscore.workspace import Workspace

Runs = Callable[[], list[Run]]
QUIET = {"num_leaves": 4, "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}


@pytest.fixture
def targets(rows: pd.DataFrame) -> pd.Series[float]:
    return pd.Series(rows["a"] * 2 + np.sin(rows["b"] * 3))


def files(run: Run) -> Path:
    return Path(run.artifact_uri.removeprefix("file://"))


def json_file(run: Run, name: str) -> object:
    return json.loads((files(run) / name).read_text(encoding="utf-8"))


def series(workspace: Workspace, run: Run, key: str) -> list[tuple[int, float]]:
    points = workspace.runs.metric_history(RunId(run.run_id), key)
    return [(point.step, point.value) for point in points]


def test_xgboost_has_a_point_a_step_and_evaluation(
    autologged: Runs, rows: pd.DataFrame, targets: pd.Series[float], workspace: Workspace
) -> None:
    matrix = xgboost.DMatrix(rows, targets)
    held_out = xgboost.DMatrix(rows.head(40), targets.head(40))
    told: dict[str, dict[str, list[float]]] = {}
    xgboost.train(
        {"max_depth": 2, "eval_metric": ["rmse", "mae"]},
        matrix,
        12,
        evals=[(matrix, "train"), (held_out, "held_out")],
        evals_result=told,
        verbose_eval=False,
    )
    (run,) = autologged()
    assert run.tags["mlflow.autologging"] == "xgboost"
    assert (run.params["max_depth"], run.params["num_boost_round"]) == ("2", "12")
    assert {"dtrain", "evals", "callbacks"} & run.params.keys() == set()
    for name, measures in told.items():
        for measure, expected in measures.items():
            assert series(workspace, run, f"{name}-{measure}") == list(enumerate(expected))
    assert "best_iteration" not in run.metrics
    assert [entry["tags"][0]["value"] for entry in _list(json_file(run, "dataset.json"))] == [
        "train",
        "eval",
        "eval",
    ]


def test_xgboost_that_stops_early_says_where_and_ends_with_the_best(
    autologged: Runs, rows: pd.DataFrame
) -> None:
    noise = np.random.default_rng(1).normal(size=len(rows))
    matrix = xgboost.DMatrix(rows.head(80), noise[:80])
    held_out = xgboost.DMatrix(rows.tail(40), noise[80:])
    booster = xgboost.train(
        {"max_depth": 4, "eta": 0.8},
        matrix,
        50,
        evals=[(held_out, "eval")],
        early_stopping_rounds=3,
        verbose_eval=False,
    )
    (run,) = autologged()
    stopped = booster.num_boosted_rounds() - 1
    assert stopped < 49
    assert run.metrics["best_iteration"].value == booster.best_iteration
    assert run.metrics["stopped_iteration"].value == stopped
    assert run.metrics["eval-rmse"].value == pytest.approx(booster.best_score)
    assert run.metrics["eval-rmse"].step == stopped + 1


def test_continued_training_counts_its_steps_anew_and_its_best_on(
    autologged: Runs, rows: pd.DataFrame, targets: pd.Series[float], workspace: Workspace
) -> None:
    matrix = xgboost.DMatrix(rows, targets)
    first = xgboost.train({}, matrix, 3)
    xgboost.train(
        {},
        matrix,
        4,
        xgb_model=first,
        evals=[(matrix, "t")],
        early_stopping_rounds=2,
        verbose_eval=False,
    )
    run = autologged()[1]
    points = series(workspace, run, "t-rmse")
    assert [step for step, _ in points] == [0, 1, 2, 3, 4]
    best = int(run.metrics["best_iteration"].value)
    assert (best, run.metrics["stopped_iteration"].value) == (6, 6)
    assert points[-1][1] == dict(points)[best - 3]


def test_xgboost_booster_scores_as_it_did(
    autologged: Runs, rows: pd.DataFrame, targets: pd.Series[float], workspace: Workspace
) -> None:
    frame = rows.assign(kind=pd.Categorical(np.where(rows["b"] > 0, "x", "y")), n=range(len(rows)))
    matrix = xgboost.DMatrix(frame, targets, enable_categorical=True)
    booster = xgboost.train({"max_depth": 3}, matrix, 4)
    (run,) = autologged()
    loaded = sparkscore.load_model(f"{run.artifact_uri}/model", workspace=workspace)
    assert isinstance(loaded.signature.inputs, ColumnSchema)
    types = [(spec.name, str(spec.type)) for spec in loaded.signature.inputs.columns]
    assert types == [("a", "double"), ("b", "double"), ("kind", "string"), ("n", "long")]
    answer = loaded.predict(frame.assign(kind=frame["kind"].astype(str)))
    assert isinstance(answer, pd.Series)
    assert answer.tolist() == booster.predict(matrix).tolist()
    weights = booster.get_score(importance_type="weight")
    assert json_file(run, "feature_importance_weight.json") == weights


def test_xgboost_matrix_that_cannot_be_cut_has_its_model(
    autologged: Runs, rows: pd.DataFrame, targets: pd.Series[float]
) -> None:
    xgboost.train({"max_depth": 2}, xgboost.QuantileDMatrix(rows, targets), 3)
    (run,) = autologged()
    assert (files(run) / "model" / "MLmodel").exists()
    assert run.tags["sparkscore.dataset.digest"]


def test_xgboost_classifier_is_one_run_with_its_steps(
    autologged: Runs, rows: pd.DataFrame, workspace: Workspace
) -> None:
    labels = (rows["a"] > 0).astype(int)
    model = xgboost.XGBClassifier(n_estimators=5, max_depth=2)
    model.fit(rows, labels, eval_set=[(rows, labels)], verbose=False)
    (run,) = autologged()
    assert (run.params["n_estimators"], run.tags["estimator_name"]) == ("5", "XGBClassifier")
    expected = model.evals_result()["validation_0"]["logloss"]
    assert series(workspace, run, "validation_0-logloss") == list(enumerate(expected))
    loaded = sparkscore.load_model(f"{run.artifact_uri}/model", workspace=workspace)
    answer = loaded.predict(rows)
    assert isinstance(answer, pd.Series)
    assert answer.tolist() == model.predict(rows).tolist()
    assert model.callbacks is None


def test_search_over_boosters_has_no_steps_of_theirs(
    autologged: Runs, rows: pd.DataFrame, targets: pd.Series[float]
) -> None:
    model = xgboost.XGBRegressor(n_estimators=3)
    GridSearchCV(model, {"max_depth": [1, 2]}, cv=2).fit(
        rows, targets, eval_set=[(rows, targets)], verbose=False
    )
    (run,) = autologged()
    assert run.tags["estimator_name"] == "GridSearchCV"
    assert [key for key in run.metrics if key.startswith("validation_0")] == []
    assert "best_max_depth" in run.params


def test_lightgbm_has_a_point_a_step_and_evaluation(
    autologged: Runs, rows: pd.DataFrame, targets: pd.Series[float], workspace: Workspace
) -> None:
    train_set = lightgbm.Dataset(rows, targets)
    held_out = train_set.create_valid(rows.head(40), targets.head(40))
    told: dict[str, dict[str, list[float]]] = {}
    booster = lightgbm.train(
        QUIET | {"metric": ["l2", "l1"]},
        train_set,
        6,
        valid_sets=[held_out],
        valid_names=["held out"],
        callbacks=[lightgbm.record_evaluation(told)],
    )
    (run,) = autologged()
    assert run.tags["mlflow.autologging"] == "lightgbm"
    assert (run.params["num_leaves"], run.params["num_boost_round"]) == ("4", "6")
    for measure, expected in told["held out"].items():
        assert series(workspace, run, f"held out-{measure}") == list(enumerate(expected))
    names = booster.feature_name()
    gain = dict(zip(names, booster.feature_importance("gain").tolist(), strict=True))
    assert json_file(run, "feature_importance_gain.json") == gain
    loaded = sparkscore.load_model(f"{run.artifact_uri}/model", workspace=workspace)
    answer = loaded.predict(rows)
    assert isinstance(answer, pd.Series)
    assert answer.tolist() == np.asarray(booster.predict(rows)).tolist()
    contexts = [entry["tags"][0]["value"] for entry in _list(json_file(run, "dataset.json"))]
    assert contexts == ["train", "eval"]


def test_lightgbm_that_stops_early_says_where_and_ends_with_the_best(
    autologged: Runs, rows: pd.DataFrame
) -> None:
    noise = np.random.default_rng(1).normal(size=len(rows))
    train_set = lightgbm.Dataset(rows.head(80), noise[:80])
    booster = lightgbm.train(
        QUIET,
        train_set,
        60,
        valid_sets=[train_set.create_valid(rows.tail(40), noise[80:])],
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
    )
    (run,) = autologged()
    assert 0 < booster.best_iteration < 57
    assert run.metrics["best_iteration"].value == booster.best_iteration
    assert run.metrics["stopped_iteration"].value == booster.best_iteration + 3
    best = booster.best_score["valid_0"]["l2"]
    assert run.metrics["valid_0-l2"].value == pytest.approx(best)


@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated")
def test_lightgbm_regressor_is_one_run_with_its_steps(
    autologged: Runs, rows: pd.DataFrame, targets: pd.Series[float], workspace: Workspace
) -> None:
    model = lightgbm.LGBMRegressor(n_estimators=4, num_leaves=4, verbose=-1, n_jobs=1)
    model.fit(rows, targets, eval_set=[(rows, targets)])
    (run,) = autologged()
    assert run.tags["estimator_name"] == "LGBMRegressor"
    expected = model.evals_result_["training"]["l2"]
    assert series(workspace, run, "training-l2") == list(enumerate(expected))
    assert (files(run) / "model" / "MLmodel").exists()


def test_steps_of_a_training_that_fails_are_kept(
    autologged: Runs, rows: pd.DataFrame, targets: pd.Series[float], workspace: Workspace
) -> None:
    class Fail(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: object, epoch: int, evals_log: object) -> bool:  # noqa: ARG002
            if epoch == 2:
                raise RuntimeError("the user's own")
            return False

    matrix = xgboost.DMatrix(rows, targets)
    with pytest.raises(RuntimeError, match=r"^the user's own$"):
        xgboost.train({}, matrix, 9, evals=[(matrix, "t")], callbacks=[Fail()], verbose_eval=False)
    (run,) = autologged()
    assert run.status is RunStatus.FAILED
    assert [step for step, _ in series(workspace, run, "t-rmse")] == [0, 1, 2]
    assert not (files(run) / "model").exists()


def test_points_of_many_steps_are_sent_in_few_calls(workspace: Workspace) -> None:
    fault = Fault(calls_left=100)
    tracking = Tracking(failing(workspace.runs, fault), workspace.outbox.open_artifacts)
    now_ms = 0
    with tracking.start_run("steps") as run:
        steps = Steps(run, lambda: now_ms)
        before = fault.calls_left or 0
        for step in range(1500):
            steps.add(step, [("train", "rmse", 1.0 / (step + 1)), ("eval", "ndcg@3", 0.5)])
        assert before - (fault.calls_left or 0) == 3
        now_ms = 10_000
        steps.add(1500, [("train", "rmse", 0.0)])
        assert before - (fault.calls_left or 0) == 4
    assert len(workspace.runs.metric_history(run.run_id, "eval-ndcg_at_3")) == 1500
    assert len(workspace.runs.metric_history(run.run_id, "train-rmse")) == 1501


def _list(content: object) -> list[dict[str, list[dict[str, str]]]]:
    assert isinstance(content, list)
    return content
