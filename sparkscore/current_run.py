"""The run that this thread is in: started for a notebook or a script, and found by what logs."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace

from sparkscore.errors import InvalidStateError, SparkscoreError, UsageError
from sparkscore.names import parse_experiment_name
from sparkscore.provenance import run_origin
from sparkscore.records import Experiment, LifecycleStage, RunStatus
from sparkscore.stores.experiments import find_or_create_experiment
from sparkscore.system_metrics import SystemMetrics
from sparkscore.tracking import ActiveRun
from sparkscore.workspace import Workspace, choose, default_workspace

_LOGGER = logging.getLogger(__name__)
_PARENT_TAG = "mlflow.parentRunId"
_NOTE_TAG = "mlflow.note.content"


class _Runs(threading.local):
    """The runs that a thread is in, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[ActiveRun] = []


class _Process:
    """What is shared by all threads, and not by a forked child."""

    def __init__(self) -> None:
        self.pid = 0
        self.open_runs: list[ActiveRun] = []
        self.continued: set[str] = set()


_RUNS = _Runs()
_PROCESS = _Process()
_LOCK = threading.Lock()


def set_tracking_uri(uri: str | None) -> None:
    """Keep runs and models there from now on; None: where the settings say.

    Args:
        uri: `sqlite:///FILE`, `postgresql://HOST/DATABASE`, or a server's `http://HOST:PORT`.

    Example:
        >>> sparkscore.set_tracking_uri("http://127.0.0.1:5000")
    """
    if uri is None:
        choose({}, forget=["tracking.uri"])
    else:
        choose({"tracking.uri": uri})


def get_tracking_uri() -> str:
    """Where runs are kept; with no password in it.

    Raises:
        ConfigError: The settings do not hold together.
    """
    shown = {line.key: line.value for line in default_workspace().resolved.described()}
    return str(shown["tracking.uri"])


def set_experiment(name: str | None = None, *, experiment_id: str | None = None) -> Experiment:
    """The experiment that runs belong to from now on, created if its name is new.

    Args:
        name: Its name.
        experiment_id: Its id, in the place of a name.

    Raises:
        InvalidStateError: It is deleted.
        UsageError: Neither or both are given.
        RecordNotFoundError: There is no experiment of this id.
        StoreUnavailableError: The store did not answer.
    """
    runs = default_workspace().outbox
    if name is not None and experiment_id is None:
        experiment = find_or_create_experiment(runs, parse_experiment_name(name))
    elif name is None and experiment_id is not None:
        experiment = runs.get_experiment(experiment_id)
    else:
        raise UsageError("give set_experiment a name, or experiment_id=, and not both")
    if experiment.lifecycle_stage is LifecycleStage.DELETED:
        raise InvalidStateError(
            f"experiment {experiment.name!r} is deleted: restore it, or choose another name"
        )
    # By its name, which means the same in another store; an id of the environment gives way.
    choose({"tracking.experiment": experiment.name, "tracking.experiment_id": None})
    return experiment


