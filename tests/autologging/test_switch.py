from __future__ import annotations

import inspect
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import lightgbm
import pandas as pd
import pytest
import sklearn.base
import sklearn.model_selection
import xgboost
from sklearn.linear_model import LinearRegression, Ridge

import sparkscore
from sparkscore.errors import InvalidNameError
from sparkscore.records import Run, RunStatus
from sparkscore.workspace import Workspace

Runs = Callable[[], list[Run]]
ROOT = Path(sparkscore.__file__).parents[1]


class Failing(LinearRegression):  # type: ignore[misc]  # scikit-learn has no types
    """Raises what it is given, from its own fit."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def fit(self, X: object, y: object) -> object:  # noqa: N803 - scikit-learn's name
        if self.error is not None:
            raise self.error
        return cast("object", super().fit(X, y))


def functions() -> list[object]:
    """What autologging replaces, as it is now."""
    names = ("cross_validate", "cross_val_predict")
    return [
        vars(Ridge)["fit"],
        vars(Failing)["fit"],
        vars(xgboost.XGBModel)["fit"],
        vars(lightgbm.LGBMModel)["fit"],
        *(getattr(sklearn.model_selection, name) for name in names),
        *(getattr(sklearn.model_selection._validation, name) for name in names),
        xgboost.train,
        vars(xgboost.sklearn)["train"],
        lightgbm.train,
        lightgbm.engine.train,
        vars(sklearn.base.BaseEstimator).get("__init_subclass__"),
        tuple(sys.meta_path),
    ]


def test_switched_off_everything_is_as_it_was(workspace: Workspace, rows: pd.DataFrame) -> None:
    before = functions()
    sparkscore.autolog(workspace=workspace)
    sparkscore.autolog(workspace=workspace, log_models=False)
    changed = [now is not then for now, then in zip(functions()[:-1], before[:-1], strict=True)]
    assert all(changed)
    sparkscore.autolog(disable=True)
    assert functions() == before
    Ridge().fit(rows, rows["a"])
    assert list(workspace.runs.list_runs()) == []


def test_what_was_patched_over_since_stays_and_passes_through(
    workspace: Workspace, rows: pd.DataFrame
) -> None:
    plain = vars(Ridge)["fit"]
    sparkscore.autolog(workspace=workspace)
    ours = vars(Ridge)["fit"]

    def theirs(self: object, *args: object) -> object:
        return ours(self, *args)

    Ridge.fit = theirs
    try:
        sparkscore.autolog(disable=True)
        assert vars(Ridge)["fit"] is theirs
        Ridge().fit(rows, rows["a"])
        assert list(workspace.runs.list_runs()) == []
    finally:
        Ridge.fit = plain


def test_classes_of_the_user_are_watched_when_they_are_defined(
    autologged: Runs, rows: pd.DataFrame
) -> None:
    class Later(Ridge):  # type: ignore[misc]  # scikit-learn has no types
        def fit(self, X: object, y: object) -> object:  # noqa: N803 - scikit-learn's name
            return cast("object", super().fit(X, y))

    Later().fit(rows, rows["a"])
    assert [run.tags["estimator_name"] for run in autologged()] == ["Later"]


def test_watched_functions_look_like_the_librarys_own(autologged: Runs) -> None:
    assert autologged() == []
    assert list(inspect.signature(Ridge.fit).parameters) == ["self", "X", "y", "sample_weight"]
    assert Ridge.fit.__qualname__ == "Ridge.fit"
    assert pickle.loads(pickle.dumps(xgboost.train)) is xgboost.train
    names = ("cross_validate", "cross_val_predict")
    for function in (getattr(sklearn.model_selection, name) for name in names):
        assert pickle.loads(pickle.dumps(function)) is function


def test_classes_of_a_notebook_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    code = """
import numpy as np, sparkscore
sparkscore.autolog()
from joblib import Parallel, delayed
from sklearn.linear_model import Ridge
class Mine(Ridge):
    def fit(self, X, y):
        return super().fit(X, y)
