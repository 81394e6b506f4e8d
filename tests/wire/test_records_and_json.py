from __future__ import annotations

import json
import math

import pytest

from sparkscore.records import (
    Dataset,
    DatasetInput,
    Experiment,
    LifecycleStage,
    LoggedModel,
    LoggedModelStatus,
    Metric,
    ModelOutput,
    ModelVersion,
    RegisteredModel,
    Run,
    RunStatus,
    Stage,
    VersionStatus,
)
from sparkscore.wire import json_to_records, records_to_json, shapes_of_records
from sparkscore.wire.reading import read_body, read_fields

METRIC = Metric("auc", 0.1 + 0.2, -5, 2**63 - 1, "m-1", "train", "d1")
RUN = Run(
    run_id="r1",
    run_name="one",
    experiment_id="3",
    user_id="ann",
    status=RunStatus.KILLED,
    start_time_ms=0,
    end_time_ms=0,
    artifact_uri="mlflow-artifacts:/3/r1/artifacts",
    lifecycle_stage=LifecycleStage.DELETED,
    params={"a": "", "b": "é\n"},
    metrics={"auc": METRIC},
    tags={"t": "v"},
    datasets=(DatasetInput(Dataset("d", "x", "local", "{}", "s", "p"), {"k": "v"}),),
    model_inputs=("m-1",),
    model_outputs=(ModelOutput("m-2", 4),),
)
MODEL = LoggedModel(
    model_id="m-1",
    experiment_id="3",
    name="net",
    model_type="big",
    source_run_id="r1",
    status=LoggedModelStatus.READY,
    artifact_uri="mlflow-artifacts:/3/models/m-1/artifacts",
    creation_time_ms=1,
    last_update_time_ms=2,
    lifecycle_stage=LifecycleStage.DELETED,
    status_message="fine",
    params={"p": "1"},
    tags={"t": "v"},
    metrics=(METRIC,),
)
VERSION = ModelVersion(
    name="net",
    version=7,
    creation_time_ms=1,
    last_update_time_ms=2,
    source="models:/m-1",
    status=VersionStatus.READY,
    digest="ab",
    run_id="r1",
    description="d",
    tags={"t": ""},
    aliases=("best",),
    stage=Stage.PRODUCTION,
    run_link="http://x",
    model_id="m-1",
    user_id="ann",
)
REGISTERED = RegisteredModel("net", 1, 2, "d", {"t": "v"}, {"best": 7})
EXPERIMENT = Experiment("3", "e", "s3://b/3", LifecycleStage.ACTIVE, 1, 2, {"t": "v"})


def test_every_record_comes_back_from_json_as_it_was() -> None:
    read, write, shapes = json_to_records, records_to_json, shapes_of_records
    given = read_fields(read_body(write.to_bytes(write.run_to_json(RUN))), shapes.RUN)
    assert read.run_of(given) == RUN
    given = read_fields(
        read_body(write.to_bytes(write.logged_model_to_json(MODEL))), shapes.LOGGED_MODEL
    )
    assert read.logged_model_of(given) == MODEL
    given = read_fields(read_body(write.to_bytes(write.version_to_json(VERSION))), shapes.VERSION)
    assert read.version_of(given) == VERSION
    given = read_fields(
        read_body(write.to_bytes(write.registered_model_to_json(REGISTERED))),
        shapes.REGISTERED_MODEL,
    )
    assert read.registered_model_of(given) == REGISTERED
    given = read_fields(
        read_body(write.to_bytes(write.experiment_to_json(EXPERIMENT))), shapes.EXPERIMENT
    )
    assert read.experiment_of(given) == EXPERIMENT


@pytest.mark.parametrize("value", [math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308])
def test_doubles_survive_json_to_the_bit(value: float) -> None:
    body = records_to_json.to_bytes(records_to_json.metric_to_json(Metric("m", value, 1)))
    read = json_to_records.metric_of(read_fields(read_body(body), shapes_of_records.METRIC))
    assert math.copysign(1, read.value) == math.copysign(1, value)
    assert read.value == value


def test_nan_is_text_in_json() -> None:
    body = records_to_json.to_bytes(records_to_json.metric_to_json(Metric("m", math.nan, 1)))
    assert json.loads(body)["value"] == "NaN"


def test_what_is_not_set_is_left_out() -> None:
    bare = records_to_json.version_to_json(
        ModelVersion("n", 1, 0, 0, "s3://b", VersionStatus.READY)
    )
    assert sorted(bare) == [
        "creation_timestamp",
        "current_stage",
        "last_updated_timestamp",
        "name",
        "source",
        "status",
        "version",
    ]
