from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sparkscore.errors import StoreUnavailableError, UsageError
from sparkscore.names import ArtifactPath, ExperimentName, ModelName, RunId, parse_artifact_path
from sparkscore.purging import Fate, Purged, PurgedStores, Selection, purge
from sparkscore.records import ArtifactInfo, LoggedModelStatus, VersionStatus
from sparkscore.search import Query, View
from sparkscore.stores.base import ArtifactStore
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.object_files import ObjectArtifactStore
from sparkscore.stores.sql import open_sql
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.s3_server import S3Server

EVER = Selection(2**62)
MODEL = ModelName("churn")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def stores(tmp_path: Path, root: Path) -> PurgedStores:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    opened = open_sql(url, root.as_uri(), ticking_clock())
    return PurgedStores(
        opened.runs, opened.logged_models, opened.models, opened.purges, LocalArtifactStore.at
    )


def new_run(stores: PurgedStores, name: str, experiment_id: str = "0") -> RunId:
    run_id = RunId(name)
    stores.runs.create_run(
        experiment_id, run_id=run_id, run_name=name, user_id="ann", start_time_ms=1
    )
    put(stores.runs.get_run(run_id).artifact_uri, "model/MLmodel", "model/data", "log")
    return run_id


def new_logged_model(stores: PurgedStores, model_id: str, experiment_id: str = "0") -> None:
    model = stores.logged_models.create_logged_model(
        experiment_id, model_id=model_id, name="m", source_run_id="maker"
    )
    put(model.artifact_uri, "MLmodel")
    stores.logged_models.finish_logged_model(model_id, LoggedModelStatus.READY)


def put(uri: str, *paths: str) -> None:
    for path in paths:
        file = Path(LocalArtifactStore.at(uri).root_uri.removeprefix("file://")) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("0123456789")


def register(
    stores: PurgedStores, source: str, status: VersionStatus | None = VersionStatus.READY
) -> int:
    if stores.models.search_models(Query(None)).items == ():
        stores.models.create_model(MODEL)
    version = stores.models.create_version(MODEL, source=source).version
    if status is not None:
        stores.models.finish_version(MODEL, version, status)
    return version


def files_below(root: Path) -> set[str]:
    return {str(it.relative_to(root)) for it in root.rglob("*") if it.is_file()}


def fates(lines: Sequence[Purged]) -> dict[str, str]:
    return {line.record_id: line.fate.value for line in lines}


def known_runs(stores: PurgedStores) -> list[str]:
    query = Query(None, view=View.ALL)
    return sorted(run.run_id for run in stores.runs.search_runs(["0", "1"], query).items)


def test_deleted_runs_go_with_their_files_and_others_stay(stores: PurgedStores, root: Path) -> None:
    new_run(stores, "used")
    gone = new_run(stores, "gone")
    stores.runs.log_batch(gone, params={"a": "1"}, tags={"b": "2"})
    stores.runs.delete_run(gone)
    [line] = purge(stores, EVER, is_dry=False)
    assert (line.kind, line.record_id, line.fate) == ("run", "gone", Fate.REMOVED)
    assert (line.n_rows, line.n_files, line.n_bytes) == (3, 3, 30)
    assert known_runs(stores) == ["used"]
    assert {path.split("/")[1] for path in files_below(root)} == {"used"}
    assert not (root / "0" / "gone").exists()
    assert purge(stores, EVER, is_dry=False) == []


def test_a_dry_run_tells_the_same_and_changes_nothing(stores: PurgedStores, root: Path) -> None:
    stores.runs.delete_run(new_run(stores, "gone"))
    before = files_below(root)
    [told] = purge(stores, EVER, is_dry=True)
    assert told.fate is Fate.TO_BE_REMOVED
    assert (files_below(root), known_runs(stores)) == (before, ["gone"])
    [done] = purge(stores, EVER, is_dry=False)
    assert replace(done, fate=told.fate) == told


def test_an_experiment_goes_last_with_all_that_it_held(stores: PurgedStores, root: Path) -> None:
    experiment_id = stores.runs.create_experiment(ExperimentName("flights")).experiment_id
    new_run(stores, "r", experiment_id)
    new_logged_model(stores, "m-1", experiment_id)
    stores.runs.delete_experiment(experiment_id)
    lines = purge(stores, EVER, is_dry=False)
    assert [(it.record_id, it.fate) for it in lines] == [
        ("r", Fate.REMOVED),
        ("m-1", Fate.REMOVED),
        (experiment_id, Fate.REMOVED),
    ]
    assert stores.runs.find_experiment(ExperimentName("flights")) is None
    assert files_below(root) == set()