def start_run(
    name: str = "run",
    *,
    experiment: str | None = None,
    experiment_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    description: str | None = None,
    run_id: str | None = None,
    nested: bool = True,
    log_system_metrics: bool | None = None,
    workspace: Workspace | None = None,
) -> ActiveRun:
    """A run that this thread is in from now on: until a `with` block ends it, or `end_run`.

    Inside of another run it is that run's child (tag `mlflow.parentRunId`). A `with` block ends it
    FINISHED, FAILED on an exception, and KILLED where it is interrupted; the exception goes on.
    Without one it ends with the process.

    Args:
        name: What the run is called; the start of its id is added, to tell reruns apart.
        experiment: Its experiment, created if it is new; None: setting `tracking.experiment`.
        experiment_id: In the place of a name; None: setting `tracking.experiment_id`.
        tags: Further tags.
        description: What the run is for; shown with it.
        run_id: A run to continue, or the id of a new one; None: setting `tracking.run_id` for the
            first run of a process, as MLflow's launchers ask for, else a new id.
        nested: False refuses a run inside of another one.
        log_system_metrics: Measure this machine while the run goes on; None: setting
            `tracking.system_metrics`.
        workspace: Where runs are kept; None opens the one that settings name.

    Raises:
        ConfigError: The settings do not hold together.
        InvalidNameError: The experiment's name, the run id or a tag's key is not usable.
        InvalidStateError: The experiment is deleted, or a run is active and `nested` is False.

    Example:
        >>> with sparkscore.start_run("churn") as run:
        ...     run.log_metric("auc", 0.93)
    """
    outer = active_run()
    if outer is not None and not nested:
        raise InvalidStateError(
            f"run {outer.run_id!r} is active in this thread: end it by end_run(), or let the new "
            "one be its child by nested=True"
        )
    opened = workspace or default_workspace()
    settings = opened.settings.tracking
    own: dict[str, str] = {} if outer is None else {_PARENT_TAG: outer.run_id}
    if description is not None:
        own[_NOTE_TAG] = description
    is_named = experiment is not None or experiment_id is not None
    run = opened.tracking.start_run(
        name,
        experiment or settings.experiment,
        experiment_id=experiment_id if is_named else settings.experiment_id,
        origin=replace(run_origin(), source_type="LOCAL"),
        tags={**own, **(tags or {})},
        run_id=run_id or (_launched(settings.run_id) if outer is None else None),
    )
    if settings.system_metrics if log_system_metrics is None else log_system_metrics:
        _measure(run, settings.system_metrics_interval_s)
    _enter(run)
    return run


def end_run(status: str | RunStatus = RunStatus.FINISHED) -> None:
    """End the innermost run of this thread; nothing happens outside of any.

    Args:
        status: `FINISHED`, `FAILED` or `KILLED`.

    Raises:
        UsageError: The status is none.
        SparkscoreError: The store refused what was logged in the background.
    """
    run = active_run()
    if run is None:
        return
    try:
        ended = RunStatus(status)
    except ValueError as exc:
        raise UsageError(
            f"a run does not end as {status!r}: give FINISHED, FAILED or KILLED"
        ) from exc
    run.end(ended)


def active_run() -> ActiveRun | None:
    """The innermost run that the calling thread has started and not ended, or None."""
    return _RUNS.stack[-1] if _RUNS.stack else None


def _launched(run_id: str | None) -> str | None:
    """The run that a launcher made for this process, once."""
    with _LOCK:
        if run_id is None or run_id in _PROCESS.continued:
            return None
        _PROCESS.continued.add(run_id)
        return run_id


def _measure(run: ActiveRun, interval_s: float) -> None:
    metrics = SystemMetrics(
        lambda values, step: run.log_metrics(values, step=step, synchronous=False), interval_s
    )
    metrics.start()
    run.at_end(metrics.stop)


def _enter(run: ActiveRun) -> None:
    stack = _RUNS.stack
    stack.append(run)
    with _LOCK:
        if _PROCESS.pid != os.getpid():
            _PROCESS.pid, _PROCESS.open_runs = os.getpid(), []
            atexit.register(_end_all)
        _PROCESS.open_runs.append(run)
    run.at_end(lambda: _leave(run, stack))


def _leave(run: ActiveRun, stack: list[ActiveRun]) -> None:
    if run in stack:
        stack.remove(run)
    with _LOCK:
        if run in _PROCESS.open_runs:
            _PROCESS.open_runs.remove(run)


def _end_all() -> None:
    """End what is still open when the process ends."""
    if _PROCESS.pid != os.getpid():
        return
    # Python leaves an error there that nobody caught.
    has_failed = getattr(sys, "last_value", None) is not None
    for run in reversed(list(_PROCESS.open_runs)):
        try:
            run.end(RunStatus.FAILED if has_failed else RunStatus.FINISHED)
        except SparkscoreError as exc:
            _LOGGER.warning("run %s: %s", run.run_name, exc)
