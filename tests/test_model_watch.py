"""A stream's model follows its alias, and only to versions that can take its place."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from sparkscore import Workspace, infer_signature, save_model
from sparkscore.errors import (
    PackageDigestError,
    PredictionError,
    SignatureMismatchError,
    StoreUnavailableError,
)
from sparkscore.model_watch import ModelWatch, ServingModel, TrialWatch, try_model
from sparkscore.names import parse_alias, parse_model_name
from sparkscore.registry import Registry
from sparkscore.scoring.canary import Split
from sparkscore.scoring.facts import SourceColumn, SourceTable
from sparkscore.scoring.plan import ScoringPlan, ScoringRequest, plan_scoring
from sparkscore.scoring.streams import BatchModel
from sparkscore.stream_models import StreamModels

_WAIT_S = 60
"""A version is tried in a process that imports the model's libraries, on machines that are busy."""
_URI = "models:/pump@champion"


@dataclass
class World:
    """A registry with models that double x, some of which refuse to, and a watch's plans."""

    folder: Path
    workspace: Workspace
    said: list[str] = field(default_factory=list)
    served: list[str] = field(default_factory=list)

    def register(self, column: str = "x", fault: Callable[[], object] | None = None) -> str:
        """A version under the alias, which has a fault once it is packaged; its digest."""
        flag = self.folder / "faulty"

        class Line:  # Local, so that it is pickled by value.
            def predict(self, context: object, model_input: pd.DataFrame) -> object:  # noqa: ARG002
                if fault is not None and flag.exists():
                    fault()
                return model_input[column].to_numpy() * 2

        flag.unlink(missing_ok=True)
        package = self.folder / f"package-{time.monotonic_ns()}"
        example = pd.DataFrame({column: [0.5, 1.5]})
        outputs = pd.DataFrame({"prediction": [1.0, 3.0]})
        signature = infer_signature(example, outputs)
        save_model(
            Line(), package, flavor="python_function", signature=signature, input_example=example
        )
        flag.touch()
        name, alias = parse_model_name("pump"), parse_alias("champion")
        return self.workspace.registry.register(package, name, alias=alias).digest

    def plan(self, uri: str) -> ScoringPlan:
        """A plan over a table that has a column x."""
        model = self.workspace.model(uri)
        columns = (
            SourceColumn("x", pa.float64(), "double"),
            SourceColumn("line", pa.string(), "string"),
        )
        return plan_scoring(
            model, SourceTable("/rows", "delta", "", columns), ScoringRequest("job", "/scores")
        )

    def serve(self, uri: str) -> ServingModel:
        """A model as the watch is given it."""
        self.served.append(uri)
        return ServingModel(self.plan(uri), packed=None)  # type: ignore[arg-type]  # no Spark here

    def set_alias(self, alias: str, version: int) -> None:
        """Move an alias."""
        self.workspace.registry.set_alias(parse_model_name("pump"), parse_alias(alias), version)

    def canary(self) -> TrialWatch:
        """A watch of the challenger that looks often."""
        uri = "models:/pump@challenger"
        first = self.serve(uri)
        return TrialWatch(self.workspace, uri, first, self.serve, 0.05, self.said.append)

    def watch(self, uri: str = _URI) -> ModelWatch:
        """A watch that looks often."""
        first = self.serve(uri)
        return ModelWatch(self.workspace, uri, first, self.serve, 0.05, self.said.append)

    def await_that(self, is_so: Callable[[], bool]) -> None:
        """Wait for the watch's thread."""
        deadline = time.monotonic() + _WAIT_S
        while not is_so():
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> World:
    """A world; its parameter are further settings."""
    overrides = {
        "tracking.uri": f"sqlite:///{tmp_path}/store.db",
        "artifacts.uri": str(tmp_path / "artifacts"),
        "cache.folder": str(tmp_path / "cache"),
        "trust.allow_code": True,
    }
    return World(tmp_path, Workspace.open(overrides=overrides | getattr(request, "param", {})))


def is_picky() -> object:
    """A fault of a model that raises."""
    raise ValueError("no row is good enough")


def test_new_version_takes_over_and_moving_the_alias_back_is_the_rollback(world: World) -> None:
    first = world.register()
    with world.watch() as watch:
        assert watch.current.batch_model == BatchModel("models:/pump/1", first)
        second = world.register()
        world.await_that(lambda: watch.current.batch_model.digest == second)
        assert world.said == ["from the next batch on, 'pump' version 2 scores"]
        world.workspace.registry.set_alias(parse_model_name("pump"), parse_alias("champion"), 1)
        world.await_that(lambda: watch.current.batch_model.digest == first)


def test_version_that_reads_other_columns_is_refused_once(world: World) -> None:
    first = world.register()
    with world.watch() as watch:
        world.register("z")
        world.await_that(lambda: bool(world.said))
        n_served = len(world.served)
        time.sleep(0.3)  # Several looks: that nothing happens in them is what is tested.
        assert len(world.served) == n_served
        assert watch.current.batch_model.digest == first
    assert len(world.said) == 1
    assert "the model stays" in world.said[0]


def test_version_that_fails_its_own_example_is_refused(world: World) -> None:
    first = world.register()
    with world.watch() as watch:
        world.register(fault=is_picky)
        world.await_that(lambda: bool(world.said))
        assert "no row is good enough" in world.said[0]
        assert watch.current.batch_model.digest == first
        last = world.register()
        world.await_that(lambda: watch.current.batch_model.digest == last)


