"""What a stream tells of itself stays small, and is there for whoever asks."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sparkscore import Workspace
from sparkscore.errors import PortTakenError, UsageError
from sparkscore.names import RunId
from sparkscore.scoring.canary import Split
from sparkscore.scoring.outcome import (
    BatchReport,
    Commit,
    ModelCounts,
    Outcome,
    OutcomeStatus,
)
from sparkscore.scoring.streams import BatchModel, BatchModels
from sparkscore.stream_record import Pace, StreamPages, StreamRecord
from sparkscore.tracking import ActiveRun

OUTCOME = Outcome(
    OutcomeStatus.SUCCEEDED,
    Commit("/data/scores", 7, "run", 3),
    n_read=4,
    n_scored=3,
    n_rejected=1,
    seconds={"commit": 0.25},
)
MODELS = BatchModels(BatchModel("models:/pump/7", "digest"))
TRIALS = replace(
    OUTCOME,
    batches=[
        BatchReport(
            worker="w",
            ended_ms=0,
            n_rows=4,
            n_rejected=0,
            n_bytes=64,
            convert_s=0.0,
            predict_s=0.0,
            load_s=0.0,
            n_loads=1,
            rss_bytes=1,
            models={
                "canary": ModelCounts(n_rows=4, n_failed=3, failure="why"),
                "shadow": ModelCounts(
                    n_rows=10, n_compared=10, n_different=5, difference=-2.5, absolute=7.5
                ),
            },
        )
    ],
)
PROGRESS = {
    "batchId": 5,
    "inputRowsPerSecond": 10.0,
    "processedRowsPerSecond": 20.0,
    "durationMs": {"addBatch": 1500},
    "stateOperators": [
        {
            "numRowsTotal": 4,
            "numRowsDroppedByWatermark": 2,
            "memoryUsedBytes": 100,
            "customMetrics": {"rocksdbSstFileSize": 50},
        }
    ],
    "observedMetrics": {
        "sparkscore_features": {"n_rows": 9, "n_timeless": 1},
        "sparkscore_state": {"n_rows": 3},
    },
    "sources": [{"metrics": {"numFilesOutstanding": "3", "other": "x"}}],
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ActiveRun]:
    monkeypatch.chdir(tmp_path)
    with Workspace.open().tracking.start_run("stream") as run:
        yield run


def test_a_year_of_seconds_has_a_few_thousand_points() -> None:
    seconds = range(0, 366 * 24 * 3600, 5)
    pace = Pace(clock=iter(seconds).__next__)
    n_points = sum(pace.is_due() for _ in seconds)
    assert 4000 < n_points < 7000


def test_batches_are_counted_and_told(run: ActiveRun, tmp_path: Path) -> None:
    health = tmp_path / "health.json"
    record = StreamRecord(run, "telemetry", health)
    assert json.loads(health.read_text())["batch"] == -1
    record.batch(5, OUTCOME, MODELS, is_replay=False)
    record.latency({"p50": 1.5})
    record.progress(PROGRESS)
    told = json.loads(health.read_text())
    assert (told["batch"], told["table_version"], told["rows_scored"]) == (5, 7, 3)
    assert told["model_digest"] == "digest"
    run.end()
    found = Workspace.open().runs.get_run(RunId(run.run_id)).metrics
    metrics = {name: metric.value for name, metric in found.items() if metric.step == 5}
    assert metrics["rows_late"] == 2
    assert metrics["backlog_files"] == 3
    assert metrics["batch_addBatch_seconds"] == 1.5
    assert metrics["latency_p50_seconds"] == 1.5
    assert metrics["seconds_commit"] == 0.25


def test_series_are_as_many_after_any_number_of_versions(run: ActiveRun) -> None:
    record = StreamRecord(run, "telemetry", None)
    names: set[str] = set()
    for number in range(300):
        version = number // 3
        models = BatchModels(
            BatchModel("models:/pump/0", "champion"),
            BatchModel(f"models:/pump/{version}", f"canary-{version}"),
            Split(("sensor",), 0.05),
            BatchModel(f"models:/pump/{version + 1}", f"shadow-{version}"),
        )
        record.batch(number, TRIALS, models, is_replay=False)
        record.measured({"drift.x": 0.1, "empty_share.x": 0.0})
        names |= record.metrics().keys()
    assert len(names) < 30
    told = record.metrics()
    assert told["shadow_rows_compared"] == 30  # Of the last version alone.
    assert told["shadow_different_share"] == 0.5
    assert told["shadow_mean_difference"] == -0.25
    assert told["shadow_mean_absolute_difference"] == 0.75
    assert (told["canary_rows_scored"], told["canary_rows_failed"]) == (1, 3)
    record.batch(300, OUTCOME, MODELS, is_replay=False)
    assert not any(name.startswith(("canary_", "shadow_")) for name in record.metrics())


def test_columns_are_labels_for_prometheus_and_names_for_the_run(run: ActiveRun) -> None:
    record = StreamRecord(run, "telemetry", None)
    record.measured({'drift.tempé 1"': 0.5, "drift.x": 0.25, "alert_drift.x": 1.0})
    assert [line for line in record.page().splitlines() if "drift" in line] == [
        "# TYPE sparkscore_stream_alert_drift gauge",
        'sparkscore_stream_alert_drift{job="telemetry",column="x"} 1.0',
        "# TYPE sparkscore_stream_drift gauge",
        'sparkscore_stream_drift{job="telemetry",column="tempé 1\\""} 0.5',
        'sparkscore_stream_drift{job="telemetry",column="x"} 0.25',
    ]
    assert record.metrics()["drift.tempé 1_"] == 0.5
    run.log_metrics(record.metrics())


def test_state_and_rows_before_features_are_told(run: ActiveRun) -> None:
    record = StreamRecord(run, "telemetry", None)
    idle = PROGRESS | {"durationMs": {"latestOffset": 3}}
    record.unmatched(2)
    for progress in (PROGRESS, idle, PROGRESS | {"batchId": 6}):
        record.progress(progress)
    page = record.page()
    for name, value in {
        "rows_late_total": 4,
        "rows_before_features_total": 18,
        "rows_without_time_total": 2,
        "rows_out_of_order_total": 6,
        "rows_unmatched_total": 2,
        "state_rows": 4.0,
        "state_bytes": 100.0,
        "state_disk_bytes": 50.0,
    }.items():
        assert f'sparkscore_stream_{name}{{job="telemetry"}} {value}' in page.splitlines()


def test_pages_are_for_prometheus_and_probes(run: ActiveRun) -> None:
    record = StreamRecord(run, 'tele"metry', None)
    pages = StreamPages(record, 0, "127.0.0.1")
    try:
        record.batch(5, OUTCOME, MODELS, is_replay=True)
        record.progress(PROGRESS)
        url = f"http://127.0.0.1:{pages.port}"
        page = urllib.request.urlopen(f"{url}/metrics").read().decode()
        assert 'sparkscore_stream_batches_replayed_total{job="tele\\"metry"} 1' in page.splitlines()
        assert "# TYPE sparkscore_stream_backlog_files gauge" in page.splitlines()
        assert json.loads(urllib.request.urlopen(f"{url}/healthz").read())["batch"] == 5
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/other")
        with pytest.raises(PortTakenError, match="--metrics-port"):
            StreamPages(record, pages.port, "127.0.0.1")
    finally:
        pages.close()


@pytest.mark.parametrize(("max_age_s", "status"), [("3600", 200), ("0", 503), ("soon", 400)])
def test_probe_fails_where_nothing_was_heard_for_longer_than_it_asks(
    max_age_s: str, status: int, run: ActiveRun
) -> None:
    pages = StreamPages(StreamRecord(run, "telemetry", None), 0, "127.0.0.1")
    connection = http.client.HTTPConnection("127.0.0.1", pages.port)
    try:
        connection.request("GET", f"/healthz?max_age_s={max_age_s}")
        answer = connection.getresponse()
        assert answer.status == status
        if status != 400:
            assert json.loads(answer.read())["job"] == "telemetry"
    finally:
        connection.close()
        pages.close()


def test_health_file_that_cannot_be_written_is_told_at_the_start(
    run: ActiveRun, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--health-file"):
        StreamRecord(run, "telemetry", tmp_path / "file" / "health.json")
