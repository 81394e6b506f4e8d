from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import sparkscore
from sparkscore.errors import RecordNotFoundError, StoreUnavailableError
from sparkscore.moving.importing import Importer
from sparkscore.moving.mlruns import MlrunsFolder
from sparkscore.moving.tally import Tally
from sparkscore.names import ArtifactPath, ExperimentName, ModelName, RunId
from sparkscore.records import ArtifactInfo, LifecycleStage, Metric, Run, RunStatus
from sparkscore.stores.copies_base import RunPoint
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.sql.copies import SqlCopyStore
from tests.moving.conftest import Ours
from tests.moving.mlruns_maker import MlrunsMaker, write_meta, write_package

BIG_ID = "958745423789123456"


def reasons(tally: Tally) -> list[tuple[str, int, list[str]]]:
    return [(it.kind, it.n, it.examples) for it in tally.left_out]


def history(ours: Ours, run_id: str, key: str) -> list[Metric]:
    return list(ours.stores.runs.metric_history(RunId(run_id), key))


class Breaking(SqlCopyStore):
    """A store that breaks after some transactions, as a process that is killed."""

    def __init__(self, inner: SqlCopyStore, after: int) -> None:
        super().__init__(inner._database, inner._clock)
        self._left = after

    def put_runs(self, runs: Sequence[Run], points: Sequence[RunPoint]) -> int:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        return super().put_runs(runs, points)


def test_broken_off_anywhere_it_goes_on_and_doubles_no_point(
    theirs: MlrunsMaker, tmp_path: Path
) -> None:
    theirs.experiment(BIG_ID, "long")
    for n in range(3):
        lines = "".join(f"{step} {step / 4} {step}\n" for step in range(25))
        run = theirs.run(BIG_ID, f"run{n}", metrics={"a": lines, "b": lines})
        (run / "artifacts").mkdir()
        (run / "artifacts" / "note.txt").write_text(f"of {n}")
    for after in range(40):
        part = Ours(tmp_path / f"part{after}", f"sqlite:///{tmp_path / f'part{after}.db'}")
        breaking = Breaking(part.stores.copies, after)
        try:
            part.take(theirs.root, copies=breaking, n_runs=2, max_points=7)
        except KeyboardInterrupt:
            part.take(theirs.root, n_runs=2, max_points=9)
        else:
            break
        for n in range(3):
            found = part.stores.runs.get_run(RunId(f"run{n}"))
            assert (found.status, found.end_time_ms) == (RunStatus.FINISHED, 9)
            assert found.metrics["a"].step == 24
            for key in ("a", "b"):
                assert [it.step for it in history(part, f"run{n}", key)] == list(range(25))
    assert after == 23, "each transaction was the last one once"