fits = Parallel(2)(delayed(Mine(alpha=a).fit)(np.eye(2), [1.0, 2.0]) for a in (1.0, 2.0))
print([fit.alpha for fit in fits], len(sparkscore.Workspace.open().runs.list_runs()))
"""
    assert printed_by(code, tmp_path) == "[1.0, 2.0] 0"


def test_error_of_the_user_passes_unchanged_and_the_run_is_failed(
    autologged: Runs, rows: pd.DataFrame
) -> None:
    error = ValueError("the user's own")
    with pytest.raises(ValueError, match="the user's own") as caught:
        Failing(error).fit(rows, rows["a"])
    assert caught.value is error
    assert error.__context__ is None
    (run,) = autologged()
    assert run.status is RunStatus.FAILED


def test_interrupt_passes_unchanged_and_the_run_is_killed(
    autologged: Runs, rows: pd.DataFrame
) -> None:
    with pytest.raises(KeyboardInterrupt):
        Failing(KeyboardInterrupt()).fit(rows, rows["a"])
    (run,) = autologged()
    assert run.status is RunStatus.KILLED


def test_fit_in_the_handler_of_another_error_is_finished(
    autologged: Runs, rows: pd.DataFrame
) -> None:
    try:
        int("of before")
    except ValueError:
        Ridge().fit(rows, rows["a"])
    (run,) = autologged()
    assert run.status is RunStatus.FINISHED


def test_call_that_does_not_bind_is_the_librarys_error_and_no_run(autologged: Runs) -> None:
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        Ridge().fit()
    with pytest.raises(TypeError):
        xgboost.train()
    with pytest.raises(TypeError):
        lightgbm.train()  # type: ignore[call-arg]  # that is the test
    assert autologged() == []


def test_broken_store_is_told_once_and_the_fit_goes_on(
    tmp_path: Path, rows: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    nowhere = tmp_path / "file"
    overrides = {
        "tracking.uri": f"sqlite:///{nowhere}/no.db",
        "tracking.outbox": str(nowhere / "outbox"),
    }
    broken = Workspace.open(overrides=overrides)
    sparkscore.autolog(workspace=broken)
    try:
        assert Ridge().fit(rows, rows["a"]).predict(rows).shape == (120,)
        (record,) = caplog.records
        assert "autolog of a training: not recorded: the training (" in record.getMessage()
        matrix = xgboost.DMatrix(rows, rows["a"])
        xgboost.train({}, matrix, 3, evals=[(matrix, "t")], verbose_eval=False)
        assert len(caplog.records) == 2
        sparkscore.autolog(workspace=broken, silent=True)
        Ridge().fit(rows, rows["a"])
        assert len(caplog.records) == 2
    finally:
        sparkscore.autolog(disable=True)


def test_active_run_takes_the_record_and_goes_on(
    autologged: Runs, rows: pd.DataFrame, workspace: Workspace
) -> None:
    with sparkscore.start_run("mine", workspace=workspace) as mine:
        Ridge().fit(rows, rows["a"])
        (run,) = autologged()
        assert (run.run_id, run.status) == (mine.run_id, RunStatus.RUNNING)
        LinearRegression().fit(rows, rows["a"])
    (run,) = autologged()
    assert run.status is RunStatus.FINISHED
    entries = json.loads(run.tags["mlflow.log-model.history"])
    assert [entry["artifact_path"] for entry in entries] == ["model", "model-2"]
    for entry in entries:
        uri = f"{run.artifact_uri}/{entry['artifact_path']}"
        assert sparkscore.load_model(uri, workspace=workspace).signature.outputs is not None


def test_threads_have_runs_of_their_own(autologged: Runs, rows: pd.DataFrame) -> None:
    together = threading.Barrier(2, timeout=60)

    class Meeting(LinearRegression):  # type: ignore[misc]  # scikit-learn has no types
        def fit(self, X: object, y: object) -> object:  # noqa: N803 - scikit-learn's name
            together.wait()
            return cast("object", super().fit(X, y))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: Meeting().fit(rows, rows["a"]), range(2)))
    assert [run.status for run in autologged()] == [RunStatus.FINISHED] * 2


def test_name_of_a_model_is_refused_before_anything_is_watched() -> None:
    before = functions()
    with pytest.raises(InvalidNameError, match="model name"):
        sparkscore.autolog(registered_model_name="a/b")
    assert functions() == before


@pytest.mark.parametrize(
    ("library", "training"),
    [
        ("sklearn", "from sklearn.linear_model import Ridge; Ridge().fit(x, y)"),
        (
            "sklearn.model_selection",
            "import sklearn.model_selection as m, sklearn.svm as s;m.cross_validate(s.SVR(), x, y)",
        ),
        ("xgboost", "import xgboost; xgboost.train({}, xgboost.DMatrix(x, y), 2)"),
        (
            "lightgbm",
            "import lightgbm as l; l.train({'verbose': -1}, l.Dataset(x, y), 2)",
        ),
    ],
)
def test_library_is_watched_when_it_is_imported(
    library: str, training: str, tmp_path: Path
) -> None:
    code = (
        "import sys, sparkscore; sparkscore.autolog(log_models=False);"
        f"assert {library!r} not in sys.modules, 'imported';"
        "import numpy as np; x = np.random.default_rng(0).normal(size=(60, 2)); y = x[:, 0];"
        f"{training};"
        "print(len(sparkscore.Workspace.open().runs.list_runs()))"
    )
    assert printed_by(code, tmp_path) == "1"


def printed_by(code: str, folder: Path) -> str:
    """What a fresh process prints; it must warn of nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.strip()
