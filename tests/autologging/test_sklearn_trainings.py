from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from scipy import sparse
from sklearn import metrics
from sklearn.cluster import KMeans
from sklearn.ensemble import BaggingRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - it is experimental
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import RFECV
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sparkscore
from sparkscore.errors import ModelNotFoundError
from sparkscore.names import ModelName, RunId
from sparkscore.records import Run, RunStatus
from sparkscore.workspace import Workspace

Runs = Callable[[], list[Run]]


def files(run: Run) -> Path:
    return Path(run.artifact_uri.removeprefix("file://"))


def values(run: Run) -> dict[str, float]:
    return {key: metric.value for key, metric in run.metrics.items()}


def test_classifier_is_one_run_with_params_metrics_and_tags(
    autologged: Runs, rows: pd.DataFrame
) -> None:
    labels = (rows["a"] + 0.3 * rows["b"] > 0).astype(int)
    model = LogisticRegression(C=0.5).fit(rows, labels)
    (run,) = autologged()
    assert run.status is RunStatus.FINISHED
    assert run.run_name.startswith("LogisticRegression-")
    assert (run.params["C"], run.params["max_iter"]) == ("0.5", "100")
    assert run.params.keys() == model.get_params().keys()
    tags = ("mlflow.autologging", "estimator_name", "mlflow.source.type")
    assert [run.tags[key] for key in tags] == ["sklearn", "LogisticRegression", "LOCAL"]
    assert run.tags["estimator_class"] == "sklearn.linear_model._logistic.LogisticRegression"
    predicted, chances = model.predict(rows), model.predict_proba(rows)
    assert values(run) == pytest.approx(
        {
            "training_accuracy_score": metrics.accuracy_score(labels, predicted),
            "training_precision_score": metrics.precision_score(
                labels, predicted, average="weighted"
            ),
            "training_recall_score": metrics.recall_score(labels, predicted, average="weighted"),
            "training_f1_score": metrics.f1_score(labels, predicted, average="weighted"),
            "training_log_loss": metrics.log_loss(labels, chances),
            "training_roc_auc": metrics.roc_auc_score(labels, chances[:, 1]),
            "training_score": model.score(rows, labels),
        },
        rel=1e-12,
    )


def test_regressor_is_measured_by_the_weights_of_its_rows(
    autologged: Runs, rows: pd.DataFrame
) -> None:
    targets = rows["a"] ** 2
    weights = np.linspace(0.1, 2.0, len(rows))
    model = LinearRegression().fit(rows.to_numpy(), targets, sample_weight=weights)
    (run,) = autologged()
    predicted = model.predict(rows.to_numpy())
    mse = metrics.mean_squared_error(targets, predicted, sample_weight=weights)
    assert values(run) == pytest.approx(
        {
            "training_mean_squared_error": mse,
            "training_root_mean_squared_error": mse**0.5,
            "training_mean_absolute_error": metrics.mean_absolute_error(
                targets, predicted, sample_weight=weights
            ),
            "training_r2_score": metrics.r2_score(targets, predicted, sample_weight=weights),
            "training_score": model.score(rows.to_numpy(), targets, sample_weight=weights),
        },
        rel=1e-12,
    )


def test_several_classes_are_measured_against_each_other(
    autologged: Runs, rows: pd.DataFrame
) -> None:
    labels = np.where(rows["a"] > 0.5, "high", np.where(rows["b"] > 0, "mid", "low"))
    model = LogisticRegression().fit(rows, labels)
    (run,) = autologged()
    area = metrics.roc_auc_score(
        labels, model.predict_proba(rows), average="weighted", multi_class="ovo"
    )
    assert run.metrics["training_roc_auc"].value == pytest.approx(area, rel=1e-12)


def test_kept_model_scores_as_the_fitted_one(
    autologged: Runs, rows: pd.DataFrame, workspace: Workspace
) -> None:
    model = make_pipeline(StandardScaler(), Ridge()).fit(rows, rows["a"] * 2)
    (run,) = autologged()
    loaded = sparkscore.load_model(f"{run.artifact_uri}/model", workspace=workspace)
    assert loaded.signature.inputs == sparkscore.infer_signature(rows).inputs
    assert loaded.signature.outputs is not None
    answer = loaded.predict(rows)
    assert isinstance(answer, pd.Series)
    assert answer.tolist() == model.predict(rows).tolist()
    assert not (files(run) / "model" / "input_example.json").exists()
    (entry,) = json.loads(run.tags["mlflow.log-model.history"])
    assert (entry["run_id"], entry["artifact_path"]) == (run.run_id, "model")


