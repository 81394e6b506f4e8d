"""How commands find records by what people type, and what they show of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import click

from sparkscore.cli.output import seconds_between, utc
from sparkscore.errors import RecordNotFoundError, UsageError, nearest, shown
from sparkscore.names import parse_experiment_name
from sparkscore.records import Experiment, Run
from sparkscore.search import View
from sparkscore.stores.base import RunStore

_VIEWS = {"active": View.ACTIVE_ONLY, "deleted": View.DELETED_ONLY, "all": View.ALL}
_SEARCH_OPTIONS = (
    click.option("--filter", "where", metavar="TEXT", help='Such as "metrics.auc > 0.9".'),
    click.option("--order-by", metavar="KEY [ASC|DESC]", multiple=True, help="May be repeated."),
    click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True),
    click.option(
        "--view",
        type=click.Choice(list(_VIEWS)),
        default="active",
        show_default=True,
        callback=lambda _ctx, _param, value: _VIEWS[value],
        help="Which stage of life.",
    ),
)

_Command = TypeVar("_Command", bound=Callable[..., object])


def search_options(command: _Command) -> _Command:
    """Give a command what a search takes, as `where`, `order_by`, `limit` and `view`."""
    for option in reversed(_SEARCH_OPTIONS):
        command = option(command)
    return command


def found_experiment(store: RunStore, text: str) -> Experiment:
    """The experiment of this name, or else of this id.

    Raises:
        RecordNotFoundError: There is neither; a near name is offered.
    """
    experiment = store.find_experiment(parse_experiment_name(text))
    if experiment is not None:
        return experiment
    try:
        return store.get_experiment(text)
    except (RecordNotFoundError, UsageError) as exc:
        known = [experiment.name for experiment in store.list_experiments()]
        raise RecordNotFoundError(
            f"there is no experiment {shown(text)}{nearest(text, known)}; "
            "`sparkscore experiments list` shows them"
        ) from exc


def tag_pairs(texts: Iterable[str]) -> dict[str, str]:
    """Tags that were given as KEY=VALUE.

    Raises:
        UsageError: One is not of that form.
    """
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"tag {shown(text)} is not of the form KEY=VALUE")
        pairs[key] = value
    return pairs


def experiment_row(experiment: Experiment) -> dict[str, object]:
    """What is shown of an experiment."""
    return {
        "experiment_id": experiment.experiment_id,
        "name": experiment.name,
        "created": utc(experiment.creation_time_ms),
        "artifact_location": experiment.artifact_location,
    }


def run_row(run: Run, experiment: str) -> dict[str, object]:
    """What is shown of a run of the experiment of this name."""
    return {
        "run_id": run.run_id,
        "run_name": run.run_name,
        "experiment": experiment,
        "status": run.status.value,
        "started": utc(run.start_time_ms),
        "duration_s": seconds_between(run.start_time_ms, run.end_time_ms),
    }
