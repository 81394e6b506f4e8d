"""What the workers of one job are told: its models on their way to the nodes, and how to score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from sparkscore.package.signing import with_signatures
from sparkscore.scoring.batch import BatchLimits, BatchTask
from sparkscore.scoring.panel import ModelsAs
from sparkscore.scoring.plan import model_record
from sparkscore.scoring.rejects import InvalidRows, RejectBudget
from sparkscore.spark.panel import (
    Answerer,
    ChallengerTask,
    EnsembleTask,
    MemberTask,
    PanelTask,
    RoutesTask,
    SplitTask,
)
from sparkscore.spark.shipping import ship, ship_environment
from sparkscore.spark.worker import PackedPackage, ScoringTask

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkscore.environments.build import BuiltEnvironment
    from sparkscore.flavors.base import TreeRuntime
    from sparkscore.package.trust import TrustPolicy
    from sparkscore.scoring.facts import ModelFacts
    from sparkscore.scoring.panel import Member, Panel
    from sparkscore.scoring.plan import ScoringPlan
    from sparkscore.spark.node_cache import NodeLimits


@dataclass(frozen=True)
class WorkerRules:
    """How workers load and ask models, whichever these are; see the engines' attributes."""

    trust: TrustPolicy
    limits: BatchLimits
    tree_runtime: TreeRuntime
    node_limits: NodeLimits
    broadcast_max_bytes: int
    environment: BuiltEnvironment | None = None
    packed: Mapping[str, PackedPackage] = field(default_factory=dict)


def shipped_task(spark: SparkSession, plan: ScoringPlan, rules: WorkerRules) -> ScoringTask:
    """Send a plan's packages to the nodes, each once, and say what is to be done with them."""
    if plan.panel is not None:
        return _panel_task(spark, plan, plan.panel, rules)
    model = plan.model
    task = scoring_task(plan, _packed(spark, model, rules), rules)
    if rules.environment is not None:
        task = replace(task, environment=ship_environment(spark, rules.environment))
    return task


def scoring_task(plan: ScoringPlan, packed: PackedPackage, rules: WorkerRules) -> ScoringTask:
    """What the workers are told of a plan for one model whose package is on its way."""
    return ScoringTask(
        digest=plan.model.digest,
        packed=packed,
        trust=with_signatures(rules.trust, plan.model.folder),
        batch=BatchTask(
            model=plan.model.label,
            bindings=plan.bindings,
            predictions=plan.predictions,
            on_invalid=plan.request.on_invalid,
            params=plan.params,
            nan=plan.request.on_nan,
            max_rejects=plan.request.max_rejects.max_rows,
        ),
        limits=rules.limits,
        tree_runtime=rules.tree_runtime,
        node_limits=rules.node_limits,
        predict=plan.model.predict,
    )


def _panel_task(
    spark: SparkSession, plan: ScoringPlan, panel: Panel, rules: WorkerRules
) -> PanelTask:
    on_invalid = plan.request.on_invalid
    packed: dict[str, PackedPackage] = {}

    def task_of(member: Member, policy: InvalidRows, budget: RejectBudget) -> ScoringTask:
        model = member.model
        if model.digest not in packed:
            packed[model.digest] = _packed(spark, model, rules)
        own = replace(
            plan,
            model=model,
            bindings=member.bindings,
            predictions=model.predictions,
            params=member.params,
            request=replace(plan.request, on_invalid=policy, max_rejects=budget),
            panel=None,
        )
        return scoring_task(own, packed[model.digest], rules)

    budget = plan.request.max_rejects
    members = tuple(
        MemberTask(one.label, task_of(one, on_invalid, budget)) for one in panel.members
    )
    first = members[0].task
    answers = replace(
        first.batch, model=plan.model.label, bindings=plan.bindings, predictions=panel.answers
    )
    own = {f.name: getattr(first, f.name) for f in fields(ScoringTask)}
    return PanelTask(
        **own | {"batch": answers},
        head=_head(panel, members, on_invalid),
        challengers=tuple(
            ChallengerTask(one.label, _tried_once(task_of(one, InvalidRows.NULL, RejectBudget())))
            for one in panel.challengers
        ),
        compares=panel.spec.models_as is ModelsAs.APART,
    )


def _packed(spark: SparkSession, model: ModelFacts, rules: WorkerRules) -> PackedPackage:
    sent = rules.packed.get(model.digest)
    return sent or ship(spark, model.folder, model.digest, rules.broadcast_max_bytes)


def _tried_once(task: ScoringTask) -> ScoringTask:
    """Which rows a challenger fails on is not worth further calls."""
    return replace(task, batch=replace(task.batch, bisects=False))


def _head(panel: Panel, members: tuple[MemberTask, ...], on_invalid: InvalidRows) -> Answerer:
    spec = panel.spec
    if spec.combine is not None:
        return EnsembleTask(members, spec.combine, spec.weights)
    record = tuple(tuple(model_record(one.model).values()) for one in panel.members)
    if spec.split is not None:
        canary = ChallengerTask(members[1].label, _tried_once(members[1].task))
        return SplitTask(members, record, panel.head_answers, spec.split, canary)
    routing = spec.routing
    if routing is None:
        return members[0]
    return RoutesTask(
        members=members,
        column=routing.column,
        places=routing.places,
        default=routing.default,
        fails=on_invalid is InvalidRows.FAIL and not routing.leaves_out,
        record=record,
        answers=panel.head_answers,
    )
