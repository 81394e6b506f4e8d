from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest

from sparkscore.errors import (
    InvalidNameError,
    RecordNotFoundError,
    StoreUnavailableError,
    UsageError,
)
from sparkscore.names import ArtifactPath, ExperimentName, RunId
from sparkscore.records import Dataset, DatasetInput, Metric, ModelOutput, Run, RunStatus
from sparkscore.stores.base import ArtifactStore
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.memory import MemoryRunStore
from sparkscore.stores.outbox import OutboxRunStore
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.faults import Fault, failing
from sparkscore.tracking import Tracking

RUN = RunId("run-1")


@pytest.fixture
def kept(tmp_path: Path) -> MemoryRunStore:
    return MemoryRunStore((tmp_path / "artifacts").as_uri(), ticking_clock())


@pytest.fixture
def fault() -> Fault:
    return Fault(is_down=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outbox"


@pytest.fixture
def outbox(kept: MemoryRunStore, fault: Fault, folder: Path) -> OutboxRunStore:
    return _outbox(kept, fault, folder)


def _outbox(kept: MemoryRunStore, fault: Fault, folder: Path) -> OutboxRunStore:
    def open_artifacts(uri: str) -> ArtifactStore:
        return failing(LocalArtifactStore.at(uri), fault)

    return OutboxRunStore(failing(kept, fault), folder, open_artifacts, ticking_clock())


def _create(outbox: OutboxRunStore, run_id: RunId = RUN, experiment_id: str = "0") -> Run:
    return outbox.create_run(
        experiment_id, run_id=run_id, run_name="nightly", user_id="ann", start_time_ms=5
    )


def _job(outbox: OutboxRunStore, run_id: str = "run-1") -> None:
    """What a scoring job does with its record."""
    tracking = Tracking(outbox, outbox.open_artifacts, ticking_clock(100))
    with tracking.start_run("nightly", "flights", run_id=run_id) as run:
        run.log_params({"mode": "append"})
        run.log_metrics({"rows": 10.0, "bad": math.nan, "rate": math.inf}, step=2)
        run.log_json({"rows": 10}, "outcome.json")
        run.set_tags({"done": "yes"})


def _check_whole(kept: MemoryRunStore, tmp_path: Path, run_id: str = "run-1") -> None:
    run = kept.get_run(RunId(run_id))
    flights = kept.find_experiment(ExperimentName("flights"))
    assert flights is not None
    assert run.experiment_id == flights.experiment_id
    assert (run.status, run.start_time_ms) == (RunStatus.FINISHED, 100)
    assert run.params == {"mode": "append"}
    assert run.tags["done"] == "yes"
    assert run.metrics["rows"].value == 10.0
    assert run.metrics["rate"].value == math.inf
    assert math.isnan(run.metrics["bad"].value)
    assert len(kept.metric_history(RunId(run_id), "rows")) == 1
    store = LocalArtifactStore.at(run.artifact_uri)
    local = tmp_path / f"{run_id}-{len(list(tmp_path.iterdir()))}.json"
    assert json.loads(store.get(ArtifactPath("outcome.json"), local).read_text()) == {"rows": 10}


def test_a_job_goes_on_while_the_store_is_away_and_its_record_comes_later(
    outbox: OutboxRunStore, kept: MemoryRunStore, fault: Fault, tmp_path: Path
) -> None:
    _job(outbox)
    assert list(kept.list_runs()) == []
    assert outbox.waiting() == [RUN]
    fault.is_down = False
    report = outbox.replay()
    assert (report.delivered, report.left, report.refused) == ((RUN,), (), ())
    _check_whole(kept, tmp_path)


def test_another_process_delivers_the_record(
    outbox: OutboxRunStore, kept: MemoryRunStore, folder: Path, tmp_path: Path
) -> None:
    _job(outbox)
    assert _outbox(kept, Fault(), folder).replay().delivered == (RUN,)
    _check_whole(kept, tmp_path)


@pytest.mark.parametrize("calls_left", range(12))
def test_a_store_that_goes_away_at_any_call_loses_nothing(
    kept: MemoryRunStore, folder: Path, tmp_path: Path, calls_left: int
) -> None:
    fault = Fault(calls_left=calls_left)
    outbox = _outbox(kept, fault, folder)
    _job(outbox)
    fault.is_down, fault.calls_left = False, None
    outbox.replay()
    assert outbox.waiting() == []
    _check_whole(kept, tmp_path)


@pytest.mark.parametrize("calls_left", range(12))
def test_a_replay_that_breaks_off_at_any_call_does_no_harm(
    kept: MemoryRunStore, folder: Path, tmp_path: Path, calls_left: int
) -> None:
    _job(_outbox(kept, Fault(is_down=True), folder))
    broken = _outbox(kept, Fault(calls_left=calls_left), folder).replay()
    whole = _outbox(kept, Fault(), folder).replay()
    assert sorted((*broken.delivered, *whole.delivered)) == [RUN]
    _check_whole(kept, tmp_path)


def test_a_replay_while_the_store_is_away_leaves_all(outbox: OutboxRunStore) -> None:
    _job(outbox, "a")
    _job(outbox, "b")
    report = outbox.replay()
    assert (report.delivered, report.left) == ((), (RunId("a"), RunId("b")))


def test_an_empty_outbox_replays_nothing(outbox: OutboxRunStore, fault: Fault) -> None:
    fault.is_down = False
    assert outbox.replay().delivered == ()


def test_what_follows_a_queued_write_queues_behind_it(
    outbox: OutboxRunStore, kept: MemoryRunStore, fault: Fault
) -> None:
    fault.is_down = False
    _create(outbox)
    fault.is_down = True
    outbox.log_batch(RUN, tags={"phase": "one"})
    fault.is_down = False
    outbox.log_batch(RUN, tags={"phase": "two"})
    assert kept.get_run(RUN).tags == {}
    outbox.replay()
    assert kept.get_run(RUN).tags == {"phase": "two"}


def test_a_run_is_written_directly_again_after_its_replay(
    outbox: OutboxRunStore, kept: MemoryRunStore, fault: Fault
) -> None:
    _create(outbox)
    fault.is_down = False
    outbox.replay()
    outbox.log_batch(RUN, tags={"phase": "two"})
    assert outbox.waiting() == []
    assert kept.get_run(RUN).tags == {"phase": "two"}


def test_two_replays_at_once_deliver_each_run_once(
    outbox: OutboxRunStore, kept: MemoryRunStore, folder: Path
) -> None:
    for number in range(5):
        _job(outbox, f"run-{number}")
    delivered: list[RunId] = []

    def replay() -> None:
        delivered.extend(_outbox(kept, Fault(), folder).replay().delivered)

    threads = [threading.Thread(target=replay) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(delivered) == [f"run-{number}" for number in range(5)]
    assert len(kept.list_runs()) == 5


def test_what_is_queued_during_a_replay_is_delivered_by_it(
    kept: MemoryRunStore, folder: Path
) -> None:
    job = _outbox(kept, Fault(is_down=True), folder)
    _create(job)

    class BusyFault(Fault):
        def check(self) -> None:
            job.log_batch(RUN, tags={"late": "1"})
            self.check = super().check  # type: ignore[method-assign]

    assert _outbox(kept, BusyFault(), folder).replay().delivered == (RUN,)
    assert kept.get_run(RUN).tags == {"late": "1"}


def test_a_refused_run_is_set_aside_with_the_reason_and_the_others_go_on(
    outbox: OutboxRunStore, fault: Fault, folder: Path
) -> None:
    _create(outbox, RunId("a"), experiment_id="77")
    _create(outbox, RunId("b"))
    fault.is_down = False
    report = outbox.replay()
    assert report.delivered == (RunId("b"),)
    [refused] = report.refused
    assert (refused.run_id, refused.path) == ("a", folder / "refused" / "a.jsonl")
    assert "experiment with id '77'" in refused.reason
    assert "CreateRun" in refused.path.read_text()
    reason = (folder / "refused" / "a.reason.txt").read_text()
    assert reason.startswith("[RESOURCE_DOES_NOT_EXIST] there is no experiment")
    assert outbox.waiting() == []


def test_a_second_refusal_of_a_run_overwrites_nothing(
    outbox: OutboxRunStore, fault: Fault, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "plan.json").write_text("{}")
    paths = set()
    for _ in range(2):
        fault.is_down = True
        run = _create(outbox, experiment_id="77")
        outbox.open_artifacts(run).put(tmp_path / "plan.json", ArtifactPath("plan.json"))
        fault.is_down = False
        paths.add(outbox.replay().refused[0].path)
    assert len(paths) == 2
    for path in paths:
        assert path.parent == folder / "refused"
        [file] = path.with_suffix(".files").iterdir()
        assert file.read_text() == "{}"


def test_a_line_that_a_crash_left_unfinished_is_dropped(
    outbox: OutboxRunStore, kept: MemoryRunStore, fault: Fault, folder: Path
) -> None:
    _create(outbox)
    with (folder / "run-1.jsonl").open("a") as file:
        file.write('{"op": "LogBatch", "metr')
    outbox.log_batch(RUN, tags={"a": "b"})
    fault.is_down = False
    assert outbox.replay().delivered == (RUN,)
    assert kept.get_run(RUN).tags == {"a": "b"}


@pytest.mark.parametrize(
    "damage",
    [
        '{"op": "DropAll"}\n',
        "not json\n",
        "[]\n",
        '{"op": "UpdateRun", "status": "ODD", "end_time_ms": 1}\n',
        '{"op": "PutArtifact", "path": "../up", "file": "x"}\n',
    ],
)
def test_a_damaged_journal_is_set_aside(
    outbox: OutboxRunStore, fault: Fault, folder: Path, damage: str
) -> None:
    _create(outbox)
    with (folder / "run-1.jsonl").open("a") as file:
        file.write(damage)
    fault.is_down = False
    [refused] = outbox.replay().refused
    assert "line 3 of the outbox does not parse" in refused.reason


@pytest.mark.parametrize("head", ['{"journal": 99}\n', "{}\n", "\n"])
def test_a_journal_of_another_format_is_set_aside(
    outbox: OutboxRunStore, fault: Fault, folder: Path, head: str
) -> None:
    folder.mkdir()
    (folder / "run-1.jsonl").write_text(head)
    fault.is_down = False
    [refused] = outbox.replay().refused
    assert "run-1.jsonl" in refused.reason


def test_an_empty_journal_is_cleared_away(
    outbox: OutboxRunStore, fault: Fault, folder: Path
) -> None:
    folder.mkdir()
    (folder / "run-1.jsonl").touch()
    fault.is_down = False
    assert outbox.replay().delivered == (RUN,)
    assert outbox.waiting() == []


def test_all_that_a_run_writes_of_itself_is_queued(
    outbox: OutboxRunStore, kept: MemoryRunStore, fault: Fault
) -> None:
    used = DatasetInput(Dataset("train", "d", "local", "{}"), {"mlflow.data.context": "training"})
    _create(outbox)
    outbox.log_batch(RUN, tags={"a": "1", "b": "1"})
    assert outbox.rename_run(RUN, "brave-owl-7").run_name == "brave-owl-7"
    outbox.delete_run_tag(RUN, "a")
    outbox.delete_run_tag(RUN, "never-set")
    outbox.log_inputs(RUN, datasets=[used], model_ids=["m-1"])
    outbox.log_outputs(RUN, [ModelOutput("m-2", 3)])
    fault.is_down = False
    assert outbox.replay().delivered == (RUN,)
    run = kept.get_run(RUN)
    assert (run.run_name, run.tags) == ("brave-owl-7", {"b": "1", "mlflow.runName": "brave-owl-7"})
    assert (run.datasets, run.model_inputs) == ((used,), ("m-1",))
    assert run.model_outputs == (ModelOutput("m-2", 3),)


def test_what_is_done_to_a_run_from_outside_is_not_queued(outbox: OutboxRunStore) -> None:
    for call in (outbox.delete_run, outbox.restore_run, outbox.purge_run):
        with pytest.raises(StoreUnavailableError):
            call(RUN)
    assert outbox.waiting() == []


def test_only_the_owner_reads_the_outbox(outbox: OutboxRunStore, folder: Path) -> None:
    _create(outbox)
    assert oct(folder.stat().st_mode)[-3:] == "700"
    assert oct((folder / "run-1.jsonl").stat().st_mode)[-3:] == "600"


def test_the_longest_run_id_is_queued_too(
    outbox: OutboxRunStore, kept: MemoryRunStore, fault: Fault
) -> None:
    long = RunId("r" * 256)
    _create(outbox, long)
    fault.is_down = False
    assert outbox.replay().delivered == (long,)
    assert kept.get_run(long).run_name == "nightly"


def test_a_queued_run_answers_as_this_process_knows_it(outbox: OutboxRunStore) -> None:
    run = _create(outbox)
    assert (run.run_id, run.run_name, run.status) == (RUN, "nightly", RunStatus.RUNNING)
    ended = outbox.update_run(RUN, RunStatus.FAILED, 9)
    assert (ended.run_name, ended.status, ended.end_time_ms) == ("nightly", RunStatus.FAILED, 9)
    assert outbox.update_run(RunId("other"), RunStatus.FAILED, 9).status is RunStatus.FAILED


def test_reads_pass_through(outbox: OutboxRunStore) -> None:
    with pytest.raises(StoreUnavailableError):
        outbox.get_run(RUN)
    with pytest.raises(StoreUnavailableError):
        outbox.list_runs()
    with pytest.raises(StoreUnavailableError):
        outbox.list_experiments()
    with pytest.raises(StoreUnavailableError):
        outbox.get_experiment("0")
    with pytest.raises(StoreUnavailableError):
        outbox.metric_history(RUN, "loss")


def test_what_is_wrong_in_itself_is_refused_and_not_queued(
    outbox: OutboxRunStore, tmp_path: Path
) -> None:
    with pytest.raises(InvalidNameError):
        outbox.log_batch(RUN, params={"a\nb": "1"})
    with pytest.raises(UsageError):
        outbox.log_batch(RUN, tags={"a": "x" * 8001})
    with pytest.raises(UsageError, match=r"step.*no int"):
        outbox.log_batch(RUN, metrics=[Metric("a", 1.0, 1, np.int64(1))])  # type: ignore[arg-type]
    run = _create(outbox)
    with pytest.raises(RecordNotFoundError):
        outbox.open_artifacts(run).put(tmp_path / "nothing", ArtifactPath("a"))


def test_an_experiment_with_a_location_of_its_own_is_not_queued(outbox: OutboxRunStore) -> None:
    with pytest.raises(StoreUnavailableError):
        outbox.create_experiment(ExperimentName("flights"), "file:///elsewhere")
    placeholder = outbox.create_experiment(ExperimentName("flights"))
    assert placeholder.experiment_id == "outbox:flights"


def test_the_files_of_a_queued_run_cannot_be_read_yet(
    outbox: OutboxRunStore, fault: Fault, tmp_path: Path
) -> None:
    files = outbox.open_artifacts(_create(outbox))
    fault.is_down = False
    with pytest.raises(StoreUnavailableError, match="wait in the outbox"):
        files.get(ArtifactPath("a"), tmp_path / "a")
    with pytest.raises(StoreUnavailableError, match="wait in the outbox"):
        files.list(ArtifactPath(""))


def test_a_folder_of_artifacts_is_queued_whole(
    outbox: OutboxRunStore, kept: MemoryRunStore, fault: Fault, tmp_path: Path
) -> None:
    (tmp_path / "local" / "deep").mkdir(parents=True)
    (tmp_path / "local" / "deep" / "a").write_text("a")
    outbox.open_artifacts(_create(outbox)).put(tmp_path / "local", ArtifactPath("plots"))
    fault.is_down = False
    outbox.replay()
    store = LocalArtifactStore.at(kept.get_run(RUN).artifact_uri)
    got = store.get(ArtifactPath("plots/deep/a"), tmp_path / "back")
    assert got.read_text() == "a"


def test_an_outbox_that_cannot_be_written_says_so(kept: MemoryRunStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailableError, match=r"outbox .* failed"):
        _create(_outbox(kept, Fault(is_down=True), tmp_path / "file" / "outbox"))


def test_nothing_is_queued_while_the_store_answers(
    outbox: OutboxRunStore, fault: Fault, folder: Path, kept: MemoryRunStore, tmp_path: Path
) -> None:
    fault.is_down = False
    _job(outbox)
    _check_whole(kept, tmp_path)
    assert not list(folder.glob("run-*"))


def test_metric_points_are_kept_once_however_often_they_are_sent(
    outbox: OutboxRunStore, kept: MemoryRunStore, fault: Fault
) -> None:
    _create(outbox)
    for _ in range(2):
        outbox.log_batch(RUN, metrics=[Metric("loss", 0.5, 1, 1)])
    fault.is_down = False
    outbox.replay()
    assert kept.metric_history(RUN, "loss") == [Metric("loss", 0.5, 1, 1)]