@pytest.mark.parametrize(
    "source",
    ["runs:/held/model", "{root}/0/held/artifacts/model", "{root}/0/held", "{root}/0"],
)
@pytest.mark.parametrize("status", [VersionStatus.READY, None], ids=["ready", "pending"])
def test_files_of_a_version_stay_and_so_does_what_holds_them(
    stores: PurgedStores, root: Path, source: str, status: VersionStatus | None
) -> None:
    held = new_run(stores, "held")
    stores.runs.delete_run(held)
    register(stores, source.format(root=root.as_uri()), status)
    before = files_below(root)
    [line] = purge(stores, EVER, is_dry=False)
    assert (line.fate, line.detail) == (
        Fate.KEPT,
        "version 1 of model 'churn' has files there",
    )
    assert (files_below(root), known_runs(stores)) == (before, ["held"])


def test_a_version_that_failed_or_is_deleted_holds_nothing(stores: PurgedStores) -> None:
    stores.runs.delete_run(new_run(stores, "r"))
    register(stores, "runs:/r/model", VersionStatus.FAILED_REGISTRATION)
    stores.models.delete_version(MODEL, register(stores, "runs:/r/model"))
    assert fates(purge(stores, EVER, is_dry=False)) == {"r": "removed"}


@pytest.mark.parametrize("source", ["models:/m-1", "runs:/maker/m"])
def test_a_logged_model_that_is_registered_stays_with_its_experiment(
    stores: PurgedStores, source: str
) -> None:
    experiment_id = stores.runs.create_experiment(ExperimentName("flights")).experiment_id
    new_run(stores, "r", experiment_id)
    new_logged_model(stores, "m-1", experiment_id)
    register(stores, source)
    stores.runs.delete_experiment(experiment_id)
    lines = purge(stores, EVER, is_dry=False)
    assert fates(lines) == {"r": "removed", "m-1": "kept", experiment_id: "kept"}
    assert lines[-1].detail == "logged model m-1 stays"
    assert stores.logged_models.get_logged_model("m-1").model_id == "m-1"


def test_only_what_is_named_goes(stores: PurgedStores) -> None:
    for name in ("a", "b"):
        stores.runs.delete_run(new_run(stores, name))
    assert fates(purge(stores, Selection(2**62, run_ids=("a",)), is_dry=False)) == {"a": "removed"}
    for ids in ({"run_ids": ("a", "b")}, {"experiment_ids": ("0",)}, {"logged_model_ids": ("m",)}):
        with pytest.raises(UsageError, match="gc --dry-run"):
            purge(stores, Selection(2**62, **ids), is_dry=False)
    assert known_runs(stores) == ["b"]


def test_what_was_deleted_later_stays(stores: PurgedStores) -> None:
    stores.runs.delete_run(new_run(stores, "a"))
    [first] = purge(stores, EVER, is_dry=True)
    stores.runs.delete_run(new_run(stores, "b"))
    assert first.deletion_time_ms is not None
    lines = purge(stores, Selection(first.deletion_time_ms), is_dry=False)
    assert fates(lines) == {"a": "removed"}


class DyingStore:
    """A folder that ends the process with SIGKILL at the n-th thing that is removed from it."""

    def __init__(self, inner: LocalArtifactStore, die: Callable[[], None]) -> None:
        self._inner = inner
        self._die = die

    @property
    def root_uri(self) -> str:
        return self._inner.root_uri

    def put(self, local: Path, path: ArtifactPath) -> None:
        self._inner.put(local, path)

    def get(self, path: ArtifactPath, local: Path) -> Path:
        return self._inner.get(path, local)

    def list(self, path: ArtifactPath) -> Sequence[ArtifactInfo]:
        return self._inner.list(path)

    def delete(self, path: ArtifactPath) -> None:
        self._die()
        self._inner.delete(parse_artifact_path("artifacts/log"))
        self._die()
        self._inner.delete(path)
        self._die()


