"""Which models score the next batch of a stream: champion, canary for its share, and shadow."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

from sparkscore.errors import ConfigError, SparkscoreError, shown
from sparkscore.model_watch import ModelWatch, ServingModel, TrialWatch, try_model
from sparkscore.names import are_one_place
from sparkscore.scoring.canary import Split, parse_share
from sparkscore.scoring.panel import (
    SPLIT_LABELS,
    Challenger,
    ModelsAs,
    PanelSpec,
    plan_panel,
)
from sparkscore.scoring.plan import table_beside
from sparkscore.scoring.shadow import SHADOW_LABEL, Shadow
from sparkscore.scoring.streams import BatchModel, BatchModels, plan_of_batch

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
        shadow: Scores all rows into a table of its own; None: there is none.
    """

    champion: ServingModel
    canary: ServingModel | None = None
    split: Split | None = None
    shadow: ServingModel | None = None

    @property
    def batch_models(self) -> BatchModels:
        """How a batch remembers them."""
        canary, shadow = self.canary, self.shadow
        return BatchModels(
            self.champion.batch_model,
            None if canary is None else canary.batch_model,
            None if canary is None else self.split,
            None if shadow is None else shadow.batch_model,
        )

    @property
    def facts(self) -> list[ModelFacts]:
        """What is known of each, the champion first."""
        return [one.plan.model for one in self._all]

    @property
    def packed(self) -> Mapping[str, PackedPackage]:
        """Their packages on the nodes, by digest."""
        return {one.plan.model.digest: one.packed for one in self._all}

    @cached_property
    def plan(self) -> ScoringPlan:
        """One plan over all of them.

        Raises:
            SparkscoreError: They do not fit one table.
        """
        plan = self.champion.plan
        if self.canary is None and self.shadow is None:
            return plan
        members = [plan.model] if self.canary is None else [plan.model, self.canary.plan.model]
        split = None if self.canary is None else self.split
        beside = () if self.shadow is None else (Challenger(self.shadow.plan.model, SHADOW_LABEL),)
        spec = PanelSpec(tuple(members), beside, ModelsAs.APART, split=split)
        return plan_panel(spec, plan.source, plan.request)

    def plan_of(self, stream_id: str, batch: int, joined: str) -> ScoringPlan:
        """The plan of a batch of a stream; see `scoring.streams.plan_of_batch`.

        Raises:
            SparkscoreError: The models do not fit one table.
        """
        plan = plan_of_batch(self.plan, stream_id, batch, joined)
        if self.shadow is None:
            return plan
        shadow = Shadow(plan_of_batch(self.shadow.plan, stream_id, batch, joined))
        return replace(plan, shadow=shadow)

    @property
    def _all(self) -> list[ServingModel]:
        return [one for one in (self.champion, self.canary, self.shadow) if one is not None]


class StreamModels:
    """Follows the aliases of a stream's models, each in a thread of its own.

    Args:
        workspace: Where the registry is.
        job: The stream's; names its models.
        first: The champion as it is now.
        serve: Plans a pinned URI for the stream's source and target, and sends it to the nodes.
        serve_shadow: The same for the shadow's target.
        announce: Told in one line of each swap.

    Raises:
        ConfigError: What the job says of its canary does not go together, or not with the source.
        SparkscoreError: There is no such canary or shadow, or it cannot score this source into its
            table.
    """

    def __init__(
        self,
        workspace: Workspace,
        job: JobSettings,
        first: ServingModel,
        serve: Callable[[str], ServingModel],
        serve_shadow: Callable[[str], ServingModel],
        announce: Callable[[str], None],
    ) -> None:
        watch_s = job.stream.watch_s
        assert job.model is not None
        self._champion = ModelWatch(workspace, job.model, first, serve, watch_s, announce)
        self._split = split_of(job)
        self._announce = announce

        def tried(
            uri: str | None, serve: Callable[[str], ServingModel], what: str
        ) -> TrialWatch | None:
            if uri is None:
                return None
            model = serve(uri)
            try_model(workspace, model.plan)
            return TrialWatch(workspace, uri, model, serve, watch_s, announce, what)

        by = () if self._split is None else self._split.columns
        share = f"scores the canary's {job.stream.canary.share} of {', '.join(by)}"
        self._canary = tried(job.stream.canary.model, serve, share)
        self._shadow = tried(job.stream.shadow.model, serve_shadow, "scores in the shadow")
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
        canary = None
        if models.canary is not None:
            canary = (self._canary or self._champion).of(models.canary)
        return ServedModels(champion, canary, models.split, self._shadow_of(models.shadow))

    def batch(self, models: BatchModels, outcome: Outcome) -> None:
        """Take note of how a batch went: a canary or shadow that fails on end is put off."""
        counts = outcome.models
        trials = (
            (self._canary, models.canary, SPLIT_LABELS[1], None),
            (self._shadow, models.shadow, SHADOW_LABEL, outcome.shadow_failure),
        )
        for watch, model, label, failure in trials:
            if watch is not None and model is not None and label in counts:
                watch.went(model, counts[label].failure or failure)

    def put_off_shadow(self, model: ServingModel, why: str) -> None:
        """Use a shadow no more that may have ended a worker."""
        if self._shadow is not None:
            self._shadow.put_off(model.batch_model, why)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._champion)
            for watch in (self._canary, self._shadow):
                if watch is not None:
                    stack.enter_context(watch)
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
        if canary is not None and canary.plan.model.digest == champion.plan.model.digest:
            canary = None
        shadow = None if self._shadow is None else self._shadow.present
        return ServedModels(champion, canary, self._split, shadow)

    def _shadow_of(self, model: BatchModel | None) -> ServingModel | None:
        """The shadow that a batch was begun with, if it can still be had: it harms nothing."""
        if model is None or self._shadow is None:
            return None
        try:
            return self._shadow.of(model)
        except SparkscoreError as exc:
            self._announce(f"a batch goes on without its shadow: {exc}")
            return None


def shadow_job(job: JobSettings) -> JobSettings | None:
    """What it would be to score with a stream's shadow alone; None: it has none.

    Raises:
        ConfigError: The shadow's table is named, but no model, or it is the scores' own.
    """
    shadow = job.stream.shadow
    if shadow.model is None:
        if shadow.target is not None:
            raise ConfigError(
                "stream.shadow.target (--shadow-target) names a table, but no model scores into "
                "it; give one with --shadow, or leave the table out"
            )
        return None
    uri = shadow.target or table_beside(job.target.uri, "shadow")
    if are_one_place(uri, job.target.uri):
        raise ConfigError(
            f"stream.shadow.target (--shadow-target) is the score table itself, {shown(uri)}; name "
            "another table: what the shadow scores is not published"
        )
    alone = {"mode": "append", "on_invalid": "null", "rejects": None}
    return job.model_copy(update={**alone, "target": job.target.model_copy(update={"uri": uri})})


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


def trial_params(job: JobSettings, models: ServedModels) -> dict[str, str]:
    """What a run says of a canary and a shadow."""
    params: dict[str, str] = {}
    split, canary, shadow = split_of(job), job.stream.canary, models.shadow
    if split is not None:
        params |= {"canary_uri": str(canary.model), "canary_share": str(canary.share)}
        params["canary_where"] = split.sql
    if shadow is not None:
        params |= {
            "shadow_uri": str(job.stream.shadow.model),
            "shadow_target": shadow.plan.request.target,
        }
    return params
