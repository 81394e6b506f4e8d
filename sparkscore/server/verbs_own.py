"""What the routes do that MLflow's protocol has not: to remove records for good, and no files."""

from __future__ import annotations

from sparkscore.names import parse_run_id
from sparkscore.server.calls import Served, Verb
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import Json


def purge_experiment(served: Served, given: Given) -> Json:
    """Remove a deleted experiment with all its runs and logged models."""
    served.runs.purge_experiment(given.text("experiment_id"))
    return {}


def purge_run(served: Served, given: Given) -> Json:
    """Remove a deleted run."""
    served.runs.purge_run(parse_run_id(given.text("run_id")))
    return {}


def purge_logged_model(served: Served, given: Given) -> Json:
    """Remove a deleted logged model."""
    served.logged_models.purge_logged_model(given.text("model_id"))
    return {}


VERBS: dict[str, Verb] = {
    "purge_experiment": purge_experiment,
    "purge_run": purge_run,
    "purge_logged_model": purge_logged_model,
}
