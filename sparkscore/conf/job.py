"""One scoring job as a file: conf/jobs/NAME.yaml, with flags laid over it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sparkscore.conf.features import FeatureSettings
from sparkscore.conf.layers import Given, Keys, Resolved, from_flags, from_yaml, resolve
from sparkscore.conf.settings import (
    Count,
    Engine,
    Frozen,
    OnInvalid,
    OnNan,
    RejectLimit,
    SparkText,
)
from sparkscore.errors import ConfigError, nearest, shown

_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
_UNSAFE_IN_FILTER = re.compile(r"['\"`\\]")

NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class SourceSettings(Frozen):
    """The table to read."""

    uri: str
    format: Literal["auto", "delta", "parquet", "csv", "json", "orc"] = "auto"
    version: int | None = Field(default=None, ge=0)
    """Version of a Delta table; None: the newest when the job starts."""
    options: dict[str, SparkText] = Field(default_factory=dict)
    """How CSV or JSON is written, by the names of Spark's options."""
    ddl: str | None = Field(default=None, alias="schema")  # BaseModel has a `schema` of its own.
    """Columns of CSV or JSON files, such as `id BIGINT, x DOUBLE`; None: Spark infers them."""


class TargetSettings(Frozen):
    """The Delta table to write."""

    uri: str


class CheckSettings(Frozen):
    """What scores have to be before they are published; see `scoring.checks.Checks`."""

    min_rows: int | None = Field(default=None, ge=0)
    max_rows: int | None = Field(default=None, ge=0)
    max_row_change: float | None = Field(default=None, ge=0)
    """As a share of the number of rows of the last run."""
    max_null_share: dict[str, Share] = Field(default_factory=dict)
    """By prediction column, as all below."""
    min_value: dict[str, float] = Field(default_factory=dict)
    max_value: dict[str, float] = Field(default_factory=dict)
    max_drift: dict[str, NotNegative] = Field(default_factory=dict)
    """Population stability index against the last run."""


class EnsembleSettings(Frozen):
    """One answer out of those of several models."""

    members: tuple[str, ...] = ()
    """Model URIs."""
    combine: Literal["mean", "median", "vote", "weighted"] = "mean"
    weights: tuple[float, ...] = ()
    """With combine weighted: one a member."""


class RoutesSettings(Frozen):
    """A model for each value of a column."""

    column: str | None = None
    models: dict[str, str] = Field(default_factory=dict)
    """Value as text -> model URI."""
    default: str | None = None
    """Model URI for all other rows, or `reject` to leave them out; None: as on_invalid says."""


class CanarySettings(Frozen):
    """A model that scores a share of a stream's entities in the champion's place."""

    model: str | None = None
    """Its URI, such as models:/pump@challenger."""
    share: str | None = None
    """The share of entities, such as 5%."""
    by: tuple[str, ...] = ()
    """Columns that name an entity; empty: the key, where that is one column."""


class ShadowSettings(Frozen):
    """A model that scores all rows of a stream beside the champion, and is not published."""

    model: str | None = None
    """Its URI, such as models:/pump@challenger."""
    target: str | None = None
    """The table of its scores; None: TARGET_shadow."""


class DriftSettings(Frozen):
    """How the last rows of a stream are compared with the first ones that its model has scored."""

    columns: tuple[str, ...] = ()
    """Columns that the model reads or predicts; those with a bound (alerts) are compared too."""
    rows: Count = 10_000
    """As many rows as few percent of drift need to be told from chance."""


class AlertSettings(Frozen):
    """The most that a stream's measures may be; what is over that is told once, and its end too."""

    latency_p99_seconds: NotNegative | None = None
    """From event to commit, of the rows of a batch; with event_time."""
    backlog_files: NotNegative | None = None
    """What waits in the source, as it tells: files and bytes of Delta, offsets of Kafka."""
    backlog_bytes: NotNegative | None = None
    backlog_offsets: NotNegative | None = None
    rejected_share: Share | None = None
    """Rows without a prediction, of those of the last twenty batches."""
    batch_seconds: NotNegative | None = None
    idle_seconds: NotNegative | None = None
    """Since the last batch ended: the source is dry, or a batch does not come to its end."""
    canary_rows_failed: NotNegative | None = None
    """Of a batch; the champion has scored them."""
    drift: dict[str, NotNegative] = Field(default_factory=dict)
    """By column: population stability index of the last rows against the first ones."""
    empty_share: dict[str, Share] = Field(default_factory=dict)
    """By column: the share of the last rows that is null or NaN."""
    shadow_rows_failed: NotNegative | None = None
    """Of a batch."""
    webhook: str | None = None
    """Where each alert is posted as JSON when it begins and when it ends."""
    secret_file: Path | None = None
    """A file with the secret that signs what is posted; None: it is not signed."""


class StreamSettings(Frozen):
    """What a job needs besides to score a source as its rows come."""

    checkpoint: str | None = None
    """The folder that the stream keeps its progress in; one a stream, for its whole life."""
    trigger: str = "available-now"
    """`available-now`, `continuous-service`, or an interval such as `10 seconds`."""
    publish: tuple[str, ...] = ()
    """URIs of the outlets that get each batch's rows after its commit, in this order."""
    publish_retry_s: Count = 60
    """Seconds that an outlet which is away is asked again before the stream ends with exit 75."""
    watch_s: Count = 10
    """Seconds between two looks at the alias that names the model."""
    canary: CanarySettings = Field(default_factory=CanarySettings)
    shadow: ShadowSettings = Field(default_factory=ShadowSettings)
    drift: DriftSettings = DriftSettings()
    event_time: str | None = None
    """The column that says when a row came to be, for latencies; None: none are told."""
    alerts: AlertSettings = Field(default_factory=AlertSettings)
    health_file: Path | None = None
    """A file that is written anew after each batch; None: none is."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Where Prometheus and probes ask (`/metrics`, `/healthz`); 0: any port; None: nowhere."""
    metrics_host: str = "127.0.0.1"
    """The address of those pages: nobody signs in there, so that others reach it only if asked."""


