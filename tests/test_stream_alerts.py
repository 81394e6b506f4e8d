"""An alert is told once when it begins and once when it ends, and costs the stream nothing."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sparkscore import Workspace
from sparkscore.conf import JobSettings, load_job
from sparkscore.errors import ConfigError
from sparkscore.names import RunId
from sparkscore.stream_alerts import Alert, Alerts, AlertWatch, alert_bounds, alert_hook
from sparkscore.stream_record import StreamRecord
from sparkscore.tracking import ActiveRun
from tests.server.webhook_receiver import Receiver, receiving
from tests.test_stream_record import MODELS, OUTCOME, PROGRESS

CLEAN = replace(OUTCOME, n_read=3, n_rejected=0)
SLOW = {**PROGRESS, "durationMs": {"triggerExecution": 1500}}
QUICK = {**PROGRESS, "durationMs": {"triggerExecution": 100}}
_WAIT_S = 20


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ActiveRun]:
    monkeypatch.chdir(tmp_path)
    with Workspace.open().tracking.start_run("stream") as run:
        yield run


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def job(**given: object) -> JobSettings:
    needed = {"name": "telemetry", "source.uri": "/rows", "target.uri": "/scores"}
    return load_job(None, needed | {f"stream.{key}": value for key, value in given.items()}).values


def await_that(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # What is awaited goes on in another thread, which tells nobody.


def test_measure_that_swings_about_its_bound_is_one_alert() -> None:
    told: list[Alert] = []
    alerts = Alerts({"latency": 10.0, "backlog": 5.0}, told.append, iter(range(9)).__next__)
    for latency in (9.0, 10.0, 10.5, 9.9, 8.1, 11.0, 8.0, 9.0, 10.0, 10.1):
        alerts.look({"latency": latency})
    assert [(alert.is_begun, alert.value, alert.at) for alert in told] == [
        (True, 10.5, 0),
        (False, 8.0, 1),
        (True, 10.1, 2),
    ]
    assert alerts.active == ("latency",)
    assert alerts.gauges == {"alert_latency": 1.0, "alert_backlog": 0.0}


def test_bound_of_zero_admits_none_and_ends_with_none() -> None:
    told: list[Alert] = []
    alerts = Alerts({"rejected": 0.0}, told.append)
    for value in (0.0, 0.1, 0.0, math.nan):
        alerts.look({"rejected": value})
    assert [alert.is_begun for alert in told] == [True, False, True]


def test_alert_is_told_to_record_run_and_webhook(
    run: ActiveRun, receiver: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("abc\n")
    settings = job(
        **{
            "alerts.rejected_share": 0.2,
            "alerts.batch_seconds": 1.0,
            "alerts.webhook": receiver.url,
            "alerts.secret_file": tmp_path / "secret",
        }
    )
    said: list[str] = []
    health = tmp_path / "health.json"
    receiver.answers.put(503)  # And is asked once more.
    bounds, hook = alert_bounds(settings), alert_hook(settings)
    with AlertWatch("telemetry", run, bounds, hook, said.append) as alerts:
        record = StreamRecord(run, "telemetry", health, alerts)
        record.batch(5, OUTCOME, MODELS, is_replay=False)
        record.progress(SLOW)
        assert json.loads(health.read_text())["alerts"] == ["batch_seconds", "rejected_share"]
        page = record.page().splitlines()
        assert 'sparkscore_stream_alert_rejected_share{job="telemetry"} 1.0' in page
        assert 'sparkscore_stream_rejected_share{job="telemetry"} 0.25' in page
        first, again, second = receiver.next(), receiver.next(), receiver.next()
        assert first.headers["X-MLflow-Delivery-Id"] == again.headers["X-MLflow-Delivery-Id"]
        assert again.is_signed_by("abc")
        assert {one.told["data"]["name"] for one in (first, second)} == set(alerts.active)
        assert (first.told["entity"], first.told["action"]) == ("stream", "alert_begun")
        for number in range(30):
            record.batch(number, CLEAN, MODELS, is_replay=False)
        record.progress({**PROGRESS, "durationMs": {"triggerExecution": 100}})
        ended = [receiver.next().told for _ in range(2)]
        assert {one["action"] for one in ended} == {"alert_ended"}
    assert [text.split()[0] for text in said] == ["alert"] * 4
    facts = json.loads(said[0].removeprefix("alert "))
    assert facts["job"] == "telemetry"
    assert {json.loads(text.removeprefix("alert "))["bound"] for text in said} == {0.2, 1.0}
    run.end()
    kept = Workspace.open().runs.get_run(RunId(run.run_id))
    assert kept.tags["sparkscore.alerts"] == ""
    assert kept.metrics["alert_rejected_share"].value == 1.0


def test_stream_whose_batches_do_not_come_is_told_of(run: ActiveRun) -> None:
    said: list[str] = []
    with AlertWatch("telemetry", run, {"idle_seconds": 2.0}, None, said.append) as alerts:
        await_that(lambda: bool(said))
        assert alerts.active == ("idle_seconds",)
        alerts.batch_ended()
        await_that(lambda: len(said) == 2)
    assert len(said) == 2


def test_webhook_that_nobody_answers_is_told_of_and_let_go(
    run: ActiveRun, receiver: Receiver
) -> None:
    said: list[str] = []
    receiver.answers.put(404)
    hook = alert_hook(job(**{"alerts.webhook": receiver.url}))
    with AlertWatch("telemetry", run, {"backlog_files": 1.0}, hook, said.append) as alerts:
        alerts.look({"backlog_files": 2.0})
        assert "X-MLflow-Signature" not in receiver.next().headers
        await_that(lambda: len(said) == 2)
        nowhere = alert_hook(job(**{"alerts.webhook": "http://nowhere.invalid/hook"}))
        assert nowhere is not None
        assert "has no address" in nowhere.post(b"{}", "1").error
    assert "did not take alert backlog_files: the answer was 404" in said[1]
    assert receiver.rest() == []


def parsed(**given: object) -> None:
    settings = job(**given)
    alert_bounds(settings)
    alert_hook(settings)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"alerts.latency_p99_seconds": 5}, "--event-time"),
        ({"alerts.latency": 5}, "latency_p99_seconds"),
        ({"alerts.rejected_share": 5}, "rejected_share"),
        ({"alerts.webhook": "ftp://example.org"}, "stream.alerts.webhook"),
        ({"alerts.webhook": "http://h/x", "alerts.secret_file": "/nowhere"}, "secret_file"),
        ({"alerts.secret_file": "/nowhere"}, "stream.alerts.webhook"),
    ],
)
def test_alerts_that_say_nothing_are_refused(given: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parsed(**given)
