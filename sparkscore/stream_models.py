"""Which models score the next batch of a stream: the champion, and a canary for its share."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from sparkscore.errors import ConfigError
from sparkscore.model_watch import CanaryWatch, ModelWatch, ServingModel, try_model
from sparkscore.scoring.canary import Split, parse_share
from sparkscore.scoring.panel import SPLIT_LABELS, PanelSpec, plan_panel
from sparkscore.scoring.streams import BatchModel, BatchModels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from sparkscore.conf import JobSettings
    from sparkscore.scoring.facts import ModelFacts
    from sparkscore.scoring.outcome import Outcome
    from sparkscore.scoring.plan import ScoringPlan
    from sparkscore.spark.worker import PackedPackage
    from sparkscore.workspace import Workspace


@dataclass(frozen=True)
class ServedModels:
    """The models of a batch, planned and on the nodes.

    Attributes:
        canary: Scores the share of `split`; None: the champion scores all rows.
    """

    champion: ServingModel
    canary: ServingModel | None = None
    split: Split | None = None

    @property
    def batch_models(self) -> BatchModels:
        """How a batch remembers them."""
        if self.canary is None:
            return BatchModels(self.champion.batch_model)
        return BatchModels(self.champion.batch_model, self.canary.batch_model, self.split)

    @property
    def facts(self) -> list[ModelFacts]:
        """What is known of each."""
        both = (self.champion, self.canary)
        return [one.plan.model for one in both if one is not None]

    @property
    def packed(self) -> Mapping[str, PackedPackage]:
        """Their packages on the nodes, by digest."""
        both = (self.champion, self.canary)
        return {one.plan.model.digest: one.packed for one in both if one is not None}

    @cached_property
    def plan(self) -> ScoringPlan:
        """One plan over all of them.

        Raises:
            SparkscoreError: They do not fit one table.
        """
        plan = self.champion.plan
        if self.canary is None:
            return plan
        models = (plan.model, self.canary.plan.model)
        return plan_panel(PanelSpec(models, split=self.split), plan.source, plan.request)


class StreamModels:
    """Follows the aliases of a stream's models, each in a thread of its own.

    Args:
        workspace: Where the registry is.
        job: The stream's; names its models.
        first: The champion as it is now.
        serve: Plans a pinned URI for the stream's source and target, and sends it to the nodes.
        announce: Told in one line of each swap.

    Raises:
        ConfigError: What the job says of its canary does not go together, or not with the source.
        SparkscoreError: There is no such canary, or it cannot score this source into this table.
    """

    def __init__(
        self,
        workspace: Workspace,
        job: JobSettings,
        first: ServingModel,
        serve: Callable[[str], ServingModel],
        announce: Callable[[str], None],
    ) -> None:
        watch_s = job.stream.watch_s
        assert job.model is not None
        self._champion = ModelWatch(workspace, job.model, first, serve, watch_s, announce)
        self._split = split_of(job)
        self._canary: CanaryWatch | None = None
        uri = job.stream.canary.model
        if self._split is not None and uri is not None:
            canary = serve(uri)
            try_model(workspace, canary.plan)
            by = ", ".join(self._split.columns)
            what = f"scores the canary's {job.stream.canary.share} of {by}"
            self._canary = CanaryWatch(workspace, uri, canary, serve, watch_s, announce, what)
        self._last = self._served()
        self._last.plan  # noqa: B018 - planned here, so that what does not fit is refused at once

    @property
    def current(self) -> ServedModels:
        """The newest models that may be used."""
        served = self._served()
        if served.batch_models != self._last.batch_models:
            self._last = served
        return self._last

    def of(self, models: BatchModels) -> ServedModels:
        """The models that a batch was begun with before.

        Raises:
            PackageDigestError: What lies at the place of one is another package now.
            SparkscoreError: One is gone, or cannot be used any more.
        """
        if self._last.batch_models == models:
            return self._last
        champion = self._champion.of(models.champion)
        if models.canary is None:
            return ServedModels(champion)
        return ServedModels(champion, self._canary_of(models.canary), models.split)

    def batch(self, outcome: Outcome) -> None:
        """Take note of how a batch went: a canary that fails again and again is put off."""
        counts = outcome.models.get(SPLIT_LABELS[1])
        if counts is not None and self._canary is not None:
            self._canary.went(counts.failure)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._champion)
            if self._canary is not None:
                stack.enter_context(self._canary)
            self._threads = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.close()

    def _served(self) -> ServedModels:
        champion = self._champion.current
        canary = None if self._canary is None else self._canary.present
        if canary is None or canary.plan.model.digest == champion.plan.model.digest:
            return ServedModels(champion)
        return ServedModels(champion, canary, self._split)

    def _canary_of(self, model: BatchModel) -> ServingModel:
        return (self._canary or self._champion).of(model)


def split_of(job: JobSettings) -> Split | None:
    """Which entities a stream's canary scores; None: it has no canary.

    Raises:
        ConfigError: Model, share or columns are missing, or say nothing.
    """
    canary = job.stream.canary
    if canary.model is None and canary.share is None and not canary.by:
        return None
    if canary.model is None or canary.share is None:
        raise ConfigError(
            "a canary is a model and its share, and the job names only one of them; give both, "
            "such as --canary models:/pump@challenger=5% (stream.canary.model and .share)"
        )
    by = canary.by or (job.key if len(job.key) == 1 else ())
    if not by:
        raise ConfigError(
            "a canary scores a share of entities, and the job does not say what one is; name the "
            "columns that do, such as --canary-by sensor (stream.canary.by)"
        )
    return Split(by, parse_share(canary.share))
