"""What the routes of metrics' histories do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparkscore.errors import RecordNotFoundError, UsageError
from sparkscore.names import RunId, parse_run_id
from sparkscore.records import Metric
from sparkscore.server.calls import Served, Verb
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import Json, metric_to_json, page_to_json

_MAX_PAGE = 50_000
_MAX_BULK = 25_000
_DEFAULT_SAMPLE = 2500


def get_metric_history(served: Served, given: Given) -> Json:
    """All points of a metric, or one page of them where its size is given."""
    run_id, key = parse_run_id(given.text("run_id")), given.text("metric_key")
    limit, token = given.whole_or_none("max_results"), given.text("page_token") or None
    if limit is None and token is None:
        points = served.runs.metric_history(run_id, key)
        return page_to_json("metrics", map(metric_to_json, points), None)
    page = served.runs.metric_history_page(
        run_id, key, limit=min(limit or _MAX_PAGE, _MAX_PAGE), token=token
    )
    return page_to_json("metrics", map(metric_to_json, page.items), page.next_token)


def get_metric_history_bulk(served: Served, given: Given) -> Json:
    """The points of a metric of several runs, run by run."""
    limit = min(given.whole("max_results", _MAX_BULK), _MAX_BULK)
    points: list[Json] = []
    for run_id, history in _histories(served, given.texts("run_id"), given.text("metric_key")):
        points += [metric_to_json(point, run_id) for point in history[: limit - len(points)]]
        if len(points) >= limit:
            break
    return page_to_json("metrics", points, None)


def get_metric_history_bulk_interval(served: Served, given: Given) -> Json:
    """The points of several runs at so many steps of an interval, evenly taken.

    The first and the last step of each run are always among them.
    """
    low, high = _interval(given)
    histories = [
        (run_id, [point for point in history if low <= point.step <= high])
        for run_id, history in _histories(served, given.texts("run_ids"), given.text("metric_key"))
    ]
    steps = sorted({point.step for _, history in histories for point in history})
    taken = set(_evenly(steps, given.whole("max_results", _DEFAULT_SAMPLE)))
    for _, history in histories:
        taken.update(point.step for point in (*history[:1], *history[-1:]))
    points = [
        metric_to_json(point, run_id)
        for run_id, history in histories
        for point in history
        if point.step in taken
    ]
    return page_to_json("metrics", points, None)


def _histories(
    served: Served, run_ids: Sequence[str], key: str
) -> Iterator[tuple[RunId, Sequence[Metric]]]:
    for run_id in sorted({parse_run_id(text) for text in run_ids}):
        try:
            yield run_id, served.runs.metric_history(run_id, key)
        except RecordNotFoundError:
            # A chart of many runs shall not fail over one that was purged meanwhile.
            continue


def _interval(given: Given) -> tuple[int, int]:
    low, high = given.whole_or_none("start_step"), given.whole_or_none("end_step")
    if (low is None) != (high is None):
        raise UsageError("If either start step or end step are specified, both must be specified.")
    if low is None or high is None:
        return -(2**63), 2**63 - 1
    if low > high:
        raise UsageError(f"end_step ({high}) must be greater than start_step ({low})")
    return low, high


def _evenly(steps: Sequence[int], n_wanted: int) -> list[int]:
    if len(steps) <= n_wanted:
        return list(steps)
    return [steps[place * len(steps) // n_wanted] for place in range(n_wanted)]


VERBS: dict[str, Verb] = {
    "get_metric_history": get_metric_history,
    "get_metric_history_bulk": get_metric_history_bulk,
    "get_metric_history_bulk_interval": get_metric_history_bulk_interval,
}
