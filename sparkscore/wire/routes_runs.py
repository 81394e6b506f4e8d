"""Routes of experiments and runs."""

from __future__ import annotations

from dataclasses import replace

from sparkscore.wire.routes import Route
from sparkscore.wire.shapes import Shape, each, enum, int64, one, real, text, texts
from sparkscore.wire.shapes_of_records import (
    DATASET_INPUT,
    DATASET_SUMMARY,
    EXPERIMENT,
    METRIC,
    MODEL_INPUT,
    MODEL_OUTPUT,
    NOTHING,
    PARAM,
    RUN,
    RUN_INFO,
    RUN_STATUS,
    TAG,
    VIEW,
)

MAX_RESULTS = 50_000
MAX_METRICS, MAX_PARAMS, MAX_TAGS = 1000, 100, 100
MAX_BULK_RUNS = 100
_INT32_MAX = 2**31 - 1
_ONE_ID = (text("experiment_id", required=True),)
RUN_ID = replace(text("run_id", required=True), twin="run_uuid")
_KEY = text("key", required=True)
_VALUE = text("value", required=True, may_be_empty=True)
_TOKEN, _NEXT = text("page_token"), text("next_page_token")

EXPERIMENTS = (
    Route(
        "create_experiment",
        "POST",
        "/experiments/create",
        Shape(
            "CreateExperiment",
            (text("name", required=True), text("artifact_location"), each("tags", TAG)),
        ),
        Shape("CreateExperimentAnswer", (text("experiment_id"),)),
    ),
    Route(
        "get_experiment",
        "GET",
        "/experiments/get",
        Shape("GetExperiment", _ONE_ID),
        Shape("GetExperimentAnswer", (one("experiment", EXPERIMENT),)),
    ),
    Route(
        "get_experiment_by_name",
        "GET",
        "/experiments/get-by-name",
        Shape("GetExperimentByName", (text("experiment_name", required=True),)),
        Shape("GetExperimentByNameAnswer", (one("experiment", EXPERIMENT),)),
    ),
    Route(
        "search_experiments",
        "POST",
        "/experiments/search",
        Shape(
            "SearchExperiments",
            (
                int64("max_results", low=1, high=MAX_RESULTS),
                _TOKEN,
                text("filter"),
                texts("order_by"),
                enum("view_type", VIEW),
            ),
        ),
        Shape("SearchExperimentsAnswer", (each("experiments", EXPERIMENT), _NEXT)),
        also=("GET",),
    ),
    Route(
        "delete_experiment",
        "POST",
        "/experiments/delete",
        Shape("DeleteExperiment", _ONE_ID),
        NOTHING,
    ),
    Route(
        "restore_experiment",
        "POST",
        "/experiments/restore",
        Shape("RestoreExperiment", _ONE_ID),
        NOTHING,
    ),
    Route(
        "update_experiment",
        "POST",
        "/experiments/update",
        Shape("UpdateExperiment", (*_ONE_ID, text("new_name"))),
        NOTHING,
    ),
    Route(
        "set_experiment_tag",
        "POST",
        "/experiments/set-experiment-tag",
        Shape("SetExperimentTag", (*_ONE_ID, _KEY, _VALUE)),
        NOTHING,
    ),
    Route(
        "delete_experiment_tag",
        "POST",
        "/experiments/delete-experiment-tag",
        Shape("DeleteExperimentTag", (*_ONE_ID, _KEY)),
        NOTHING,
    ),
    Route(
        "search_datasets",
        "POST",
        "/experiments/search-datasets",
        Shape("SearchDatasets", (texts("experiment_ids", at_most=20, required=True),)),
        Shape("SearchDatasetsAnswer", (each("dataset_summaries", DATASET_SUMMARY),)),
    ),
)

