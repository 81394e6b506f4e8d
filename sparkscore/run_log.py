"""What a script calls without a run at hand: each function logs to the run that its thread is in.

Outside of any run the first call starts one, which ends with the process, as in MLflow.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.current_run import active_run, start_run
from sparkscore.errors import UsageError, shown
from sparkscore.log_queue import BACKGROUND
from sparkscore.provenance import run_origin
from sparkscore.records import Dataset, DatasetInput, Metric
from sparkscore.stores.base import system_clock
from sparkscore.tracking import ActiveRun

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_CONTEXT_TAG = "mlflow.data.context"


def log_param(key: str, value: object, *, synchronous: bool = True) -> None:
    """Keep one setting of the run; see `log_params`."""
    _run().log_param(key, value, synchronous=synchronous)


def log_params(params: Mapping[str, object], *, synchronous: bool = True) -> None:
    """Keep settings of the run, as text; a param never changes.

    Args:
        params: Key to value.
        synchronous: False sends them in the background; what is refused of it is raised by
            `flush_async_logging` or when the run ends.

    Raises:
        InvalidStateError: A param is known with another value.
        InvalidNameError: A key is not usable.
        UsageError: A value has over 6000 characters.
    """
    _run().log_params(params, synchronous=synchronous)


def log_metric(
    key: str,
    value: float,
    step: int = 0,
    *,
    timestamp: int | None = None,
    synchronous: bool = True,
) -> None:
    """Keep one measured value; see `log_metrics`."""
    _run().log_metric(key, value, step=step, timestamp_ms=timestamp, synchronous=synchronous)


def log_metrics(
    metrics: Mapping[str, float],
    step: int = 0,
    *,
    timestamp: int | None = None,
    synchronous: bool = True,
) -> None:
    """Keep values measured at one step.

    Args:
        metrics: Key to value.
        step: Of the training.
        timestamp: Milliseconds since the epoch; None: now.
        synchronous: As in `log_params`.

    Raises:
        InvalidNameError: A key is not usable.
        UsageError: A value is no number.
    """
    _run().log_metrics(metrics, step=step, timestamp_ms=timestamp, synchronous=synchronous)


def log_batch(
    metrics: Sequence[Metric] = (),
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
    *,
    synchronous: bool = True,
) -> None:
    """Keep points of metrics, each with its own step and time, params and tags.

    Raises:
        InvalidStateError: A param is known with another value.
        InvalidNameError: A key is not usable.
        UsageError: A value is too long.
    """
    run = _run()
    run.log_params(params or {}, synchronous=synchronous)
    run.log_points(metrics, synchronous=synchronous)
    run.set_tags(tags or {}, synchronous=synchronous)


def set_tag(key: str, value: object, *, synchronous: bool = True) -> None:
    """Add or replace one tag; see `set_tags`."""
    _run().set_tag(key, value, synchronous=synchronous)


def set_tags(tags: Mapping[str, object], *, synchronous: bool = True) -> None:
    """Add or replace tags, as text.

    Raises:
        InvalidNameError: A key is not usable.
        UsageError: A value has over 8000 characters.
    """
    _run().set_tags(tags, synchronous=synchronous)


def log_artifact(local_path: str | Path, artifact_path: str | None = None) -> None:
    """Keep a local file or folder under its own name.

    Args:
        local_path: What to keep.
        artifact_path: The artifact folder that it goes into; None: the root.

    Raises:
        RecordNotFoundError: There is nothing at `local_path`.
        InvalidNameError: The path is not a plain relative path.
    """
    local = Path(local_path)
    name = local.name or local.resolve().name
    _run().log_file(local, _below(artifact_path, name))


def log_artifacts(local_dir: str | Path, artifact_path: str | None = None) -> None:
    """Keep what lies in a local folder.

    Args:
        local_dir: The folder.
        artifact_path: The artifact folder that its files go into; None: the root.

    Raises:
        RecordNotFoundError: There is no such folder.
        UsageError: It is a file.
        InvalidNameError: The path is not a plain relative path.
    """
    if Path(local_dir).is_file():
        raise UsageError(f"{str(local_dir)!r} is a file: keep it by log_artifact")
    _run().log_file(Path(local_dir), artifact_path or "")


def log_text(text: str, artifact_file: str) -> None:
    """Keep text as a UTF-8 file.

    Raises:
        InvalidNameError: The path is not a plain relative path.
    """
    _run().log_text(text, artifact_file)


def log_dict(dictionary: object, artifact_file: str) -> None:
    """Keep plain lists and mappings as YAML where the path says `.yaml`, else as JSON.

    Raises:
        InvalidNameError: The path is not a plain relative path.
        UsageError: Something else is in it.
    """
    _run().log_dict(dictionary, artifact_file)


def log_figure(figure: object, artifact_file: str, **save_kwargs: object) -> None:
    """Keep a figure of matplotlib or plotly; see `ActiveRun.log_figure`."""
    _run().log_figure(figure, artifact_file, **save_kwargs)


def log_image(
    image: object,
    artifact_file: str | None = None,
    *,
    key: str | None = None,
    step: int = 0,
    timestamp: int | None = None,
) -> None:
    """Keep one of Pillow's images, or an array as PNG; see `artifact_forms.save_image`.

    Args:
        image: The image.
        artifact_file: Where to; or else `key`.
        key: Name of a series of images, which differ in their step.
        step: Of the training.
        timestamp: Milliseconds since the epoch; None: now.

    Raises:
        UsageError: It is no image, or neither or both of path and key are given.
        InvalidNameError: The path is not a plain relative path.
    """
    if (artifact_file is None) == (key is None):
        raise UsageError("give log_image an artifact_file, or key=, and not both")
    if key is not None:
        now = system_clock() if timestamp is None else timestamp
        series = key.replace("/", "#")
        artifact_file = f"images/{series}+step+{step}+timestamp+{now}+{uuid.uuid4()}.png"
    _run().log_image(image, artifact_file or "")


def log_table(data: pd.DataFrame | Mapping[str, object], artifact_file: str) -> None:
    """Keep a table as JSON; rows of a table that is there already are added to it.

    Raises:
        UsageError: It is no table, or the one that is there has other columns.
        InvalidNameError: The path is not a plain relative path.
    """
    _run().log_table(data, artifact_file)


def log_input(
    dataset: Dataset | pd.DataFrame | np.ndarray,
    context: str = "",
    tags: Mapping[str, str] | None = None,
    *,
    name: str = "dataset",
    targets: object = None,
) -> Dataset:
    """Keep which data the run used: by name, digest and schema, and not its rows.

    Args:
        dataset: Its record; or the rows themselves, n_rows x n_columns, which are digested.
        context: What for, such as `training` or `eval`.
        tags: Further tags of this use.
        name: What rows are called.
        targets: Labels of rows, which the digest covers too.

    Returns:
        The record.

    Raises:
        UsageError: The rows are of another kind, or a text is over its limit.
    """
    used = _used(dataset, name, targets)
    own = {_CONTEXT_TAG: context} if context else {}
    _run().log_inputs([DatasetInput(used, {**own, **(tags or {})})])
    return used


def flush_async_logging() -> None:
    """Wait until all that was logged with `synchronous=False` is sent.

    Raises:
        SparkscoreError: The first error of what was sent since the last flush.
    """
    BACKGROUND.flush()


def get_artifact_uri(artifact_path: str | None = None) -> str:
    """Where the files of the run lie, or one of them."""
    root = _run().artifact_uri
    return root if artifact_path is None else f"{root}/{artifact_path}"


def _run() -> ActiveRun:
    return active_run() or start_run()


def _below(folder: str | None, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if folder else name


def _used(dataset: object, name: str, targets: object) -> Dataset:
    if isinstance(dataset, Dataset):
        return dataset
    if not hasattr(dataset, "shape"):
        raise UsageError(f"{shown(dataset)} is neither a Dataset nor rows of a frame or an array")
    from sparkscore.autologging.rows import dataset_input, rows_of

    source = json.dumps({"tags": run_origin().as_tags()})
    return dataset_input(name, "", rows_of(dataset, targets), source).dataset
