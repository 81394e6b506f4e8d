"""Which model the next batch of a stream is scored with: an alias is watched while batches run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from sparkscore.direct import LoadedModel, load_model
from sparkscore.environments.remote import load_apart
from sparkscore.errors import (
    BatchDeadlineError,
    ModelNotFoundError,
    PackageDigestError,
    TemporaryError,
    WorkerCrashError,
)
from sparkscore.flavors.load import flavor_of
from sparkscore.flavors.registered import SPARK
from sparkscore.names import AliasRef, LatestRef, parse_model_uri
from sparkscore.package import open_package
from sparkscore.package.environment import read_example
from sparkscore.scoring.facts import input_columns
from sparkscore.scoring.streams import BatchModel

if TYPE_CHECKING:
    from types import TracebackType

    from sparkscore.scoring.facts import InputColumn
    from sparkscore.scoring.plan import ScoringPlan
    from sparkscore.spark.worker import PackedPackage
    from sparkscore.workspace import Workspace

_END_S = 5.0
_MAX_FAILED = 3
"""Batches on end: one may be the fault of its rows."""


@dataclass(frozen=True)
class ServingModel:
    """A model that batches can be scored with: planned, tried, and sent to the nodes."""

    plan: ScoringPlan
    packed: PackedPackage

    @property
    def batch_model(self) -> BatchModel:
        """How a batch remembers it."""
        return BatchModel(self.plan.model.uri, self.plan.model.digest)


class ModelWatch:
    """Looks, in a thread of its own, whether a URI has come to mean another version.

    A version that is new is planned, loaded and tried, on the input example that it brings, while
    batches go on with the one before; so a swap costs a batch nothing. One that does not fit, or
    that crashes or hangs, is told of once, and the one before stays.

    Args:
        workspace: Where the registry is.
        uri: What the stream was asked to score with.
        first: The model that it means now.
        serve: Plans a pinned URI for the stream's source and target, and sends it to the nodes.
        every_s: Seconds between two looks.
        announce: Told in one line of each swap, and of each version that is refused.
        what: What the model does, for these lines.
    """

    def __init__(
        self,
        workspace: Workspace,
        uri: str,
        first: ServingModel,
        serve: Callable[[str], ServingModel],
        every_s: float,
        announce: Callable[[str], None],
        what: str = "scores",
    ) -> None:
        self._workspace = workspace
        self._ref = parse_model_uri(uri)
        self._serve = serve
        self._every_s = every_s
        self._announce = announce
        self._what = what
        self._current = first
        self._refused: str | None = None
        self._is_away = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="sparkscore-models", daemon=True)

    @property
    def current(self) -> ServingModel:
        """The newest model that may be used."""
        return self._current

    def of(self, model: BatchModel) -> ServingModel:
        """The model that a batch was begun with before.

        Raises:
            PackageDigestError: What lies at its place is another package now.
            SparkscoreError: It is gone, or cannot be used any more.
        """
        if self._current.batch_model == model:
            return self._current
        served = self._serve(model.uri)
        if served.batch_model != model:
            raise PackageDigestError(
                f"a batch was begun with model {model.uri!r} of digest {model.digest}, which is "
                f"{served.batch_model.digest} now; put the former package back there, or let the "
                "stream start over (--start-over, with an empty --checkpoint)"
            )
        return served

    def __enter__(self) -> Self:
        if isinstance(self._ref, AliasRef | LatestRef):  # Others mean one package for ever.
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_END_S)

    def _look(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._look_once()
                self._is_away = False
            except TemporaryError as exc:
                if not self._is_away:
                    self._announce(f"the registry is away, so the model stays: {exc}")
                self._is_away = True
            except Exception as exc:  # noqa: BLE001 - a thread's edge: it must look again
                self._announce(f"the model stays: {exc}")

    def _look_once(self) -> None:
        assert isinstance(self._ref, AliasRef | LatestRef)
        version = self._workspace.registry.current(self._ref)
        uri = f"models:/{version.name}/{version.version}"
        if uri in (self._current.plan.model.uri, self._refused):
            return
        try:
            fresh = self._serve(uri)
            try_model(self._workspace, fresh.plan)
        except TemporaryError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever its libraries raise, it is not used
            self._refused = uri
            self._announce(f"the model stays, and {uri} is refused: {exc}")
            return
        self._current = fresh
        self._announce(f"from the next batch on, {fresh.plan.model.label} {self._what}")


class TrialWatch(ModelWatch):
    """Watches the alias of a canary or a shadow, which may be taken away.

    While the alias is gone, there is no such model. A version that has failed in several batches
    on end is put off: it is used no more until the alias names another, or the stream is restarted.
    """

    _is_gone = False
    _n_failed = 0
    _put_off: BatchModel | None = None

    @property
    def present(self) -> ServingModel | None:
        """The newest model that may be used; None: its alias is gone, or it was put off."""
        current = self.current
        return None if self._is_gone or current.batch_model == self._put_off else current

    def went(self, model: BatchModel, failure: str | None) -> None:
        """Take note of a batch: why its model failed in it; None: it did not."""
        if failure is None or model != self.current.batch_model:
            self._n_failed = 0
            return
        self._n_failed += 1
        if self._n_failed >= _MAX_FAILED:
            self.put_off(model, f"it has failed in {_MAX_FAILED} batches on end: {failure}")
        elif self._n_failed == 1:
            self._announce(f"{model.uri}, which {self._what}, has failed in a batch: {failure}")

    def put_off(self, model: BatchModel, why: str) -> None:
        """Use a version no more."""
        self._put_off, self._n_failed = model, 0
        self._announce(
            f"{model.uri}, which {self._what}, is put off until its alias names another version, "
            f"or the stream is started again: {why}"
        )

    def _look_once(self) -> None:
        try:
            super()._look_once()
        except ModelNotFoundError as exc:
            if not self._is_gone:
                self._is_gone = True
                self._announce(f"from the next batch on, nobody {self._what}: {exc}")
            return
        if self._is_gone:
            self._is_gone = False
            label = self.current.plan.model.label
            self._announce(f"from the next batch on, {label} {self._what} again")


def try_model(workspace: Workspace, plan: ScoringPlan) -> None:
    """Load a plan's model, and ask it on the input example that it brings, if any.

    That happens in a process of its own, since a model that crashes or hangs would end the stream;
    but a pipeline of Spark ML is the session's.

    Raises:
        SparkscoreError: It cannot be loaded, or refuses its own example.
    """
    model = plan.model
    package = open_package(model.folder)
    if flavor_of(package) == SPARK:
        loaded = load_model(model.uri, predict=model.predict, workspace=workspace)
    else:
        limits = workspace.batch_limits
        predictor = load_apart(
            package,
            workspace.trust,
            workspace.tree_runtime,
            model.predict,
            deadline_s=limits.deadline_s,
        )
        loaded = LoadedModel(model, predictor, limits)
    example = read_example(package)
    if example is None or not all(map(_is_plain, input_columns(model).values())):
        return
    try:
        loaded.predict(example, plan.params)
    except (WorkerCrashError, BatchDeadlineError) as exc:
        raise type(exc)(f"model {model.label}, asked on its own input example: {exc}") from exc


def _is_plain(column: InputColumn) -> bool:
    """Whether values in JSON are those that the model is given; times and bytes are texts there."""
    types, kind = pa.types, column.type
    return bool(
        types.is_floating(kind)
        or types.is_integer(kind)
        or types.is_boolean(kind)
        or types.is_string(kind)
    )