def test_killed_and_started_again(theirs: MlrunsMaker, ours: Ours) -> None:
    theirs.experiment("3", "e")
    for n in range(6):
        theirs.run("3", f"run{n}", metrics={"a": "".join(f"{i} 1.5 {i}\n" for i in range(10))})
    script = f"""
import os, signal
from pathlib import Path
from tests.moving.conftest import Ours
from sparkscore.stores.base import system_clock
from sparkscore.stores.sql.copies import SqlCopyStore

class Killed(SqlCopyStore):
    n = 0
    def put_runs(self, runs, points):
        Killed.n += 1
        done = super().put_runs(runs, points)
        if Killed.n == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

ours = Ours(Path({str(ours.folder)!r}), {ours.url!r})
killed = Killed(ours.stores.copies._database, system_clock)
ours.take(Path({str(theirs.root)!r}), copies=killed, n_runs=2, max_points=7)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(sparkscore.__file__).parents[1],
        env=os.environ,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    tally = ours.take(theirs.root)
    assert (tally.new["run"] + tally.there["run"], tally.there["run"] > 0) == (6, True)
    for n in range(6):
        assert len(history(ours, f"run{n}", "a")) == 10
        assert ours.stores.runs.get_run(RunId(f"run{n}")).status is RunStatus.FINISHED


def test_a_run_that_went_on_is_brought_up_to_date_and_one_that_ended_is_left_alone(
    theirs: MlrunsMaker, ours: Ours
) -> None:
    theirs.experiment("1", "e")
    theirs.run("1", "open", status="RUNNING", metrics={"a": "1 1.0 1\n"})
    theirs.run("1", "ended", params={"p": "1"})
    ours.take(theirs.root)
    ours.stores.runs.log_batch(RunId("ended"), tags={"ours": "yes"})
    theirs.run("1", "open", params={"late": "x"}, metrics={"a": "1 1.0 1\n2 2.0 2\n"})
    theirs.run("1", "ended", params={"p": "1", "never": "x"})
    tally = ours.take(theirs.root)
    assert (tally.new["run"], tally.there["run"], tally.new["metric point"]) == (0, 2, 1)
    went_on = ours.stores.runs.get_run(RunId("open"))
    assert (went_on.status, went_on.params) == (RunStatus.FINISHED, {"late": "x"})
    assert [it.value for it in history(ours, "open", "a")] == [1.0, 2.0]
    ended = ours.stores.runs.get_run(RunId("ended"))
    assert (ended.params, ended.tags) == ({"p": "1"}, {"ours": "yes"})


def test_what_cannot_be_read_or_kept_is_named_and_all_else_comes_over(
    theirs: MlrunsMaker, ours: Ours
) -> None:
    theirs.experiment("1", "e")
    good = theirs.run(
        "1",
        "good",
        params={"ok": "é\n", "nul": "a\0b"},
        metrics={"torn": "1 0.5 1\n2 zero 2\n3 0.7", "old": "4 1.5\n", "far": f"1 1 {2**63}\n"},
    )
    (good / "params" / "latin").write_bytes(b"caf\xe9")
    (good / "metrics" / "measured").write_text("5 2.5 6 my data abc123\n")
    theirs.run("1", "other").joinpath("meta.yaml").write_text("run_id: [")
    write_meta(theirs.root / "1" / "wrong", {"run_id": "another"})
    theirs.run("1", "long", run_name="n" * 501)
    (theirs.root / "1" / "bare").mkdir()
    theirs.experiment("2", "n" * 501)
    tally = ours.take(theirs.root)
    assert sorted(reasons(tally)) == [
        ("experiment", 1, ["2"]),
        ("metric point", 1, ["good/far"]),
        ("metric point", 1, ["good/torn"]),
        ("metric point", 1, ["good/torn"]),
        ("param", 1, ["good/latin"]),
        ("param", 1, ["good/nul"]),
        ("run", 1, ["bare"]),
        ("run", 1, ["long"]),
        ("run", 1, ["other"]),
        ("run", 1, ["wrong"]),
    ]
    run = ours.stores.runs.get_run(RunId("good"))
    assert run.params == {"ok": "é\n"}
    assert [it.value for it in history(ours, "good", "torn")] == [0.5]
    assert history(ours, "good", "old") == [Metric("old", 1.5, 4, 0)]
    assert history(ours, "good", "measured") == [
        Metric("measured", 2.5, 5, 6, dataset_name="my data", dataset_digest="abc123")
    ]
    assert ours.take(theirs.root).new["run"] == 0


def test_an_experiment_of_a_known_name_is_continued_and_a_taken_id_is_given_anew(
    theirs: MlrunsMaker, ours: Ours
) -> None:
    mine = ours.stores.runs.create_experiment(ExperimentName("mine"))
    known = ours.stores.runs.create_experiment(ExperimentName("known"))
    assert (mine.experiment_id, known.experiment_id) == ("1", "2")
    theirs.experiment("1", "theirs")
    theirs.experiment("7", "known")
    theirs.run("1", "a")
    theirs.run("7", "b", lifecycle_stage="deleted")
    said = [("experiment id", 2, ["1 is 3 here", "7 is 2 here"])]
    assert reasons(ours.take(theirs.root)) == said
    tally = ours.take(theirs.root)
    assert reasons(tally) == said
    a, b = (ours.stores.runs.get_run(RunId(it)) for it in "ab")
    assert (a.experiment_id, a.artifact_uri) == ("3", "mlflow-artifacts:/3/a/artifacts")
    assert (b.experiment_id, b.lifecycle_stage) == ("2", LifecycleStage.DELETED)
    assert tally.new["experiment"] == 0


def test_files_come_along_from_a_folder_that_was_moved(
    theirs: MlrunsMaker, ours: Ours, tmp_path: Path
) -> None:
    theirs.experiment(BIG_ID, "e")
    run = theirs.run(BIG_ID, "r")
    write_package(run / "artifacts" / "model")
    theirs.model(
        "m", {2: f"{run.as_uri()}/artifacts/model", 5: "runs:/r/model"}, run_id="r", champion=5
    )
    elsewhere = theirs.root.rename(tmp_path / "elsewhere")
    tally = ours.take(elsewhere)
    assert (reasons(tally), tally.new["file"]) == ([], 2)
    versions = ours.stores.models.list_versions(ModelName("m"))
    place = f"mlflow-artifacts:/{BIG_ID}/r/artifacts/model"
    assert [(it.version, it.source) for it in versions] == [(5, place), (2, place)]
    assert len({it.digest for it in versions}) == 1
    assert len(versions[0].digest) == 64
    assert versions[0].aliases == ("champion",)
    with ours.files.open(ArtifactPath(f"{BIG_ID}/r/artifacts/model/model.pkl")) as kept:
        assert kept.read() == b"pickled"
    made = ours.stores.runs.create_experiment(ExperimentName("next"))
    assert int(made.experiment_id) == int(BIG_ID) + 1


def test_files_that_are_not_there_keep_their_version_back_until_they_are(
    theirs: MlrunsMaker, ours: Ours, tmp_path: Path
) -> None:
    theirs.experiment("1", "e")
    theirs.run("1", "r", artifact_uri="mlflow-artifacts:/1/r/artifacts")
    theirs.model("m", {1: "mlflow-artifacts:/1/r/artifacts/model"}, champion=1)
    tally = ours.take(theirs.root)
    assert reasons(tally) == [("model version", 1, ["m/1"]), ("run", 1, ["r"])]
    assert "--artifacts-at" in tally.left_out[0].why
    write_package(tmp_path / "served" / "1" / "r" / "artifacts" / "model")
    moved = {"mlflow-artifacts:/": str(tmp_path / "served")}
    assert reasons(ours.take(theirs.root, moved=moved)) == []
    (version,) = ours.stores.models.list_versions(ModelName("m"))
    assert (version.aliases, len(version.digest)) == (("champion",), 64)


def test_files_may_stay_where_they_are_and_follow_later(theirs: MlrunsMaker, ours: Ours) -> None:
    theirs.experiment("1", "e")
    run = theirs.run("1", "r")
    write_package(run / "artifacts" / "model")
    theirs.model("m", {1: f"{run.as_uri()}/artifacts/model"})
    assert ours.take(theirs.root, artifacts=False).new["file"] == 0
    assert ours.stores.runs.get_run(RunId("r")).artifact_uri == f"{run.as_uri()}/artifacts"
    (version,) = ours.stores.models.list_versions(ModelName("m"))
    assert (version.source, version.digest) == (f"{run.as_uri()}/artifacts/model", "")
    assert ours.take(theirs.root).new["file"] == 2
    assert ours.stores.runs.get_run(RunId("r")).artifact_uri == "mlflow-artifacts:/1/r/artifacts"


def test_a_record_without_a_place_brings_no_files_of_this_process(
    theirs: MlrunsMaker, ours: Ours
) -> None:
    theirs.experiment("1", "e")
    theirs.run("1", "r", artifact_uri="")
    theirs.model("m", {1: ""})
    tally = ours.take(theirs.root)
    assert reasons(tally) == [("model version", 1, ["m/1"]), ("run", 1, ["r"])]
    assert not ours.files.list(ArtifactPath(""))


def test_a_store_elsewhere_that_is_away_ends_the_import_for_now(
    theirs: MlrunsMaker, ours: Ours
) -> None:
    theirs.experiment("1", "e")
    theirs.run("1", "r", artifact_uri="s3://bucket/1/r/artifacts")

    class Away(LocalArtifactStore):
        def list(self, path: ArtifactPath) -> Sequence[ArtifactInfo]:
            raise StoreUnavailableError(f"no answer for {path!r}")

    tally = Tally()
    copies = ours.stores.copies
    source = MlrunsFolder(theirs.root)
    with pytest.raises(StoreUnavailableError):
        Importer(
            source, copies, copies, ours.files, lambda _: Away(ours.folder), {}, print, tally
        ).run()
    assert ours.take(theirs.root, artifacts=False).new["run"] == 1


def test_a_version_of_the_same_number_here_is_not_replaced(theirs: MlrunsMaker, ours: Ours) -> None:
    name = ModelName("m")
    ours.stores.models.create_model(name)
    ours.stores.models.create_version(name, source="file:///ours")
    theirs.model("m", {1: "file:///theirs", 3: "file:///third"})
    tally = ours.take(theirs.root, artifacts=False)
    assert reasons(tally) == [("model version", 1, ["m/1"])]
    assert [it.source for it in ours.stores.models.list_versions(name)] == [
        "file:///third",
        "file:///ours",
    ]
    assert ours.stores.models.create_version(name, source="file:///ours").version == 4


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordNotFoundError, match="mlruns"):
        MlrunsFolder(tmp_path)
