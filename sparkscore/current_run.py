"""The run that this thread is in: started for a notebook or a script, and found by what logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from sparkscore.provenance import run_origin
from sparkscore.tracking import ActiveRun
from sparkscore.workspace import Workspace

_CURRENT: ContextVar[ActiveRun | None] = ContextVar("current_run", default=None)


@contextmanager
def start_run(
    name: str = "run",
    *,
    experiment: str | None = None,
    tags: Mapping[str, str] | None = None,
    run_id: str | None = None,
    workspace: Workspace | None = None,
) -> Iterator[ActiveRun]:
    """A run for the length of a `with` block: what logs in between logs to it.

    Inside of another such block it is that run's child (tag `mlflow.parentRunId`). It ends
    FINISHED, FAILED on an exception, and KILLED where it is interrupted; the exception goes on.

    Args:
        name: What the run is called; the start of its id is added, to tell reruns apart.
        experiment: Its experiment, created if it is new; None: setting `tracking.experiment`.
        tags: Further tags.
        run_id: A run to continue, or the id of a new one; None: a new id.
        workspace: Where runs are kept; None opens the one that settings name.

    Raises:
        ConfigError: The settings do not hold together.
        InvalidNameError: The experiment's name, the run id or a tag's key is not usable.
        InvalidStateError: The experiment is deleted.

    Example:
        >>> with sparkscore.start_run("churn") as run:
        ...     run.log_metric("auc", 0.93)
    """
    opened = workspace or Workspace.open()
    outer = active_run()
    parent = {} if outer is None else {"mlflow.parentRunId": outer.run_id}
    started = opened.tracking.start_run(
        name,
        experiment or opened.settings.tracking.experiment,
        origin=replace(run_origin(), source_type="LOCAL"),
        tags={**parent, **(tags or {})},
        run_id=run_id,
    )
    with started as run:
        token = _CURRENT.set(run)
        try:
            yield run
        finally:
            _CURRENT.reset(token)


def active_run() -> ActiveRun | None:
    """The run of the innermost `start_run` block around the caller, or None; a thread's own."""
    return _CURRENT.get()
