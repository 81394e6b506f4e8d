"""Planning a batch job: pin the model, open the source, choose the engine; no table is changed."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from sparkscore.environments.remote import load_remotely
from sparkscore.errors import (
    ConfigError,
    EngineUnfitError,
    EnvironmentMismatchError,
    SourceError,
    SparkscoreError,
)
from sparkscore.flavors import load_predictor
from sparkscore.flavors.load import flavor_of
from sparkscore.flavors.registered import SPARK
from sparkscore.job_models import asked_models
from sparkscore.names import kafka_topic, parse_run_key
from sparkscore.package import open_package
from sparkscore.scoring.checks import Checks
from sparkscore.scoring.duplicates import Duplicates, key_rule
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.features import (
    Features,
    Join,
    Missing,
    State,
    Watermark,
    Window,
    duration_s,
)
from sparkscore.scoring.history import HistoryColumn
from sparkscore.scoring.incremental import Deletes, SinceLast, check_since_last, last_mark
from sparkscore.scoring.outcome import Outcome
from sparkscore.scoring.panel import PanelSpec, plan_panel
from sparkscore.scoring.plan import ScoringPlan, ScoringRequest, WriteMode, plan_scoring
from sparkscore.scoring.rejects import InvalidRows, NanAnswers, RejectBudget
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from sparkscore.conf import JobSettings
    from sparkscore.conf.features import StateSettings, WatermarkSettings, WindowSettings
    from sparkscore.environments.build import BuiltEnvironment
    from sparkscore.files.sink import FilesSink
    from sparkscore.scoring.engine import Crossing
    from sparkscore.scoring.facts import ModelFacts, SourceTable
    from sparkscore.spark.delta import DeltaSink
    from sparkscore.spark.engine import SparkEngine
    from sparkscore.spark.files_engine import FilesEngine

Announce = Callable[[str], None]

_WHY_FILES = "auto: Python reads and writes the files itself, so that no row crosses the JVM"
_WHY_PIPELINE = "Spark itself applies pipelines of Spark ML"
_INFERRED = ("csv", "json")


@dataclass(frozen=True)
class PreparedJob:
    """A job whose model is pinned, whose source is open and whose plan is made."""

    plan: ScoringPlan
    engine: SparkEngine | FilesEngine
    sink: DeltaSink | FilesSink
    engine_reason: str
    crossing: Crossing
    environment: BuiltEnvironment | None
    run: Callable[[RunFacts], Outcome]
    seconds: Mapping[str, float]
    nothing_new: bool = False


def prepare(
    workspace: Workspace, job: JobSettings, run_key: str | None, announce: Announce
) -> PreparedJob:
    """Pin the model, open the source and plan; no table is changed.

    Args:
        workspace: What the settings name.
        job: The job with all flags applied.
        run_key: Name of the logical run; None derives one from the inputs.
        announce: Told each step in one line.

    Raises:
        SparkscoreError: The model, the source or their fit is refused.
    """
    if kafka_topic(job.source.uri) is not None:
        raise SourceError(
            f"source {job.source.uri!r} is a topic, which has no end; score it as a stream: "
            "sparkscore score stream, with --trigger available-now for what is there now"
        )
    if run_key is not None:
        parse_run_key(run_key)
    if job.since_last:
        check_since_last(WriteMode(job.mode), Deletes(job.deletes), run_key)
    started = time.perf_counter()
    announce(f"Resolving {_asked_text(job)}")
    asked = asked_models(workspace, job)
    models = asked.models if isinstance(asked, PanelSpec) else (asked,)
    resolved = time.perf_counter()
    announce("Opening Spark")
    workspace.spark  # noqa: B018 - opened here, so that its time is told from the plan's
    opened = time.perf_counter()
    environment = None
    if job.env_manager == "virtualenv":
        from sparkscore.spark.shipping import check_takes_environments

        check_takes_environments(workspace.spark)  # Building one takes minutes.
        environment = workspace.environment(models[0])
    else:
        check_environment(workspace, models, announce)
    prepared = _planned(workspace, job, asked, run_key, environment)
    planned = time.perf_counter()
    table = prepared.plan.source
    who = prepared.plan.model.label
    several = f", {len(models)} models in all," if len(models) > 1 else ""
    announce(f"Planned {who}{several} over {table.uri} version {table.version}")
    if job.source.ddl is None and table.format in _INFERRED:
        announce(
            "Spark read all rows once to infer their types; on large input save that by "
            f"--source-schema {shlex.quote(_ddl(table))}"
        )
    seconds = {
        "resolve": resolved - started,
        "open_spark": opened - resolved,
        "plan": planned - opened,
    }
    return replace(prepared, seconds=seconds)


def runtime_facts(prepared: PreparedJob) -> dict[str, object]:
    """Who would score the model on this machine, and why; the model is loaded to find out."""
    package = open_package(prepared.plan.model.folder)
    engine, built = prepared.engine, prepared.environment
    predict = prepared.plan.model.predict
    try:
        if built is None:
            loaded = load_predictor(package, engine.trust, engine.tree_runtime, predict)
        else:
            loaded = load_remotely(
                built.python, built.source, package, engine.trust, engine.tree_runtime, predict
            )
    except SparkscoreError as exc:
        return {"name": "unknown", "reason": f"the model cannot be loaded here: {exc}"}
    return {"name": loaded.runtime.name, "reason": loaded.runtime.reason}


def _planned(
    workspace: Workspace,
    job: JobSettings,
    asked: ModelFacts | PanelSpec,
    run_key: str | None,
    environment: BuiltEnvironment | None,
) -> PreparedJob:
    """The job planned for the engine that is asked for, or for the fastest that can do it."""
    wanted = job.engine or workspace.settings.scoring.engine
    if isinstance(asked, PanelSpec):
        _check_scores_panels(wanted)
    elif flavor_of(open_package(asked.folder)) == SPARK:
        return _planned_for_pipeline(workspace, job, asked, run_key, environment)
    reason = "asked for by name"
    if wanted in ("auto", "files"):
        try:
            prepared = _planned_for_files(workspace, job, asked, run_key, environment)
        except EngineUnfitError as exc:
            if wanted == "files":
                raise
            wanted, reason = "arrow", f"auto: not the files engine, since {exc.reason}"
        else:
            return prepared if wanted == "files" else replace(prepared, engine_reason=_WHY_FILES)
    return _planned_for_spark(workspace, job, asked, run_key, environment, wanted, reason)


def _check_scores_panels(engine: str) -> None:
    if engine == "pandas":
        raise EngineUnfitError(
            "Spark takes structs from pandas row by row, and several models answer with structs",
            "pandas",
            "take --engine arrow, or auto",
        )


def _plan(
    asked: ModelFacts | PanelSpec, source: SourceTable, request: ScoringRequest
) -> ScoringPlan:
    if isinstance(asked, PanelSpec):
        return plan_panel(asked, source, request)
    return plan_scoring(asked, source, request)


def _asked_text(job: JobSettings) -> str:
    """The models of a job in a few words."""
    n_routes, n_members = len(job.routes.models), len(job.ensemble.members)
    head = job.model or (f"{n_members} members" if n_members else f"{n_routes} routes")
    return f"{head} and {len(job.challengers)} challengers" if job.challengers else head


def check_environment(
    workspace: Workspace, models: Sequence[ModelFacts], announce: Announce
) -> None:
    """Tell of workers whose libraries are not those of the package, or refuse them.

    Raises:
        EnvironmentMismatchError: There are such, and the settings do not admit that.
    """
    policy = workspace.settings.scoring.environment_check
    if policy == "off":
        return
    found = workspace.environment_mismatches(models)
    lines = [f"\n  {mismatch}" for mismatch in found]
    if not lines:
        return
    who = f"model {models[0].label} was" if len(models) == 1 else f"{len(models)} models were"
    text = f"{who} made with other libraries than its workers have:"
    if policy == "fail":
        raise EnvironmentMismatchError(
            f"{text}{''.join(lines)}\nInstall those, score in an environment of the model's own "
            "(--env-manager virtualenv), or set scoring.environment_check=warn"
        )
    announce(text + "".join(lines))


def _planned_for_files(
    workspace: Workspace,
    job: JobSettings,
    asked: ModelFacts | PanelSpec,
    run_key: str | None,
    environment: BuiltEnvironment | None,
) -> PreparedJob:
    engine = replace(workspace.files_engine, environment=environment)
    sink = workspace.files_sink(job.target.uri)
    source = engine.open(source_spec(job, since_last(job, sink)))
    plan = _plan(asked, source.table, scoring_request(workspace, job, run_key, sink.uri))
    engine.refuse_unfit(plan, source, sink)
    run = partial(engine.run, plan, source, sink)
    crossing = engine.crossing(plan, source, sink)
    return PreparedJob(
        plan, engine, sink, "asked for by name", crossing, environment, run, {}, source.nothing_new
    )


def _planned_for_spark(
    workspace: Workspace,
    job: JobSettings,
    asked: ModelFacts | PanelSpec,
    run_key: str | None,
    environment: BuiltEnvironment | None,
    name: str,
    reason: str,
) -> PreparedJob:
    workspace.check_clients((job.source.uri, job.target.uri), reason)
    engine = replace(workspace.spark_engine(name), environment=environment)
    sink = workspace.delta_sink(job.target.uri)
    source = engine.open(source_spec(job, since_last(job, sink)))
    plan = _plan(asked, source.table, scoring_request(workspace, job, run_key, sink.uri))
    run = partial(engine.run, plan, source, sink)
    crossing = engine.crossing(plan, source, sink)
    return PreparedJob(
        plan, engine, sink, reason, crossing, environment, run, {}, source.nothing_new
    )


def _planned_for_pipeline(
    workspace: Workspace,
    job: JobSettings,
    asked: ModelFacts | PanelSpec,
    run_key: str | None,
    environment: BuiltEnvironment | None,
) -> PreparedJob:
    """The job planned for Spark itself, whatever engine the settings prefer for other models.

    Raises:
        EngineUnfitError: The job asks for Python workers, or for an environment of theirs.
    """
    if job.engine not in (None, "auto"):
        raise EngineUnfitError(_WHY_PIPELINE, job.engine, "take --engine auto")
    if environment is not None:
        raise EngineUnfitError(_WHY_PIPELINE, "spark", "take --env-manager local")
    workspace.check_clients((job.source.uri, job.target.uri), _WHY_PIPELINE)
    engine, sink = workspace.pipeline_engine, workspace.delta_sink(job.target.uri)
    source = engine.open(source_spec(job, since_last(job, sink)))
    plan = _plan(asked, source.table, scoring_request(workspace, job, run_key, sink.uri))
    run = partial(engine.run, plan, source, sink)
    crossing = engine.crossing(plan, source, sink)
    return PreparedJob(
        plan, engine, sink, f"auto: {_WHY_PIPELINE}", crossing, None, run, {}, source.nothing_new
    )


def since_last(job: JobSettings, sink: DeltaSink | FilesSink) -> SinceLast | None:
    """Where a job that scores what is new begins; None: it scores all rows."""
    if not job.since_last:
        return None
    mark = last_mark(sink.history(), job.name, sink.uri)
    return SinceLast(mark, Deletes(job.deletes), job.key)


def source_spec(job: JobSettings, since: SinceLast | None = None) -> SourceSpec:
    """What a job reads."""
    return SourceSpec(
        job.source.uri,
        job.source.format,
        job.source.version,
        job.where,
        options=job.source.options,
        schema=job.source.ddl,
        since=since,
        key_rule=key_rule(_duplicates(job), job.key, job.order_by, WriteMode(job.mode)),
        features=features_of(job),
    )


def features_of(job: JobSettings) -> Features:
    """What a job computes from rows before they are scored.

    Raises:
        ConfigError: Parts of it are missing, do not parse, or do not go together.
    """
    asked = job.features
    features = Features(
        function=asked.function,
        watermark=_watermark(asked.watermark),
        window=_window(asked.window),
        state=_state(asked.state),
        joins=tuple(
            Join(j.table, j.by, j.columns, Missing(j.missing), j.version) for j in asked.joins
        ),
    )
    if job.since_last and features.in_query:
        raise ConfigError(
            "since_last reads only what is new, so that features.window, state and function would "
            "know nothing of the rows before; leave one of them out, or score a stream"
        )
    return features


def _watermark(asked: WatermarkSettings) -> Watermark | None:
    if asked.column is not None:
        return Watermark(asked.column, asked.delay)
    if asked != type(asked)():
        raise ConfigError("features.watermark needs `column`, the timestamp of a row")
    return None


def _window(asked: WindowSettings) -> Window | None:
    if asked.length is not None:
        return Window(asked.length, asked.slide, asked.by, asked.columns)
    if asked != type(asked)():
        raise ConfigError("features.window needs `length`, such as '10 minutes'")
    return None


def _state(asked: StateSettings) -> State | None:
    if asked == type(asked)():
        return None
    columns = {
        name: HistoryColumn.parse(text, f"features.state.columns.{name}")
        for name, text in asked.columns.items()
    }
    forget_after_s = duration_s(asked.forget_after, "features.state.forget_after")
    return State(asked.by, forget_after_s, columns)


def _duplicates(job: JobSettings) -> Duplicates | None:
    return None if job.duplicates is None else Duplicates(job.duplicates)


def _ddl(table: SourceTable) -> str:
    """The columns of a source as a schema is given."""
    names = ("`" + column.name.replace("`", "``") + "`" for column in table.columns)
    types = (column.type_name for column in table.columns)
    return ", ".join(f"{name} {kind}" for name, kind in zip(names, types, strict=True))


def scoring_request(
    workspace: Workspace, job: JobSettings, run_key: str | None, target: str
) -> ScoringRequest:
    """What a job asks for, before it is compared with model and source."""
    scoring = workspace.settings.scoring
    of_partition = job.max_partition_rejects or scoring.max_partition_rejects
    return ScoringRequest(
        job=job.name,
        target=target,
        run_key=run_key,
        keys=job.key,
        keep=job.keep,
        columns=job.columns,
        params=job.params,
        mode=WriteMode(job.mode),
        replace_where=job.replace_where,
        partition_by=job.partition_by,
        duplicates=_duplicates(job),
        order_by=job.order_by,
        checks=Checks(**job.checks.model_dump()),
        accept_checks=job.accept_checks,
        on_invalid=InvalidRows(job.on_invalid or scoring.on_invalid),
        on_nan=NanAnswers(job.on_nan or scoring.on_nan),
        rejects=job.rejects,
        max_rejects=RejectBudget.parse(job.max_rejects or scoring.max_rejects, "max_rejects"),
        max_partition_rejects=(
            RejectBudget.parse(of_partition, "max_partition_rejects")
            if of_partition
            else RejectBudget()
        ),
    )
