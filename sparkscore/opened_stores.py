"""Opens the stores that the settings name: runs, models, files, users. It has no verbs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sparkscore.conf import Resolved, Settings
from sparkscore.conf.settings import ArtifactSettings, masked
from sparkscore.errors import ConfigError, InvalidNameError, shown
from sparkscore.names import parse_artifact_path, parse_run_id
from sparkscore.registry import Registry
from sparkscore.stores.accounts_base import AccountStore
from sparkscore.stores.base import ArtifactStore, RunStore
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.models_base import LoggedModelStore, ModelStore
from sparkscore.stores.outbox import OutboxRunStore
from sparkscore.stores.purges_base import PurgeStore
from sparkscore.stores.webhooks_base import WebhookStore
from sparkscore.tracking import Tracking

if TYPE_CHECKING:
    from sparkscore.stores.remote import RemoteStores
    from sparkscore.stores.sql import SqlStores

_SERVER_ROOT = "mlflow-artifacts:/"
_DATABASES = ("sqlite", "postgresql", "postgres")


@dataclass(frozen=True)
class OpenedStores:
    """The stores that one command works with, each opened when it is first asked for."""

    resolved: Resolved[Settings]
    artifact_root: str | None = None
    """URI below which new experiments of a database keep files; None: artifacts.uri."""

    @property
    def settings(self) -> Settings:
        """All settings in force."""
        return self.resolved.values

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
        return self._tracking_database("users are kept").accounts

    @property
    def purges(self) -> PurgeStore:
        """What was deleted in the database of runs, and which files are left to be removed.

        Raises:
            ConfigError: tracking.uri names no database, but a server.
        """
        return self._tracking_database("what was deleted is cleared up").purges

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

    def _tracking_database(self, purpose: str) -> SqlStores:
        uri = self.settings.tracking.uri
        if _is_server(uri):
            raise ConfigError(
                f"setting 'tracking.uri' is {shown(masked('tracking.uri', uri))}, a server: "
                f"{purpose} in its database, so run this where that is"
            )
        return self._sql("tracking.uri", uri)

    def _stores(self, key: str, uri: str) -> SqlStores | RemoteStores:
        return self._open_remote(key, uri) if _is_server(uri) else self._sql(key, uri)

    def _sql(self, key: str, uri: str) -> SqlStores:
        if urlsplit(uri).scheme.partition("+")[0] not in _DATABASES:
            raise ConfigError(
                f"setting {key!r} is {shown(masked(key, uri))} ({self.resolved.origins[key]}): "
                "give sqlite:///FILE, postgresql://HOST/DATABASE or a server's http://HOST:PORT"
            )
        if uri not in self._sql_by_uri:
            # SQLAlchemy takes longer to load than most commands take to run.
            from sparkscore.stores.sql import open_sql

            opened = open_sql(uri, self.artifact_root or self.artifacts.root_uri)
            self._sql_by_uri.setdefault(uri, opened)
        return self._sql_by_uri[uri]

    @cached_property
    def _sql_by_uri(self) -> dict[str, SqlStores]:
        """The databases that were asked for: all stores of one share its connections and queue."""
        return {}

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


def _is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")
