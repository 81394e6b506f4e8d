"""`SparkscoreClient`: stores by the calls that users of MLflow's client know, and searches."""

from __future__ import annotations

from sparkscore.client.found import Found
from sparkscore.client.frames import get_run, search_experiments, search_runs
from sparkscore.client.models import ModelCalls
from sparkscore.client.runs import RunCalls
from sparkscore.workspace import Workspace, default_workspace

__all__ = ["Found", "SparkscoreClient", "get_run", "search_experiments", "search_runs"]


class SparkscoreClient(RunCalls, ModelCalls):
    """Experiments, runs, files and models, with the methods and arguments of `MlflowClient`.

    Records are those of `sparkscore.records`, frozen; times are milliseconds since the epoch.

    Args:
        tracking_uri: Where runs are kept; None: where the settings say.
        registry_uri: Where models are kept; None: where the settings say, or with the runs.
        workspace: In the place of both.

    Example:
        >>> client = sparkscore.SparkscoreClient("http://127.0.0.1:5000")
        >>> client.search_runs(["0"], "metrics.auc > 0.9", max_results=5)
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
        *,
        workspace: Workspace | None = None,
    ) -> None:
        named = {"tracking.uri": tracking_uri, "registry.uri": registry_uri}
        given = {key: uri for key, uri in named.items() if uri is not None}
        opened = workspace or (Workspace.open(overrides=given) if given else default_workspace())
        super().__init__(opened)
