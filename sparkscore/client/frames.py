"""Searches for notebooks: runs as the rows of a frame, experiments as a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from sparkscore.client.found import query_of
from sparkscore.errors import RecordNotFoundError, UsageError, shown
from sparkscore.names import parse_experiment_name, parse_run_id
from sparkscore.records import Experiment, Run
from sparkscore.search import EXPERIMENTS, RUNS, Page, Query, View
from sparkscore.stores.base import RunStore
from sparkscore.workspace import Workspace, default_workspace

if TYPE_CHECKING:
    import pandas as pd

_Item = TypeVar("_Item")

_PAGE = 1000
_ALL = 100_000
_INFO = ("run_id", "experiment_id", "status", "artifact_uri", "start_time", "end_time")


def search_runs(
    experiment_ids: Sequence[str] | None = None,
    filter_string: str = "",
    run_view_type: str = View.ACTIVE_ONLY,
    max_results: int = _ALL,
    order_by: Sequence[str] | None = None,
    *,
    experiment_names: Sequence[str] | None = None,
    search_all_experiments: bool = False,
    workspace: Workspace | None = None,
) -> pd.DataFrame:
    """Runs that fit, a row each; without an order newest start first.

    Columns are `run_id`, `experiment_id`, `status`, `artifact_uri`, `start_time`, `end_time` (UTC),
    then `metrics.*` (latest values), `params.*` and `tags.*`; empty where a run has none.

    Args:
        experiment_ids: Experiments by id; without these and names, the one that settings name.
        filter_string: Such as `metrics.auc > 0.9 and params.depth = "6"`.
        run_view_type: `ACTIVE_ONLY`, `DELETED_ONLY` or `ALL`.
        max_results: Most rows.
        order_by: Such as `["metrics.auc DESC"]`.
        experiment_names: Experiments by name.
        search_all_experiments: Look into every one.
        workspace: Where runs are kept; None opens the one that settings name.

    Raises:
        UsageError: The filter or an order does not parse.
        RecordNotFoundError: There is no experiment of a name.
        StoreUnavailableError: The store did not answer.

    Example:
        >>> best = sparkscore.search_runs(order_by=["metrics.auc DESC"], max_results=5)
    """
    opened = workspace or default_workspace()
    query = query_of(RUNS, filter_string, order_by, max_results, view=run_view_type)
    ids = _experiment_ids(opened, experiment_ids, experiment_names, search_all_experiments)
    return _frame(_all(lambda asked: opened.runs.search_runs(ids, asked), query))


def search_experiments(
    view_type: str = View.ACTIVE_ONLY,
    max_results: int = _ALL,
    filter_string: str | None = None,
    order_by: Sequence[str] | None = None,
    *,
    workspace: Workspace | None = None,
) -> list[Experiment]:
    """Experiments that fit; without an order newest first.

    Raises:
        UsageError: The filter or an order does not parse.
        StoreUnavailableError: The store did not answer.
    """
    opened = workspace or default_workspace()
    query = query_of(EXPERIMENTS, filter_string, order_by, max_results, view=view_type)
    return _all(opened.runs.search_experiments, query)


def get_run(run_id: str, *, workspace: Workspace | None = None) -> Run:
    """A run with its params, tags and latest metrics.

    Raises:
        InvalidNameError: The id is not usable.
        RecordNotFoundError: There is no such run.
        StoreUnavailableError: The store did not answer.
    """
    return (workspace or default_workspace()).runs.get_run(parse_run_id(run_id))


def _experiment_ids(
    opened: Workspace,
    ids: Sequence[str] | None,
    names: Sequence[str] | None,
    is_all: bool,
) -> list[str]:
    n_ways = sum((ids is not None, names is not None, is_all))
    if n_ways > 1:
        raise UsageError(
            "give one of experiment_ids, experiment_names and search_all_experiments to search_runs"
        )
    if ids is not None:
        return list(ids)
    if is_all:
        query = Query(view=View.ALL, limit=_ALL)
        return [found.experiment_id for found in _all(opened.runs.search_experiments, query)]
    settings = opened.settings.tracking
    if names is None and settings.experiment_id is not None:
        return [settings.experiment_id]
    return [_id_of(opened.runs, name) for name in names or [settings.experiment]]


def _id_of(runs: RunStore, name: str) -> str:
    found = runs.find_experiment(parse_experiment_name(name))
    if found is None:
        raise RecordNotFoundError(
            f"there is no experiment {shown(name)}; `sparkscore experiments list` shows them"
        )
    return found.experiment_id


def _all(search: Callable[[Query], Page[_Item]], query: Query) -> list[_Item]:
    found: list[_Item] = []
    asked = replace(query, limit=min(query.limit, _PAGE))
    while True:
        page = search(asked)
        found += page.items
        left = query.limit - len(found)
        if page.next_token is None or left <= 0:
            return found
        asked = replace(asked, limit=min(left, _PAGE), token=page.next_token)


def _frame(runs: Sequence[Run]) -> pd.DataFrame:
    import pandas as pd

    rows = [_row(run) for run in runs]
    kinds = ("metrics.", "params.", "tags.")
    further = sorted({name for row in rows for name in row if name.startswith(kinds)})
    frame = pd.DataFrame(rows, columns=[*_INFO, *further])
    for name in ("start_time", "end_time"):
        frame[name] = pd.to_datetime(frame[name], unit="ms", utc=True)
    return frame


def _row(run: Run) -> dict[str, object]:
    row: dict[str, object] = {
        "run_id": run.run_id,
        "experiment_id": run.experiment_id,
        "status": run.status.value,
        "artifact_uri": run.artifact_uri,
        "start_time": run.start_time_ms,
        "end_time": run.end_time_ms,
    }
    row |= {f"metrics.{key}": point.value for key, point in run.metrics.items()}
    row |= {f"params.{key}": value for key, value in run.params.items()}
    return row | {f"tags.{key}": value for key, value in run.tags.items()}
