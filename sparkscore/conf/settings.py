"""What a user may set: one small frozen model per noun, with a reason for each default."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MASK = "***"
_URL_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):(\S*)@")
_QUERY_SECRET = re.compile(r"([?&;](?:password|passwd|pwd|token|secret)=)[^&;\s]*", re.IGNORECASE)
_SECRET_KEY = re.compile(
    r"secret|password|token|(access|account)[._-]?key|credential|jaas|keystore[._-]key",
    re.IGNORECASE,
)


def masked(key: str, value: object) -> object:
    """`value` as it may be shown: passwords in URLs and values under a secret's name become `***`.

    Args:
        key: Dotted key of the setting, such as `spark.conf.spark.hadoop.fs.s3a.secret.key`.
        value: The setting's value.
    """
    if isinstance(value, dict):
        return {name: masked(f"{key}.{name}", item) for name, item in value.items()}
    if value is not None and _SECRET_KEY.search(key):
        return MASK
    if isinstance(value, list | tuple):
        return type(value)(masked(key, item) for item in value)
    if not isinstance(value, str):
        return value
    return _QUERY_SECRET.sub(rf"\1{MASK}", _URL_PASSWORD.sub(rf"\1:{MASK}@", value))


class Frozen(BaseModel):
    """Base of every settings model: frozen, no unknown field, and a repr without secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return [(name, masked(name or "", value)) for name, value in super().__repr_args__()]


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a whole number, not a truth value")  # noqa: TRY004 - pydantic's
    return value


