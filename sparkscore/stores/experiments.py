"""Find an experiment by name, or create it."""

from __future__ import annotations

from sparkscore.errors import RecordExistsError
from sparkscore.names import ExperimentName
from sparkscore.records import Experiment
from sparkscore.stores.base import RunStore


def find_or_create_experiment(runs: RunStore, name: ExperimentName) -> Experiment:
    """The experiment of this name, deleted or not; a new one if there was none.

    Raises:
        StoreUnavailableError: The store did not answer.
    """
    found = runs.find_experiment(name)
    if found is not None:
        return found
    try:
        return runs.create_experiment(name)
    except RecordExistsError:
        # Another process created it after we looked.
        found = runs.find_experiment(name)
        if found is None:
            raise
        return found