RUNS = (
    Route(
        "create_run",
        "POST",
        "/runs/create",
        Shape(
            "CreateRun",
            (
                text("experiment_id"),
                text("user_id"),
                text("run_name"),
                int64("start_time"),
                each("tags", TAG),
                text("run_id"),  # ours: chosen by the caller, so that a repeated call adds nothing
            ),
        ),
        Shape("CreateRunAnswer", (one("run", RUN),)),
    ),
    Route(
        "update_run",
        "POST",
        "/runs/update",
        Shape(
            "UpdateRun",
            (RUN_ID, enum("status", RUN_STATUS), int64("end_time"), text("run_name")),
        ),
        Shape("UpdateRunAnswer", (one("run_info", RUN_INFO),)),
    ),
    Route(
        "get_run",
        "GET",
        "/runs/get",
        Shape("GetRun", (RUN_ID,)),
        Shape("GetRunAnswer", (one("run", RUN),)),
    ),
    Route("delete_run", "POST", "/runs/delete", Shape("DeleteRun", (RUN_ID,)), NOTHING),
    Route("restore_run", "POST", "/runs/restore", Shape("RestoreRun", (RUN_ID,)), NOTHING),
    Route(
        "log_metric",
        "POST",
        "/runs/log-metric",
        Shape(
            "LogMetric",
            (
                RUN_ID,
                _KEY,
                real("value", required=True),
                int64("timestamp", required=True),
                int64("step"),
                text("model_id"),
                text("dataset_name"),
                text("dataset_digest"),
            ),
        ),
        NOTHING,
    ),
    Route(
        "log_param",
        "POST",
        "/runs/log-parameter",
        Shape("LogParam", (RUN_ID, _KEY, text("value", may_be_empty=True))),
        NOTHING,
    ),
    Route("set_tag", "POST", "/runs/set-tag", Shape("SetTag", (RUN_ID, _KEY, _VALUE)), NOTHING),
    Route("delete_tag", "POST", "/runs/delete-tag", Shape("DeleteTag", (RUN_ID, _KEY)), NOTHING),
    Route(
        "log_batch",
        "POST",
        "/runs/log-batch",
        Shape(
            "LogBatch",
            (
                RUN_ID,
                each("metrics", METRIC, at_most=MAX_METRICS),
                each("params", PARAM, at_most=MAX_PARAMS),
                each("tags", TAG, at_most=MAX_TAGS),
            ),
        ),
        NOTHING,
        max_bytes=1_000_000,
    ),
    Route(
        "log_model",
        "POST",
        "/runs/log-model",
        Shape("LogModel", (RUN_ID, text("model_json", required=True))),
        NOTHING,
    ),
    Route(
        "log_inputs",
        "POST",
        "/runs/log-inputs",
        Shape(
            "LogInputs",
            (
                RUN_ID,
                each("datasets", DATASET_INPUT, at_most=MAX_RESULTS),
                each("models", MODEL_INPUT, at_most=MAX_RESULTS),
            ),
        ),
        NOTHING,
    ),
    Route(
        "log_outputs",
        "POST",
        "/runs/outputs",
        Shape("LogOutputs", (RUN_ID, each("models", MODEL_OUTPUT, at_most=MAX_RESULTS))),
        NOTHING,
    ),
    Route(
        "search_runs",
        "POST",
        "/runs/search",
        Shape(
            "SearchRuns",
            (
                texts("experiment_ids"),
                text("filter"),
                enum("run_view_type", VIEW),
                int64("max_results", low=1, high=MAX_RESULTS),
                texts("order_by"),
                _TOKEN,
            ),
        ),
        Shape("SearchRunsAnswer", (each("runs", RUN), _NEXT)),
    ),
    Route(
        "get_metric_history",
        "GET",
        "/metrics/get-history",
        Shape(
            "GetMetricHistory",
            (
                RUN_ID,
                text("metric_key", required=True),
                _TOKEN,
                int64("max_results", low=1, high=_INT32_MAX),
            ),
        ),
        Shape("GetMetricHistoryAnswer", (each("metrics", METRIC), _NEXT)),
    ),
    Route(
        "get_metric_history_bulk",
        "GET",
        "/metrics/get-history-bulk",
        Shape(
            "GetMetricHistoryBulk",
            (
                texts("run_id", at_most=MAX_BULK_RUNS, required=True),
                text("metric_key", required=True),
                int64("max_results", low=1, high=_INT32_MAX),
            ),
        ),
        Shape("GetMetricHistoryBulkAnswer", (each("metrics", METRIC),)),
        only_ajax=True,
    ),
    Route(
        "get_metric_history_bulk_interval",
        "GET",
        "/metrics/get-history-bulk-interval",
        Shape(
            "GetMetricHistoryBulkInterval",
            (
                texts("run_ids", at_most=MAX_BULK_RUNS, required=True),
                text("metric_key", required=True),
                int64("start_step"),
                int64("end_step"),
                int64("max_results", low=1, high=2500),
            ),
        ),
        Shape("GetMetricHistoryBulkIntervalAnswer", (each("metrics", METRIC),)),
    ),
)
