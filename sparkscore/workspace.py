"""Opens what the settings name: stores, registry, tracking. It has no verbs of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.conf import JobSettings, Resolved, load_job, load_settings
from sparkscore.errors import (
    ConfigError,
    EngineUnfitError,
    SignatureMismatchError,
    TargetError,
    shown,
)
from sparkscore.extras import missing_extra
from sparkscore.names import parse_model_uri
from sparkscore.opened_stores import OpenedStores
from sparkscore.package.signing import check_signed, parse_public_key
from sparkscore.package.trust import TrustPolicy
from sparkscore.registry import PinnedModel

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkscore.environments.build import BuiltEnvironment
    from sparkscore.files.filesystem import Store, TablePath
    from sparkscore.files.sink import FilesSink
    from sparkscore.flavors.base import TreeRuntime
    from sparkscore.outlets.base import Outlet
    from sparkscore.package.environment import Mismatch
    from sparkscore.package.layout import Package
    from sparkscore.scoring.batch import BatchLimits
    from sparkscore.scoring.facts import ModelFacts
    from sparkscore.spark.delta import DeltaSink
    from sparkscore.spark.engine import SparkEngine
    from sparkscore.spark.files_engine import FilesEngine
    from sparkscore.spark.jars import JarSource
    from sparkscore.spark.node_cache import NodeLimits
    from sparkscore.spark.pipeline_engine import PipelineEngine
    from sparkscore.spark.session import SessionSettings

_CHOSEN: dict[str, object] = {}
_LAST: list[tuple[Workspace, Path]] = []
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Workspace(OpenedStores):
    """The things that one command works with, each opened when it is first asked for."""

    announce: Callable[[str], None] | None = None
    """Told in one line what takes long, such as fetching jars."""

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
        return cls(load_settings(conf, target, given, os.environ), announce=announce)

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
        return BatchLimits(
            scoring.max_rows_per_batch, scoring.max_bytes_per_batch, scoring.batch_deadline_s
        )

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
        """Where the jars of Delta and of Kafka's connector come from."""
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

    def load_kafka(self) -> None:
        """Let the session read and write topics of Kafka.

        Raises:
            JarsUnavailableError: The connector's jars are neither cached nor to be had.
        """
        from sparkscore.spark.session import load_kafka

        load_kafka(self.spark, self.jar_source, self.announce)

    def pinned(self, uri: str) -> PinnedModel:
        """The package that a URI names now; its bytes are verified.

        Raises:
            InvalidNameError: The URI does not parse.
            ModelError: There is no such model, or its package is not intact.
        """
        return self.registry.resolve(parse_model_uri(uri), self.settings.cache.folder / "models")

    def model(self, uri: str, predict: str | None = None) -> ModelFacts:
        """The model that a URI names now, pinned to its digest; its bytes are verified.

        Args:
            uri: A model URI or a folder.
            predict: The function to ask, such as `predict_proba`; None: the packaged one.

        Raises:
            ConfigError: Models of its flavor have no such function.
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
        facts = ModelFacts(
            name=pinned.name,
            version=pinned.version,
            digest=pinned.digest,
            uri=pinned.uri,
            folder=pinned.folder,
            signature=signature,
        )
        return facts if predict is None else _asked_by(facts, pinned.package, predict)

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

    def environment_mismatches(self, models: Sequence[ModelFacts]) -> list[Mismatch]:
        """Each way in which the session's workers are not what the models' packages ask for.

        Raises:
            PackageFormatError: The package's files do not parse.
        """
        from sparkscore.package import open_package
        from sparkscore.package.environment import check_environment, names_needed
        from sparkscore.spark.worker_libraries import worker_libraries

        packages = [open_package(model.folder) for model in models]
        names = dict.fromkeys(name for package in packages for name in names_needed(package))
        found = [
            mismatch
            for here in worker_libraries(self.spark, list(names))
            for package in packages
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
            max_chunk_bytes=self.settings.scoring.max_chunk_bytes,
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
            max_chunk_bytes=self.settings.scoring.max_chunk_bytes,
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

    def outlet(self, uri: str) -> Outlet:
        """The place that a stream is published to; nothing is asked of it yet.

        Raises:
            ConfigError: There is none of the URI's scheme, or the URI is incomplete.
            MissingExtraError: The library that reaches it is not installed.
        """
        scheme = uri.partition(":")[0]
        try:
            if scheme in ("postgresql", "postgres"):
                from sparkscore.outlets.postgres import PostgresOutlet, parse_postgres_uri

                return PostgresOutlet(parse_postgres_uri(uri))
            if scheme == "kafka":
                from sparkscore.outlets.kafka import KafkaOutlet, parse_kafka_uri

                return KafkaOutlet(parse_kafka_uri(uri))
        except ModuleNotFoundError as exc:
            missing = missing_extra(exc, f"publishing to {scheme}")
            if missing is None:
                raise
            raise missing from exc
        raise ConfigError(
            f"a stream cannot be published to scheme {shown(scheme)}; name an outlet such as "
            "postgresql://HOST/DATABASE?table=TABLE or kafka:TOPIC?bootstrap.servers=HOST:PORT "
            "with --publish"
        )

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


def _asked_by(facts: ModelFacts, package: Package, predict: str) -> ModelFacts:
    """The model asked by another function; by the packaged one, it is the same as before."""
    from sparkscore.flavors.functions import asked_by
    from sparkscore.flavors.load import flavor_of

    asked = asked_by(package, flavor_of(package), predict)
    if asked is package:
        return facts
    assert asked.description.signature is not None  # The model has one.
    return replace(facts, signature=asked.description.signature, predict=predict)