def _spark_text(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _expanded(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str) and value else value


Count = Annotated[int, BeforeValidator(_no_bool), Field(gt=0)]
"""A whole number above 0."""

SparkText = Annotated[str, BeforeValidator(_spark_text)]
"""A Spark property's value; YAML's numbers and truth values are written as Spark writes them."""

FolderPath = Annotated[Path, BeforeValidator(_expanded)]
"""A folder on this machine; `~` is the home of the user."""

TreeRuntime = Literal["auto", "native"]
Engine = Literal["auto", "files", "arrow", "pandas"]
OnInvalid = Literal["fail", "null", "quarantine"]
OnNan = Literal["keep", "reject"]

RejectLimit = Annotated[str, BeforeValidator(_spark_text)]
"""Rows without a prediction: such as 100, 0.5% or 100,0.5%."""


def default_cache_folder(environ: dict[str, str] | None = None) -> Path:
    """`sparkscore` below XDG_CACHE_HOME, or below `~/.cache` where that is not set."""
    base = (os.environ if environ is None else environ).get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "sparkscore"


class TrackingSettings(Frozen):
    """Where runs are recorded."""

    uri: str = "sqlite:///sparkscore.db"
    """Needs no server; a relative file lies in the working folder."""
    experiment: str = "Default"
    """The experiment that every store has from the start."""
    experiment_id: str | None = None
    """Where it is set, new runs belong to this experiment, whatever its name."""
    run_id: str | None = None
    """The run that a process continues, as MLflow's launchers say it."""
    system_metrics: bool = False
    """A thread that wakes every ten seconds is for those who want its numbers."""
    system_metrics_interval_s: Count = 10
    """MLflow's."""
    outbox: FolderPath = Path(".sparkscore/outbox")
    """Keeps records while the store is away; beside the database, so that a project holds both."""


class ClientSettings(Frozen):
    """How servers of tracking and registry are asked."""

    username: str | None = None
    password: str | None = None
    token: str | None = None
    """Sent to a server as a bearer's; wins over the username."""
    timeout_s: Count = 60
    """Longest silence of a server; a large search over a slow disk takes that long."""
    max_retries: Annotated[int, BeforeValidator(_no_bool), Field(ge=0)] = 4
    """Some four seconds in all: after that the outbox takes over, so that no job waits."""
    insecure_tls: bool = False
    ca_file: FolderPath | None = None
    """PEM file of the authorities that signed the server's certificate; None: the usual ones."""
    client_cert: FolderPath | None = None
    """PEM file of this client's certificate and key."""


class RegistrySettings(Frozen):
    """Where models, versions and aliases are recorded."""

    uri: str | None = None
    """None: in the tracking store."""


class ArtifactSettings(Frozen):
    """Where files of runs and packages of model versions are kept."""

    uri: str = "./sparkscore-artifacts"
    """A folder, or a URI of an object store; beside the default database. Where the tracking
    store is a server and this is not set, the server keeps them."""
    s3_endpoint: str | None = None
    """Where an S3 store that is not Amazon's answers; None: AWS_ENDPOINT_URL."""


class SparkSettings(Frozen):
    """How a Spark session is opened where none is active."""

    master: str = "local[*]"
    """All cores of this machine: works without a cluster."""
    remote: str | None = None
    """A Spark Connect URL (sc://host:port); None: a classic session."""
    jars: FolderPath | None = None
    """A folder with the Delta jars; None: the cache that `sparkscore setup` fills."""
    delta_version: str | None = None
    """Version of the Delta jars; None: the one this release is tested with."""
    ivy_settings: FolderPath | None = None
    """An ivysettings.xml to fetch the jars by; None: ~/.ivy2, ~/.m2/settings.xml or Ivy's own."""
    driver_memory: str = "2g"
    """Spark's own 1g is too little for a local session that also writes wide Delta files."""
    shuffle_partitions: Count | None = None
    """None: Spark's own number, or the session's."""
    preload: bool = False
    """Needs the same sparkscore on all nodes, and holds each model in one more process."""
    conf: dict[str, SparkText] = Field(default_factory=dict)
    """Spark properties, passed on verbatim."""


class ScoringSettings(Frozen):
    """How rows are given to a model."""

    engine: Engine = "auto"
    max_rows_per_batch: Count = 10_000
    """Larger batches were not faster with any measured library."""
    max_bytes_per_batch: Count = 64 * 1024 * 1024
    """Bounds a worker's memory where rows are wide."""
    max_chunk_bytes: Count = 256 * 1024 * 1024
    """What a killed job repeats in each task slot; 20 million rows of three columns."""
    batch_deadline_s: Count = 900
    """A model that hangs must not hold the night; none that was measured took a minute a batch."""
    on_invalid: OnInvalid = "fail"
    """A row the model cannot score stops the job; doing without it is for a person to decide."""
    on_nan: OnNan = "keep"
    """Many models answer NaN where they know nothing; those that never do may say `reject`."""
    max_rejects: RejectLimit = "99%"
    """Rows without a prediction that a run may have: a model that fails on all is none to keep."""
    max_partition_rejects: RejectLimit | None = None
    """The same of each partition of the target; None: any number."""
    environment_check: Literal["warn", "fail", "off"] = "warn"
    """Another release of a library seldom changes a score, and a job must not stop for the rest."""
    tree_runtime: TreeRuntime = "auto"
    """Compiled trees serve only where they are equal to the library to the bit, and are faster."""


class TrustSettings(Frozen):
    """Which code a model package may bring along."""

    allow_code: bool = False
    """Pickles, scripts and modules of a package can do whatever the job may do."""
    types: tuple[str, ...] = ()
    """Types to admit beside those of the known libraries, as `module.Type` or `module.*`."""
    digests: tuple[str, ...] = ()
    """Packages whose code may run all the same, by the digests that `models verify` tells."""
    require_signature: bool = False
    """Whether only packages that one of `signing_keys` has signed are loaded."""
    signing_keys: tuple[str, ...] = ()
    """Ed25519 public keys: 64 hex digits each, or paths of PEM files."""


class CacheSettings(Frozen):
    """Where things that can be fetched again are kept."""

    folder: FolderPath = Field(default_factory=default_cache_folder)
    max_loaded_bytes: Count = 4 * 1024**3
    """Memory of the models that one Python worker keeps; a stream of two must not reload them."""
    max_unpacked_bytes: Count = 16 * 1024**3
    """Disk of the packages that one node keeps; a nightly version a day fills any disk."""


class Settings(Frozen):
    """All settings of one command, in force after every layer."""

    tracking: TrackingSettings = Field(default_factory=TrackingSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    client: ClientSettings = Field(default_factory=ClientSettings)
    artifacts: ArtifactSettings = Field(default_factory=ArtifactSettings)
    spark: SparkSettings = Field(default_factory=SparkSettings)
    scoring: ScoringSettings = Field(default_factory=ScoringSettings)
    trust: TrustSettings = Field(default_factory=TrustSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