@pytest.mark.parametrize("n_steps", range(1, 7))
def test_after_a_kill_nothing_is_half_there_and_the_next_purge_finishes(
    stores: PurgedStores, root: Path, n_steps: int
) -> None:
    for name in ("a", "b"):
        stores.runs.delete_run(new_run(stores, name))
    child = os.fork()
    if child == 0:
        left = iter(range(n_steps - 1))

        def die() -> None:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        def open_at(uri: str) -> ArtifactStore:
            return DyingStore(LocalArtifactStore.at(uri), die)

        purge(replace(stores, open_at=open_at), EVER, is_dry=False)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    for name in known_runs(stores):
        assert len(files_below(root / "0" / name)) == 3
    told = purge(stores, EVER, is_dry=True)
    done = purge(stores, EVER, is_dry=False)
    assert {it.fate for it in done} == {Fate.REMOVED}
    assert [it.n_files for it in done] == [it.n_files for it in told]
    assert (files_below(root), known_runs(stores)) == (set(), [])
    assert purge(stores, EVER, is_dry=False) == []


class AwayStore(DyingStore):
    """A folder that cannot be removed."""

    def delete(self, path: ArtifactPath) -> None:
        raise StoreUnavailableError(f"{self.root_uri} is away at {path!r}")


def test_files_that_cannot_be_removed_are_told_and_left_for_the_next_purge(
    stores: PurgedStores, root: Path
) -> None:
    for name in ("a", "b"):
        stores.runs.delete_run(new_run(stores, name))

    def open_at(uri: str) -> ArtifactStore:
        inner = LocalArtifactStore.at(uri)
        return AwayStore(inner, lambda: None) if "/a" in inner.root_uri[-3:] else inner

    lines = purge(replace(stores, open_at=open_at), EVER, is_dry=False)
    assert fates(lines) == {"a": "failed", "b": "removed"}
    assert isinstance(lines[0].error, StoreUnavailableError)
    assert len(files_below(root)) == 3
    [line] = purge(stores, EVER, is_dry=False)
    assert (line.kind, line.record_id, line.fate) == ("files", "a", Fate.REMOVED)
    assert files_below(root) == set()


def test_a_version_registered_while_a_purge_runs_keeps_the_files(
    stores: PurgedStores, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = new_run(stores, "gone")
    source = f"{stores.runs.get_run(gone).artifact_uri}/model"
    stores.runs.delete_run(gone)
    before = files_below(root)
    purge_run = stores.runs.purge_run

    def registered_meanwhile(run_id: RunId) -> None:
        register(stores, source)
        purge_run(run_id)

    monkeypatch.setattr(stores.runs, "purge_run", registered_meanwhile)
    [line] = purge(stores, EVER, is_dry=False)
    assert line.fate is Fate.KEPT
    assert files_below(root) == before


def test_a_version_registered_between_two_purges_keeps_the_files_that_were_left(
    stores: PurgedStores, root: Path
) -> None:
    run = new_run(stores, "r")
    stores.runs.delete_run(run)
    place = stores.runs.get_run(run).artifact_uri
    stores.runs.purge_run(run)
    version = register(stores, f"{place}/model")
    [line] = purge(stores, EVER, is_dry=False)
    assert line.fate is Fate.KEPT
    assert len(files_below(root)) == 3
    stores.models.delete_version(MODEL, version)
    assert fates(purge(stores, EVER, is_dry=False)) == {"r": "removed"}
    assert files_below(root) == set()


def test_files_in_s3_go_and_those_of_a_version_stay_by_whatever_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    (tmp_path / "log").write_text("0123456789")
    with S3Server().running() as server:
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        root = f"s3://{server.new_bucket().bucket}/files"
        opened = open_sql(url, root, ticking_clock())
        stores = PurgedStores(
            opened.runs,
            opened.logged_models,
            opened.models,
            opened.purges,
            ObjectArtifactStore.at,
        )
        for run_id in map(RunId, ("gone", "gone-not", "held")):
            run = stores.runs.create_run(
                "0", run_id=run_id, run_name=run_id, user_id="ann", start_time_ms=1
            )
            files = ObjectArtifactStore.at(run.artifact_uri)
            files.put(tmp_path / "log", ArtifactPath("model/log"))
            if run_id != "gone-not":
                stores.runs.delete_run(run_id)
        register(stores, f"{root.replace('s3:', 's3a:')}/0/held/artifacts/model")
        lines = purge(stores, EVER, is_dry=False)
        left = [it.path for it in ObjectArtifactStore.at(root).list(ArtifactPath("0"))]
    assert fates(lines) == {"gone": "removed", "held": "kept"}
    assert [it.n_bytes for it in lines] == [10, 10]
    assert left == ["0/gone-not", "0/held"]