@pytest.mark.parametrize(
    ("world", "fault", "told"),
    [
        ({}, lambda: os._exit(3), "ended with code 3"),
        ({}, lambda: ctypes.string_at(0), "ended with code -11"),
        ({"scoring.batch_deadline_s": 15}, lambda: time.sleep(999), "did not answer in 15 s"),
    ],
    indirect=["world"],
    ids=["leaves", "crashes", "hangs"],
)
def test_version_that_would_end_its_process_is_refused_and_the_stream_goes_on(
    world: World, fault: Callable[[], object], told: str
) -> None:
    first = world.register()
    with world.watch() as watch:
        world.register(fault=fault)
        world.await_that(lambda: bool(world.said))
        assert "model 'pump' version 2, asked on its own input example: the model" in world.said[0]
        assert told in world.said[0]
        assert "models:/pump/2 is refused" in world.said[0]
        assert watch.current.batch_model.digest == first


def test_model_is_tried_before_a_stream_begins(world: World) -> None:
    world.register(fault=is_picky)
    with pytest.raises(PredictionError, match="no row is good enough"):
        try_model(world.workspace, world.plan(_URI))


def test_store_that_is_away_is_told_of_once_and_looked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.register()

    def away(*_: object) -> object:
        raise StoreUnavailableError("nobody answers")

    with world.watch() as watch:
        with monkeypatch.context() as patch:
            patch.setattr(Registry, "current", away)
            world.await_that(lambda: bool(world.said))
            time.sleep(0.3)  # Several looks, of which only the first is told.
        assert len(world.said) == 1
        second = world.register()
        world.await_that(lambda: watch.current.batch_model.digest == second)


def test_batch_of_before_gets_the_model_of_before(world: World) -> None:
    first = world.register()
    world.register()
    watch = world.watch()
    n_served = len(world.served)
    assert watch.of(watch.current.batch_model) is watch.current
    assert len(world.served) == n_served
    before = watch.of(BatchModel("models:/pump/1", first))
    assert before.plan.model.digest == first


def test_batch_that_was_begun_with_another_package_is_refused(world: World) -> None:
    world.register()
    watch = world.watch()
    with pytest.raises(PackageDigestError, match="was begun with model"):
        watch.of(BatchModel("models:/pump/1", "other"))


def test_uri_of_one_version_is_not_watched(world: World) -> None:
    first = world.register()
    with world.watch("models:/pump/1") as watch:
        world.register()
        time.sleep(0.3)  # Nothing looks, so nothing can be waited for.
        assert watch.current.batch_model.digest == first


def test_of_a_version_that_does_not_fit_is_an_error(world: World) -> None:
    first = world.register()
    world.register("z")
    world.workspace.registry.set_alias(parse_model_name("pump"), parse_alias("champion"), 1)
    watch = world.watch()
    assert watch.current.batch_model.digest == first
    with pytest.raises(SignatureMismatchError):
        watch.of(BatchModel("models:/pump/2", "other"))


def models_of(world: World, share: str | None = "5%") -> StreamModels:
    """The models of a stream with a canary."""
    overrides: dict[str, object] = {
        "model": _URI,
        "source.uri": "/rows",
        "target.uri": "/scores",
        "key": ["x"],
    }
    if share is not None:
        overrides["stream.canary.model"] = "models:/pump@challenger"
        overrides["stream.canary.share"] = share
        overrides |= {"stream.canary.by": ["line"], "stream.watch_s": 1}
    job = world.workspace.job(None, overrides).values
    return StreamModels(
        world.workspace, job, world.serve(_URI), world.serve, world.serve, world.said.append
    )


def test_two_models_score_until_the_challengers_alias_is_the_champions_version(
    world: World,
) -> None:
    world.register()
    second = world.register()
    world.set_alias("challenger", 2)
    world.set_alias("champion", 1)
    with models_of(world) as models:
        both = models.current
        assert models.current is both
        assert both.batch_models.canary == BatchModel("models:/pump/2", second)
        assert both.batch_models.split == Split(("line",), 0.05)
        assert both.plan.panel is not None
        assert set(both.packed) == {model.digest for model in both.facts}
        world.set_alias("challenger", 1)
        world.await_that(lambda: models.current.canary is None)
        assert models.current.plan.panel is None
        again = models.of(both.batch_models)
        assert again.batch_models == both.batch_models
        assert again.plan.identity == both.plan.identity
    without = models_of(world, None)
    assert without.of(both.batch_models).plan.identity == both.plan.identity


def is_absent(watch: TrialWatch) -> bool:
    """Whether nobody scores."""
    return watch.present is None


def test_canary_is_gone_while_its_alias_is(world: World) -> None:
    world.register()
    world.set_alias("challenger", 1)
    name, alias = parse_model_name("pump"), parse_alias("challenger")
    with world.canary() as watch:
        assert watch.present is watch.current
        world.workspace.models.delete_alias(name, alias)
        world.await_that(lambda: watch.present is None)
        world.set_alias("challenger", 1)
        world.await_that(lambda: watch.present is not None)
    assert len(world.said) == 2
    assert "from the next batch on, nobody scores" in world.said[0]
    assert world.said[1] == "from the next batch on, 'pump' version 1 scores again"


def test_canary_that_fails_again_and_again_is_put_off_until_there_is_another(
    world: World,
) -> None:
    world.register()
    world.set_alias("challenger", 1)
    watch = world.canary()
    for failure in ("bad rows", None, "bad rows", "bad rows"):
        watch.went(watch.current.batch_model, failure)
    assert watch.present is not None
    watch.went(watch.current.batch_model, "worse rows")
    assert is_absent(watch)
    assert "3 batches on end" in world.said[-1]
    assert "worse rows" in world.said[-1]
    second = world.register()
    world.set_alias("challenger", 2)
    with watch:
        world.await_that(lambda: not is_absent(watch))
        assert watch.current.batch_model.digest == second