class JobSettings(Frozen):
    """One scoring job: which model scores which rows into which table."""

    name: str
    """Names the logical job: the same name, target and run key are the same run."""
    model: str | None = None
    """A model URI, such as models:/flight-delay@champion; None: an ensemble's or routes' models."""
    challengers: tuple[str, ...] = ()
    """URIs of models that score the same rows beside it; NAME=URI names the column."""
    models_as: Literal["struct", "long"] = "struct"
    """With challengers: a struct column for each, or a row for each model."""
    ensemble: EnsembleSettings = Field(default_factory=EnsembleSettings)
    routes: RoutesSettings = Field(default_factory=RoutesSettings)
    source: SourceSettings
    where: str | None = None
    """A Spark SQL filter on the source; None: all rows."""
    features: FeatureSettings = FeatureSettings()
    """What is computed from the rows before they are scored."""
    target: TargetSettings
    key: tuple[str, ...] = ()
    """Columns that tell one row from another."""
    keep: tuple[str, ...] = ()
    """Further source columns to pass through."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Model column to source column, where their names differ."""
    params: dict[str, object] = Field(default_factory=dict)
    """What the model's predict is given beside rows, by the names that its signature declares."""
    predict: str | None = None
    """The function that the model is asked by, such as predict_proba; None: the packaged one."""
    mode: Literal["append", "replace", "merge"] = "append"
    since_last: bool = False
    """Score only what is new in the source since the last run of this job into this target."""
    deletes: Literal["ignore", "tombstone", "fail"] = "ignore"
    """With since_last: what becomes of scores whose rows were deleted from the source."""
    duplicates: Literal["keep", "fail", "first", "last"] | None = None
    """What becomes of source rows that share a key; None: with merge `fail`, else `keep`."""
    order_by: str | None = None
    """With duplicates first or last: the column that orders the rows of a key."""
    checks: CheckSettings = CheckSettings()
    """What scores have to be before they are published."""
    accept_checks: bool = False
    """Publish scores that fail the checks; for the run after a person has looked at them."""
    replace_where: str | None = None
    """With mode replace: which rows of the target give way to the new ones."""
    partition_by: tuple[str, ...] = ()
    on_invalid: OnInvalid | None = None
    """What becomes of rows that the model cannot score; None: scoring.on_invalid."""
    on_nan: OnNan | None = None
    """None: scoring.on_nan of the settings."""
    rejects: str | None = None
    """With on_invalid quarantine: the table of rejected rows, or `inline`; None: TARGET_rejects."""
    max_rejects: RejectLimit | None = None
    """None: scoring.max_rejects of the settings."""
    max_partition_rejects: RejectLimit | None = None
    """None: scoring.max_partition_rejects of the settings."""
    experiment: str | None = None
    """None: tracking.experiment of the settings."""
    engine: Engine | None = None
    """None: scoring.engine of the settings."""
    env_manager: Literal["local", "virtualenv"] = "local"
    """`virtualenv`: the model lives in an environment of its own, made from its package's needs."""
    stream: StreamSettings = StreamSettings()
    """For `score stream` alone."""


def load_job(
    path: Path | None, overrides: Mapping[str, object] | None = None, *, run_key: str | None = None
) -> Resolved[JobSettings]:
    """The job that a file describes, with flags laid over it.

    Args:
        path: The job's file; None: flags alone describe the job.
        overrides: Dotted key (`source.uri`) to value; wins over the file.
        run_key: Fills `${run_key}` in any text value.

    Raises:
        ConfigError: The file does not parse, a key is unknown or missing, a value is of the
            wrong type, or a placeholder is unknown or cannot be filled.
    """
    keys = Keys(JobSettings, "job key")
    stem = path.stem if path else "score-batch"
    given = [Given("name", stem, "default: the file's name" if path else "default")]
    given += from_yaml(path, keys) if path else []
    given += from_flags(overrides or {}, keys, "flag")
    return resolve(JobSettings, [_filled(item, run_key) for item in given], keys)


def _filled(item: Given, run_key: str | None) -> Given:
    if isinstance(item.value, str):
        # The same kind of text: a flag's param is still to be read by its declared type.
        return replace(item, value=type(item.value)(_fill(item.value, item, run_key)))
    if isinstance(item.value, list | tuple):
        parts = [_fill(p, item, run_key) if isinstance(p, str) else p for p in item.value]
        return replace(item, value=parts)
    return item


def _fill(text: str, item: Given, run_key: str | None) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        where = f"job key {item.key!r} ({item.origin})"
        if name != "run_key":
            raise ConfigError(
                f"{where} has the unknown placeholder {shown(match[0])}"
                f"{nearest(name, ['run_key'])}; the only one is ${{run_key}}"
            )
        if run_key is None:
            raise ConfigError(f"{where} needs a run key for ${{run_key}}; give --run-key KEY")
        if _UNSAFE_IN_FILTER.search(run_key):
            raise ConfigError(
                f"run key {shown(run_key)} holds a quote or backslash, which could change the "
                f"meaning of {where}; choose a key without"
            )
        return run_key

    return _PLACEHOLDER.sub(value, text)
