"""Packages into the registry: copied to its store, or kept with the run that made them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from sparkscore.current_run import start_run
from sparkscore.names import AliasName, ArtifactPath, ModelName, parse_alias, parse_model_name
from sparkscore.package import open_package
from sparkscore.records import ModelVersion
from sparkscore.tracking import ActiveRun
from sparkscore.workspace import Workspace, default_workspace

_IN_RUN = "model"


def register_package(
    folder: Path,
    name: ModelName,
    *,
    workspace: Workspace,
    alias: AliasName | None = None,
    description: str = "",
    tags: Mapping[str, str] | None = None,
    run: ActiveRun | None = None,
    run_id: str = "",
    kept_at: str | None = None,
) -> ModelVersion:
    """A package folder as the next READY version of a model.

    Where a server keeps all files it is kept with a run, a new one if there is none: servers take
    no other place as that of a version.

    Args:
        folder: The package.
        name: The model; created if it is new.
        workspace: Where the registry is.
        alias: Points at the version once it is READY.
        description: What this version is.
        tags: Of the version.
        run: The run that made the package, and takes its files where that is asked for.
        run_id: The run's id, if it is not that of `run`.
        kept_at: URI of the files among those of the run; None: they are not kept yet.

    Raises:
        SparkscoreError: What the registry refuses; the alias is where it was.
    """
    with ExitStack() as stack:
        if workspace.keeps_models_in_runs and kept_at is None:
            if run is None:
                run = stack.enter_context(start_run(name, workspace=workspace))
            place = run.log_package(open_package(folder), _IN_RUN)
            kept_at, run_id = f"{run.artifact_uri}/{place}", run.run_id
        return workspace.registry.register(
            folder,
            name,
            alias=alias,
            description=description,
            tags=tags,
            run_id=run_id or ("" if run is None else run.run_id),
            kept_at=kept_at if workspace.keeps_models_in_runs else None,
        )


def register_model(
    model_uri: str,
    name: str,
    *,
    alias: str | None = None,
    description: str = "",
    tags: Mapping[str, str] | None = None,
    workspace: Workspace | None = None,
) -> ModelVersion:
    """The package at a URI as the next READY version of a model.

    Args:
        model_uri: A folder, `runs:/RUN_ID/PATH`, `models:/MODEL_ID`, or the URI of a store.
        name: The model; created if it is new.
        alias: Points at the version once it is READY.
        description: What this version is.
        tags: Of the version.
        workspace: Where the registry is; None opens the one that settings name.

    Raises:
        SparkscoreError: What the stores or the registry refuse; the alias is where it was.

    Example:
        >>> sparkscore.register_model(f"runs:/{run.run_id}/model", "flight-delay", alias="champion")
    """
    parsed = parse_model_name(name)
    parsed_alias = None if alias is None else parse_alias(alias)
    opened = workspace or default_workspace()
    place, run_id = opened.artifacts_at(model_uri), _run_of(model_uri)
    with tempfile.TemporaryDirectory(prefix="sparkscore-register-") as scratch:
        return register_package(
            place.get(ArtifactPath(""), Path(scratch) / "package"),
            parsed,
            workspace=opened,
            alias=parsed_alias,
            description=description,
            tags=tags,
            run_id=run_id,
            kept_at=place.root_uri if run_id else None,
        )


def _run_of(model_uri: str) -> str:
    """The id of the run that a `runs:` URI names."""
    parts = urlsplit(model_uri)
    return parts.path.strip("/").partition("/")[0] if parts.scheme == "runs" else ""