def test_parts_of_a_pipeline_are_params_and_no_runs(autologged: Runs, rows: pd.DataFrame) -> None:
    make_pipeline(StandardScaler(), Ridge(alpha=3.0)).fit(rows, rows["a"])
    (run,) = autologged()
    assert run.params["ridge__alpha"] == "3.0"
    assert run.tags["estimator_name"] == "Pipeline"


def test_search_is_one_run_with_the_best_and_all_results(
    autologged: Runs, rows: pd.DataFrame
) -> None:
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, cv=3).fit(rows, rows["a"])
    (run,) = autologged()
    assert run.params["best_alpha"] == str(search.best_params_["alpha"])
    assert "estimator__alpha" not in run.params
    assert run.metrics["best_cv_score"].value == search.best_score_
    with (files(run) / "cv_results.csv").open(encoding="utf-8", newline="") as file:
        results = list(csv.DictReader(file))
    assert [row["param_alpha"] for row in results] == ["0.1", "1.0", "10.0"]
    assert (files(run) / "model" / "MLmodel").exists()


def test_search_that_does_not_refit_has_no_model(autologged: Runs, rows: pd.DataFrame) -> None:
    GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=3, refit=False).fit(rows, rows["a"])
    (run,) = autologged()
    assert run.params["best_alpha"] in ("0.1", "1.0")
    assert not (files(run) / "model").exists()


def test_choice_of_features_is_no_search(
    autologged: Runs, rows: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    RFECV(Ridge(), cv=3).fit(rows, rows["a"])
    (run,) = autologged()
    assert {path.name for path in files(run).iterdir()} == {"dataset.json", "model"}
    assert caplog.records == []


def test_cross_validation_is_one_run_with_a_step_a_fold(
    autologged: Runs, rows: pd.DataFrame, workspace: Workspace
) -> None:
    scores = cross_val_score(Ridge(), rows, rows["a"] ** 2, cv=4)
    (run,) = autologged()
    points = workspace.runs.metric_history(RunId(run.run_id), "test_score")
    assert [(point.step, point.value) for point in points] == list(enumerate(scores))
    assert run.metrics["mean_test_score"].value == pytest.approx(scores.mean())
    assert run.metrics["std_test_score"].value == pytest.approx(scores.std())
    assert (run.params["cv"], run.tags["estimator_name"]) == ("4", "Ridge")


def test_fits_of_a_cross_prediction_are_no_runs(autologged: Runs, rows: pd.DataFrame) -> None:
    cross_val_predict(Ridge(), rows, rows["a"], cv=3)
    assert autologged() == []


def test_fits_that_joblib_spreads_over_threads_are_part_of_their_fit(
    autologged: Runs, rows: pd.DataFrame
) -> None:
    with parallel_config(backend="threading", n_jobs=2):
        BaggingRegressor(Ridge(), n_estimators=4).fit(rows, rows["a"])
        GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=3).fit(rows, rows["a"])
    assert [run.tags["estimator_name"] for run in autologged()] == [
        "BaggingRegressor",
        "GridSearchCV",
    ]


def test_what_transforms_is_no_run_and_what_clusters_is_one(
    autologged: Runs, rows: pd.DataFrame
) -> None:
    StandardScaler().fit(rows)
    KMeans(2, random_state=0).fit(rows)
    (run,) = autologged()
    assert run.tags["estimator_name"] == "KMeans"
    assert values(run) == {}


def test_models_that_a_transformer_fits_are_no_runs(autologged: Runs, rows: pd.DataFrame) -> None:
    filled = IterativeImputer(max_iter=2, tol=10.0).fit_transform(rows.where(rows > -1.5))
    assert not np.isnan(filled).any()
    assert autologged() == []


def test_fit_and_predict_in_one_is_one_run(autologged: Runs, rows: pd.DataFrame) -> None:
    labels = GaussianMixture(2, random_state=0).fit_predict(rows)
    assert set(labels) == {0, 1}
    KMeans(2, random_state=0).fit_transform(rows)
    assert [run.tags["estimator_name"] for run in autologged()] == ["GaussianMixture", "KMeans"]


