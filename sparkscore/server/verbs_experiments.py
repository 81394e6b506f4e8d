"""What the routes of experiments do."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from sparkscore.errors import RecordNotFoundError, UsageError, shown
from sparkscore.names import parse_experiment_name, parse_record_key
from sparkscore.search import EXPERIMENTS
from sparkscore.server.calls import Served, Verb
from sparkscore.server.queries import read_query
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import (
    Json,
    dataset_summary_to_json,
    experiment_to_json,
    page_to_json,
)


def create_experiment(served: Served, given: Given) -> Json:
    """A new experiment; a relative location is one below the server's working folder."""
    name = parse_experiment_name(given.text("name"))
    location = given.text("artifact_location")
    experiment = served.runs.create_experiment(
        name, _location(location) if location else None, given.pairs("tags")
    )
    return {"experiment_id": experiment.experiment_id}


def get_experiment(served: Served, given: Given) -> Json:
    """An experiment by its id, deleted or not."""
    found = served.runs.get_experiment(given.text("experiment_id"))
    return {"experiment": experiment_to_json(found)}


def get_experiment_by_name(served: Served, given: Given) -> Json:
    """An experiment by its name, deleted or not."""
    name = given.text("experiment_name")
    found = served.runs.find_experiment(parse_experiment_name(name))
    if found is None:
        raise RecordNotFoundError(f"there is no experiment with name {shown(name)}: create it")
    return {"experiment": experiment_to_json(found)}


def search_experiments(served: Served, given: Given) -> Json:
    """One page of experiments."""
    page = served.runs.search_experiments(read_query(given, EXPERIMENTS, default_limit=1000))
    return page_to_json("experiments", map(experiment_to_json, page.items), page.next_token)


def delete_experiment(served: Served, given: Given) -> Json:
    """Mark an experiment and its runs as deleted."""
    served.runs.delete_experiment(given.text("experiment_id"))
    return {}


def restore_experiment(served: Served, given: Given) -> Json:
    """Make an experiment and its runs active again."""
    served.runs.restore_experiment(given.text("experiment_id"))
    return {}


def update_experiment(served: Served, given: Given) -> Json:
    """Give an experiment another name."""
    name = given.text("new_name")
    if name:
        served.runs.rename_experiment(given.text("experiment_id"), parse_experiment_name(name))
    return {}


def set_experiment_tag(served: Served, given: Given) -> Json:
    """Set one tag."""
    tag = {parse_record_key(given.text("key"), "tag"): given.text("value")}
    served.runs.set_experiment_tags(given.text("experiment_id"), tag)
    return {}


def delete_experiment_tag(served: Served, given: Given) -> Json:
    """Remove one tag."""
    served.runs.delete_experiment_tag(given.text("experiment_id"), given.text("key"))
    return {}


def search_datasets(served: Served, given: Given) -> Json:
    """Which datasets the runs of some experiments used."""
    found = served.runs.search_datasets(given.texts("experiment_ids"))
    summaries = [dataset_summary_to_json(experiment_id, used) for experiment_id, used in found]
    return page_to_json("dataset_summaries", summaries, None)


def _location(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.fragment or parts.query:
        raise UsageError(
            f"artifact location {shown(uri)} has a query or a fragment: give a plain URI"
        )
    if parts.scheme:
        return uri
    return Path(uri).absolute().as_uri()


VERBS: dict[str, Verb] = {
    "create_experiment": create_experiment,
    "get_experiment": get_experiment,
    "get_experiment_by_name": get_experiment_by_name,
    "search_experiments": search_experiments,
    "delete_experiment": delete_experiment,
    "restore_experiment": restore_experiment,
    "update_experiment": update_experiment,
    "set_experiment_tag": set_experiment_tag,
    "delete_experiment_tag": delete_experiment_tag,
    "search_datasets": search_datasets,
}
