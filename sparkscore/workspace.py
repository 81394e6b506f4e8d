"""Opens what the settings name: stores, registry, tracking. It has no verbs of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sparkscore.conf import JobSettings, Resolved, Settings, load_job, load_settings
from sparkscore.conf.settings import ArtifactSettings, masked
from sparkscore.errors import (
    ConfigError,
    EngineUnfitError,
    InvalidNameError,
    SignatureMismatchError,
    TargetError,
    shown,
)
from sparkscore.names import parse_artifact_path, parse_model_uri, parse_run_id
from sparkscore.package.signing import check_signed, parse_public_key
from sparkscore.package.trust import TrustPolicy
from sparkscore.registry import PinnedModel, Registry
from sparkscore.stores.accounts_base import AccountStore
from sparkscore.stores.base import ArtifactStore, RunStore
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.models_base import LoggedModelStore, ModelStore
from sparkscore.stores.outbox import OutboxRunStore
from sparkscore.stores.webhooks_base import WebhookStore
from sparkscore.tracking import Tracking

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkscore.environments.build import BuiltEnvironment
    from sparkscore.files.filesystem import Store, TablePath
    from sparkscore.files.sink import FilesSink
    from sparkscore.flavors.base import TreeRuntime
    from sparkscore.package.environment import Mismatch
    from sparkscore.scoring.batch import BatchLimits
    from sparkscore.scoring.facts import ModelFacts
    from sparkscore.spark.delta import DeltaSink
    from sparkscore.spark.engine import SparkEngine
    from sparkscore.spark.files_engine import FilesEngine
    from sparkscore.spark.jars import JarSource
    from sparkscore.spark.node_cache import NodeLimits
    from sparkscore.spark.pipeline_engine import PipelineEngine
    from sparkscore.spark.session import SessionSettings
    from sparkscore.stores.remote import RemoteStores
    from sparkscore.stores.sql import SqlStores

_SERVER_ROOT = "mlflow-artifacts:/"
_DATABASES = ("sqlite", "postgresql", "postgres")

_CHOSEN: dict[str, object] = {}
_LAST: list[tuple[Workspace, Path]] = []
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Workspace:
    """The things that one command works with, each opened when it is first asked for."""

    resolved: Resolved[Settings]
    announce: Callable[[str], None] | None = None
    """Told in one line what takes long, such as fetching jars."""
    artifact_root: str | None = None
    """URI below which new experiments of a database keep files; None: artifacts.uri."""

    @classmethod
    def open(
        cls,
        conf: Path | None = None,
        target: str | None = None,
        overrides: Mapping[str, object] | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> Workspace:
        """The workspace that files, environment and overrides describe; opens nothing yet.

        Args:
            conf: Folder of the YAML files; None: SPARKSCORE_CONF, else `./conf` if it is there.
            target: File laid over base.yaml; None: SPARKSCORE_CONF_TARGET, else `local`.
            overrides: Dotted key to value, such as {"tracking.uri": "sqlite:///x.db"}; they win
                over what `choose` was told.
            announce: Told in one line what takes long, such as fetching jars.

        Raises:
            ConfigError: The settings do not hold together.
        """
        given = {**_CHOSEN, **(overrides or {})}
        return cls(load_settings(conf, target, given, os.environ), announce)

    @property
    def settings(self) -> Settings:
        """All settings in force."""
        return self.resolved.values

    def job(
        self,
        path: Path | None,
        overrides: Mapping[str, object] | None = None,
        *,
        run_key: str | None = None,
    ) -> Resolved[JobSettings]:
        """The scoring job that a file describes, with flags laid over it; see `conf.load_job`.

        Raises:
            ConfigError: File and flags do not describe a job.
        """
        return load_job(path, overrides, run_key=run_key)

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """Files of runs and packages of model versions.

        Raises:
            ConfigError: artifacts.uri is of a kind that is not supported.
            MissingExtraError: The library that opens it is not installed.
        """
        key, uri = "artifacts.uri", self.settings.artifacts.uri
        # By its value: a project's base.yaml names the default too, beside the default database.
        if uri == ArtifactSettings().uri and self._remote is not None:
            uri = _SERVER_ROOT
        try:
            return self.artifacts_at(uri)
        except InvalidNameError as exc:
            where = f"{shown(masked(key, uri))} ({self.resolved.origins[key]})"
            raise ConfigError(f"setting {key!r} is {where}: {exc}") from exc

    def artifacts_at(self, uri: str) -> ArtifactStore:
        """The files below the artifact URI of a run, wherever that lies.

        Args:
            uri: A folder, the URI of a store, `runs:/RUN_ID/PATH` or `models:/MODEL_ID`.

        Raises:
            InvalidNameError: The URI is of a kind that is not supported.
            RecordNotFoundError: There is no such run or logged model.
            MissingExtraError: The library that opens it is not installed.
        """
        scheme = urlsplit(uri).scheme
        if scheme in ("runs", "models"):
            return self.artifacts_at(self._place_of_record(scheme, uri))
        if scheme in ("", "file"):
            return LocalArtifactStore.at(uri)
        if scheme == "mlflow-artifacts":
            if self._remote is None:
                return self.artifacts_at(self._place_of_proxied(uri))
            return self._remote.artifacts_at(uri)
        from sparkscore.stores.object_files import ObjectArtifactStore

        return ObjectArtifactStore.at(uri, s3_endpoint=self.settings.artifacts.s3_endpoint)

    @property
    def keeps_models_in_runs(self) -> bool:
        """Whether packages lie with the runs that made them.

        A server that keeps files takes as a version's place only one of a run or logged model.
        """
        return self.artifacts.root_uri == _SERVER_ROOT.rstrip("/")

    @cached_property
    def runs(self) -> RunStore:
        """Experiments and runs.

        Raises:
            ConfigError: tracking.uri or artifacts.uri is of a kind that is not supported.
        """
        return self._tracking_stores.runs

    @cached_property
    def models(self) -> ModelStore:
        """Registered models, versions and aliases.

        Raises:
            ConfigError: registry.uri or artifacts.uri is of a kind that is not supported.
        """
        uri = self.settings.registry.uri
        if uri is None:
            return self._tracking_stores.models
        return self._stores("registry.uri", uri).models

    @property
    def databases(self) -> Mapping[str, SqlStores]:
        """The databases that this process opens itself, by the setting that names each.

        Raises:
            ConfigError: A URI is of a kind that is not supported.
        """
        settings = self.settings
        named = {"tracking.uri": settings.tracking.uri, "registry.uri": settings.registry.uri}
        given = {key: uri for key, uri in named.items() if uri is not None}
        return {key: self._sql(key, uri) for key, uri in given.items() if not _is_server(uri)}

    @cached_property
    def logged_models(self) -> LoggedModelStore:
        """Models of experiments.

        Raises:
            ConfigError: tracking.uri or artifacts.uri is of a kind that is not supported.
        """
        return self._tracking_stores.logged_models

    @cached_property
    def webhooks(self) -> WebhookStore:
        """Webhooks of the server that the database of models belongs to.

        Raises:
            ConfigError: registry.uri, or tracking.uri in its place, names no database.
        """
        settings = self.settings
        if settings.registry.uri is None:
            return self._sql("tracking.uri", settings.tracking.uri).webhooks
        return self._sql("registry.uri", settings.registry.uri).webhooks

    @property
    def accounts(self) -> AccountStore:
        """Users of the server that this database belongs to, and its audit trail.

        Raises:
            ConfigError: tracking.uri names no database, but a server.
        """
        uri = self.settings.tracking.uri
        if _is_server(uri):
            raise ConfigError(
                f"setting 'tracking.uri' is {shown(masked('tracking.uri', uri))}, a server: users "
                "are kept in its database, so run this where that is"
            )
        return self._sql("tracking.uri", uri).accounts

    @property
    def trust(self) -> TrustPolicy:
        """Which code a package may bring along, and who must have signed it.

        Raises:
            UsageError: trust.signing_keys names what is no public key.
            ConfigError: Signatures are demanded, and there is no key.
        """
        trust = self.settings.trust
        if trust.require_signature and not trust.signing_keys:
            raise ConfigError(
                "trust.require_signature demands signatures, but trust.signing_keys names no key; "
                "add the public keys of those whose packages you trust"
            )
        return TrustPolicy(
            allow_code=trust.allow_code,
            types=trust.types,
            digests=trust.digests,
            require_signature=trust.require_signature,
            signing_keys=tuple(map(parse_public_key, trust.signing_keys)),
        )

    @property
    def batch_limits(self) -> BatchLimits:
        """Bounds of one call to a model."""
        from sparkscore.scoring.batch import BatchLimits

        scoring = self.settings.scoring
        return BatchLimits(scoring.max_rows_per_batch, scoring.max_bytes_per_batch)

    @property
    def tree_runtime(self) -> TreeRuntime:
        """Whether compiled trees may score in the place of a model's library."""
        from sparkscore.flavors.base import TreeRuntime

        return TreeRuntime(self.settings.scoring.tree_runtime)

    @property
    def node_limits(self) -> NodeLimits:
        """What workers and nodes may keep for later tasks."""
        from sparkscore.spark.node_cache import NodeLimits

        cache = self.settings.cache
        return NodeLimits(cache.max_loaded_bytes, cache.max_unpacked_bytes)

    @property
    def jar_source(self) -> JarSource:
        """Where Delta's jars come from."""
        from sparkscore.spark.jars import DELTA_VERSION, JarSource

        spark = self.settings.spark
        return JarSource(
            cache=self.settings.cache.folder,
            folder=spark.jars,
            version=spark.delta_version or DELTA_VERSION,
            ivy_settings=spark.ivy_settings,
        )

    @property
    def session_settings(self) -> SessionSettings:
        """How a Spark session is opened."""
        from sparkscore.spark.daemon import MODULE
        from sparkscore.spark.preloading import DAEMON_KEY
        from sparkscore.spark.session import SessionSettings

        spark = self.settings.spark
        named = {"spark.driver.memory": spark.driver_memory}
        if spark.shuffle_partitions is not None:
            named["spark.sql.shuffle.partitions"] = str(spark.shuffle_partitions)
        if spark.preload:
            named[DAEMON_KEY] = MODULE
        return SessionSettings(
            jars=self.jar_source,
            master=spark.master,
            remote=spark.remote,
            conf=named | spark.conf,
        )

    @property
    def spark(self) -> SparkSession:
        """A session with Delta: the running one, a Connect server's, or a new one.

        Raises:
            JavaError: No usable Java.
            JarsUnavailableError: Delta's jars are neither cached nor to be had.
            ConfigError: The running session has no Delta.
            MissingExtraError: PySpark is not installed.
        """
        return self._session[0]

    def pinned(self, uri: str) -> PinnedModel:
        """The package that a URI names now; its bytes are verified.

        Raises:
            InvalidNameError: The URI does not parse.
            ModelError: There is no such model, or its package is not intact.
        """
        return self.registry.resolve(parse_model_uri(uri), self.settings.cache.folder / "models")

    def model(self, uri: str) -> ModelFacts:
        """The model that a URI names now, pinned to its digest; its bytes are verified.

        Raises:
            InvalidNameError: The URI does not parse.
            ModelError: There is no such model, or its package is not intact.
            UnsignedPackageError: The settings demand a signature that it does not have.
            SignatureMismatchError: The package has no signature.
        """
        from sparkscore.scoring.facts import ModelFacts

        pinned = self.pinned(uri)
        check_signed(pinned.folder, self.trust)
        signature = pinned.package.description.signature
        if signature is None:
            raise SignatureMismatchError(
                f"model {uri!r} has no signature, so its columns cannot be compared with a table; "
                "give its folder one (sparkscore.set_signature), or package it again"
            )
        return ModelFacts(
            name=pinned.name,
            version=pinned.version,
            digest=pinned.digest,
            uri=pinned.uri,
            folder=pinned.folder,
            signature=signature,
        )

    def environment(self, model: ModelFacts) -> BuiltEnvironment:
        """The environment that a model's package asks for, built if it is new.

        Raises:
            PackageFormatError: The package's files do not say what it needs.
            EnvironmentBuildError: It cannot be built.
        """
        from sparkscore.environments.build import build_environment
        from sparkscore.package import open_package

        cache = self.settings.cache.folder / "environments"
        return build_environment(open_package(model.folder), cache, self.announce)

    def environment_mismatches(self, model: ModelFacts) -> list[Mismatch]:
        """Each way in which the session's workers are not what a model's package asks for.

        Raises:
            PackageFormatError: The package's files do not parse.
        """
        from sparkscore.package import open_package
        from sparkscore.package.environment import check_environment, names_needed
        from sparkscore.spark.worker_libraries import worker_libraries

        package = open_package(model.folder)
        found = [
            mismatch
            for here in worker_libraries(self.spark, names_needed(package))
            for mismatch in check_environment(package, here.python, here.versions)
        ]
        return list(dict.fromkeys(found))

    @property
    def files_engine(self) -> FilesEngine:
        """The engine in which Python reads and writes the data files."""
        from sparkscore.spark.files_engine import FilesEngine

        return FilesEngine(
            self.spark,
            self.trust,
            self.batch_limits,
            tree_runtime=self.tree_runtime,
            node_limits=self.node_limits,
        )

    def files_sink(self, uri: str) -> FilesSink:
        """The score table that the files engine writes.

        Raises:
            EngineUnfitError: It is a table of the catalog.
        """
        from sparkscore.spark.delta import files_sink

        return files_sink(self.spark, uri)

    def table_path(self, uri: str) -> TablePath:
        """A table's folder as Python reaches it without a session: a path, or a store's URI.

        Raises:
            TargetError: It is of a scheme or a store that only Spark can reach.
            InvalidNameError: The URI holds credentials.
        """
        from sparkscore.files.azure_settings import azure_store
        from sparkscore.files.filesystem import check_place, local_folder, store_path
        from sparkscore.files.hdfs_settings import hdfs_store, site_settings
        from sparkscore.files.s3_settings import s3_store

        given = self.settings.spark.conf.items()
        hadoop = {name.removeprefix("spark.hadoop."): value for name, value in given}
        try:
            check_place(uri, "target")
            store: Store | None = s3_store(uri, hadoop, os.environ)
            if store is None:
                sites = site_settings(os.environ) | hadoop

                def setting(name: str) -> str:
                    return sites.get(name, "")

                store = azure_store(uri, setting, os.environ) or hdfs_store(uri, setting)
        except EngineUnfitError as exc:
            raise TargetError(
                f"target {shown(uri)} cannot be reached without Spark, since {exc.reason}; "
                "VACUUM removes from there what killed jobs left"
            ) from exc
        return local_folder(uri) if store is None else store_path(store, uri)

    def check_clients(self, uris: Iterable[str], reason: str) -> None:
        """Refuse places that Spark shall open, for the reason, and has no client for.

        Raises:
            ConfigError: There is such a one.
        """
        from sparkscore.spark.store_settings import check_clients

        check_clients(self.spark, uris, reason)

    def spark_engine(self, name: str) -> SparkEngine:
        """The engine that Spark feeds: `arrow` or `pandas`."""
        from sparkscore.spark.engine import SparkEngine

        return SparkEngine(
            self.spark,
            name,
            self.trust,
            self.batch_limits,
            tree_runtime=self.tree_runtime,
            node_limits=self.node_limits,
        )

    @property
    def pipeline_engine(self) -> PipelineEngine:
        """The engine in which Spark itself applies a pipeline of Spark ML."""
        from sparkscore.spark.pipeline_engine import PipelineEngine

        return PipelineEngine(self.spark, trust=self.trust, limits=self.batch_limits)

    def delta_sink(self, uri: str) -> DeltaSink:
        """The score table that Spark writes, at a path or of a catalog name."""
        from sparkscore.spark.delta import DeltaSink

        return DeltaSink(self.spark, uri)

    @cached_property
    def registry(self) -> Registry:
        """Registered models over their store and their packages."""
        return Registry(self.models, self.artifacts, self.artifacts_at)

    @cached_property
    def outbox(self) -> OutboxRunStore:
        """The tracking store, with writes kept on disk while it is away.

        Raises:
            ConfigError: tracking.uri or artifacts.uri is of a kind that is not supported.
        """
        return OutboxRunStore(self.runs, self.settings.tracking.outbox, self.artifacts_at)

    @cached_property
    def tracking(self) -> Tracking:
        """Starts runs."""
        return Tracking(self.outbox, self.outbox.open_artifacts)

    def close(self) -> None:
        """Stop the Spark session, if this workspace opened one."""
        if "_session" not in vars(self):
            return
        session, is_ours = self._session
        if is_ours:
            from sparkscore.spark.session import stop_session

            stop_session(session)

    @cached_property
    def _session(self) -> tuple[SparkSession, bool]:
        """The session, and whether it was started for this workspace."""
        from sparkscore.spark.session import open_session, running_session

        before = running_session()
        session = open_session(self.session_settings, self.announce)
        return session, session is not before

    def _place_of_proxied(self, uri: str) -> str:
        """Where a server over these same settings keeps what clients send through it."""
        parts, kept = urlsplit(uri), self.settings.artifacts.uri
        if parts.netloc or urlsplit(kept).scheme == parts.scheme:
            raise InvalidNameError(
                f"artifact location {shown(uri)} is kept by a tracking server: set "
                "tracking.uri to its address"
            )
        return f"{kept.rstrip('/')}/{parse_artifact_path(parts.path.strip('/'))}".rstrip("/")

    def _place_of_record(self, scheme: str, uri: str) -> str:
        """Where the files lie that a run or a logged model holds."""
        record, _, path = uri.removeprefix(f"{scheme}:").strip("/").partition("/")
        if scheme == "runs":
            root = self.runs.get_run(parse_run_id(record)).artifact_uri
        else:
            root = self.logged_models.get_logged_model(record).artifact_uri
        return f"{root}/{parse_artifact_path(path)}".rstrip("/")

    @cached_property
    def _tracking_stores(self) -> SqlStores | RemoteStores:
        return self._remote or self._stores("tracking.uri", self.settings.tracking.uri)

    @cached_property
    def _remote(self) -> RemoteStores | None:
        """The tracking server's stores, if there is a server."""
        uri = self.settings.tracking.uri
        return self._open_remote("tracking.uri", uri) if _is_server(uri) else None

    def _stores(self, key: str, uri: str) -> SqlStores | RemoteStores:
        return self._open_remote(key, uri) if _is_server(uri) else self._sql(key, uri)

    def _sql(self, key: str, uri: str) -> SqlStores:
        if urlsplit(uri).scheme.partition("+")[0] not in _DATABASES:
            raise ConfigError(
                f"setting {key!r} is {shown(masked(key, uri))} ({self.resolved.origins[key]}): "
                "give sqlite:///FILE, postgresql://HOST/DATABASE or a server's http://HOST:PORT"
            )
        # SQLAlchemy takes longer to load than most commands take to run.
        from sparkscore.stores.sql import open_sql

        return open_sql(uri, self.artifact_root or self.artifacts.root_uri)

    def _open_remote(self, key: str, uri: str) -> RemoteStores:
        from sparkscore.stores.remote import Access, open_remote

        client = self.settings.client
        access = Access(
            username=client.username or "",
            password=client.password or "",
            token=client.token or "",
            timeout_s=client.timeout_s,
            max_tries=client.max_retries + 1,
            ca_file=client.ca_file,
            client_cert=client.client_cert,
            insecure_tls=client.insecure_tls,
        )
        try:
            return open_remote(uri, access)
        except InvalidNameError as exc:
            raise ConfigError(f"setting {key!r} ({self.resolved.origins[key]}): {exc}") from exc


def choose(settings: Mapping[str, object], forget: Iterable[str] = ()) -> None:
    """Lay settings over those of every workspace that this process opens from now on.

    Args:
        settings: Dotted key to value.
        forget: Keys of which the choice is taken back.
    """
    with _LOCK:
        for key in forget:
            _CHOSEN.pop(key, None)
        _CHOSEN.update(settings)


def default_workspace() -> Workspace:
    """The workspace that settings name; the same one as before while they are the same.

    Its stores keep connections, which a script that calls one function after the other shares.
    """
    fresh, folder = Workspace.open(), Path.cwd()
    with _LOCK:
        for held, of_folder in _LAST:
            if of_folder == folder and held.resolved == fresh.resolved:
                return held
        _LAST[:] = [(fresh, folder)]
    return fresh


def _is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")