def test_dataset_is_kept_in_the_form_of_mlflow(autologged: Runs, rows: pd.DataFrame) -> None:
    Ridge().fit(rows, rows["a"])
    Ridge().fit(rows, rows["a"])
    Ridge().fit(rows + 1, rows["a"])
    first, same, other = autologged()
    (entry,) = json.loads((files(first) / "dataset.json").read_text(encoding="utf-8"))
    dataset = entry["dataset"]
    assert entry["tags"] == [{"key": "mlflow.data.context", "value": "train"}]
    assert (dataset["name"], dataset["source_type"]) == ("dataset", "code")
    assert json.loads(dataset["profile"]) == {"num_rows": 120, "num_elements": 240}
    assert json.loads(dataset["schema"])["mlflow_colspec"] == [
        {"type": "double", "name": "a", "required": True},
        {"type": "double", "name": "b", "required": True},
    ]
    key = "sparkscore.dataset.digest"
    assert first.tags[key] == dataset["digest"] == same.tags[key] != other.tags[key]


def test_array_is_a_tensor_in_dataset_and_signature(autologged: Runs, rows: pd.DataFrame) -> None:
    Ridge().fit(rows.to_numpy(), rows["a"])
    (run,) = autologged()
    (entry,) = json.loads((files(run) / "dataset.json").read_text(encoding="utf-8"))
    spec = json.loads(entry["dataset"]["schema"])["mlflow_tensorspec"]
    assert json.loads(spec["features"]) == [
        {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}
    ]
    assert spec["targets"] is None


def test_sparse_rows_have_a_signature_and_a_model(
    autologged: Runs, rows: pd.DataFrame, workspace: Workspace
) -> None:
    model = Ridge().fit(sparse.csr_array(rows.to_numpy()), rows["a"])
    (run,) = autologged()
    loaded = sparkscore.load_model(f"{run.artifact_uri}/model", workspace=workspace)
    answer = loaded.predict(rows.to_numpy())
    assert isinstance(answer, np.ndarray)
    assert answer.tolist() == pytest.approx(model.predict(rows.to_numpy()).tolist())


def test_options_say_what_is_kept(rows: pd.DataFrame, workspace: Workspace) -> None:
    sparkscore.autolog(
        workspace=workspace,
        log_datasets=False,
        log_input_examples=True,
        registered_model_name="line",
    )
    try:
        Ridge().fit(rows, rows["a"])
        sparkscore.autolog(workspace=workspace, log_models=False)
        Ridge().fit(rows, rows["a"])
    finally:
        sparkscore.autolog(disable=True)
    without_model, with_model = workspace.runs.list_runs()
    assert {path.name for path in files(with_model).iterdir()} == {"model"}
    example = (files(with_model) / "model" / "input_example.json").read_text(encoding="utf-8")
    assert json.loads(example)["data"] == rows.head(5).to_numpy().tolist()
    assert {path.name for path in files(without_model).iterdir()} == {"dataset.json"}
    facts = workspace.model("models:/line/1")
    assert facts.version == 1
    (version,) = workspace.models.list_versions(ModelName("line"))
    assert version.run_id == with_model.run_id
    with pytest.raises(ModelNotFoundError):
        workspace.model("models:/line/2")


def test_what_cannot_be_kept_is_told_once_and_the_rest_is_kept(
    autologged: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    texts, labels = ["good", "bad", "good day", "bad day"], [1, 0, 1, 0]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels)
    assert model.predict(["good"]).tolist() == [1]
    (run,) = autologged()
    assert run.metrics["training_accuracy_score"].value == 1.0
    (record,) = caplog.records
    assert record.name == "sparkscore.autologging"
    assert (
        f"run {run.run_name}: not recorded: dataset and model (UsageError: " in record.getMessage()
    )


def test_long_params_and_odd_names_are_kept_in_a_form_that_stores_take(
    autologged: Runs, rows: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(Ridge):  # type: ignore[misc]  # scikit-learn has no types
        def get_params(self, deep: bool = True) -> dict[str, object]:
            return {**super().get_params(deep), "a<b>": "x\0", "long": "y" * 7000}

    Odd().fit(rows, rows["a"])
    (run,) = autologged()
    assert run.params["a_b_"] == "x\\0"
    assert len(run.params["long"]) == 6000
    assert run.params["long"].endswith("y… (7000 characters)")
    # A class of a test's function is no code that a package may bring.
    (record,) = caplog.records
    assert "not recorded: model (" in record.getMessage()
