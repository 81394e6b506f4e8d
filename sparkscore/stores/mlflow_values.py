"""How MLflow's own stores write what our records hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparkscore.records import (
    Dataset,
    LifecycleStage,
    LoggedModelStatus,
    ModelVersion,
    RunStatus,
    Stage,
    VersionStatus,
)
from sparkscore.stores.copies_base import Refuse

DELETED_VERSION = "it is deleted in MLflow, which keeps its number alone"
NO_TRACES = "traces are not kept here"
NO_PROMPTS = "prompts are not kept here"
OTHER_WORKSPACE = "it is of another workspace than MLflow's 'default'"
LEFT_OUT_BY_DESIGN = (DELETED_VERSION, NO_TRACES, NO_PROMPTS, OTHER_WORKSPACE)
"""Why something does not come over that nobody shall mend."""

PROMPT_TAG = "mlflow.prompt.is_prompt"
DEFAULT_WORKSPACE = "default"
_DELETED = "Deleted_Internal"
_RUN_STATUS = {
    "1": RunStatus.RUNNING,
    "2": RunStatus.SCHEDULED,
    "3": RunStatus.FINISHED,
    "4": RunStatus.FAILED,
    "5": RunStatus.KILLED,
}
_LOGGED_STATUS = {
    "0": LoggedModelStatus.PENDING,
    "1": LoggedModelStatus.PENDING,
    "2": LoggedModelStatus.READY,
    "3": LoggedModelStatus.UPLOAD_FAILED,
}


def whole(value: object) -> int:
    """A whole number; nothing is 0."""
    return int(str(value)) if value is not None else 0


def whole_or_none(value: object) -> int | None:
    """A whole number, or None for nothing."""
    return None if value is None else int(str(value))


def text(value: object) -> str:
    """A text; nothing is ''."""
    return "" if value is None else str(value)


def run_status(value: object) -> RunStatus:
    """A run's status by its number or name.

    Raises:
        ValueError: There is no such status.
    """
    return _RUN_STATUS.get(str(value)) or RunStatus(str(value))


def logged_status(value: object) -> LoggedModelStatus:
    """A logged model's status by its number or name.

    Raises:
        ValueError: There is no such status.
    """
    return _LOGGED_STATUS.get(str(value)) or LoggedModelStatus(str(value))


def stage(value: object) -> LifecycleStage:
    """Active, unless it is said to be deleted."""
    return LifecycleStage.DELETED if value == "deleted" else LifecycleStage.ACTIVE


def dataset(fields: Mapping[str, Any]) -> Dataset:
    """A dataset of fields that have our names."""
    return Dataset(
        name=text(fields.get("name")),
        digest=text(fields.get("digest")),
        source_type=text(fields.get("source_type")),
        source=text(fields.get("source")),
        schema=text(fields.get("schema")),
        profile=text(fields.get("profile")),
    )


def version(
    name: str, number: int, fields: Mapping[str, Any], tags: Mapping[str, str], refuse: Refuse
) -> ModelVersion | None:
    """A version of fields that have MLflow's names; None, told to `refuse`, where it is none."""
    if fields.get("current_stage") == _DELETED:
        refuse("model version", f"{name}/{number}", DELETED_VERSION)
        return None
    created = fields.get("creation_timestamp", fields.get("creation_time"))
    updated = fields.get("last_updated_timestamp", fields.get("last_updated_time"))
    try:
        return ModelVersion(
            name=name,
            version=number,
            creation_time_ms=whole(created),
            last_update_time_ms=whole(updated),
            source=text(fields.get("source")),
            status=VersionStatus(fields.get("status") or VersionStatus.READY),
            status_message=text(fields.get("status_message")),
            run_id=text(fields.get("run_id")),
            description=text(fields.get("description")),
            tags=tags,
            stage=Stage(fields.get("current_stage") or Stage.NONE),
            run_link=text(fields.get("run_link")),
            model_id=_model_id(fields),
            user_id=text(fields.get("user_id")),
        )
    except ValueError as exc:
        refuse("model version", f"{name}/{number}", f"its record does not hold: {exc}")
        return None


def _model_id(fields: Mapping[str, Any]) -> str:
    """The logged model that a version is of: said, or by its source alone, as in a database."""
    said, source = fields.get("model_id"), text(fields.get("source"))
    if said:
        return str(said)
    rest = source.removeprefix("models:/")
    return rest if rest != source and rest.startswith("m-") and "/" not in rest else ""
