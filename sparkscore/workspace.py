"""Opens what the settings name: stores, registry, tracking. It has no verbs of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sparkscore.conf import Resolved, Settings, load_settings
from sparkscore.conf.settings import masked
from sparkscore.errors import ConfigError, shown
from sparkscore.stores.base import ArtifactStore, ModelStore, RunStore
from sparkscore.stores.local_files import LocalArtifactStore

if TYPE_CHECKING:
    from sparkscore.stores.sql import SqlStores


@dataclass(frozen=True)
class Workspace:
    """The things that one command works with, each opened when it is first asked for."""

    resolved: Resolved[Settings]

    @classmethod
    def open(
        cls,
        conf: Path | None = None,
        target: str | None = None,
        overrides: Mapping[str, object] | None = None,
    ) -> Workspace:
        """The workspace that files, environment and overrides describe; opens nothing yet.

        Args:
            conf: Folder of the YAML files; None: SPARKSCORE_CONF, else `./conf` if it is there.
            target: File laid over base.yaml; None: SPARKSCORE_CONF_TARGET, else `local`.
            overrides: Dotted key to value, such as {"tracking.uri": "sqlite:///x.db"}.

        Raises:
            ConfigError: The settings do not hold together.
        """
        return cls(load_settings(conf, target, overrides or {}, os.environ))

    @property
    def settings(self) -> Settings:
        """All settings in force."""
        return self.resolved.values

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """Files of runs and packages of model versions.

        Raises:
            ConfigError: artifacts.uri is of a kind that is not supported.
        """
        uri = self.settings.artifacts.uri
        self._check("artifacts.uri", uri, ("", "file"), "a folder or file:///FOLDER")
        return LocalArtifactStore.at(uri)

    def artifacts_at(self, uri: str) -> ArtifactStore:
        """The files below the artifact URI of a run, wherever that lies.

        Raises:
            InvalidNameError: The URI is of a kind that is not supported.
        """
        return LocalArtifactStore.at(uri)

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
        return self._sql("registry.uri", uri).models

    @cached_property
    def _tracking_stores(self) -> SqlStores:
        return self._sql("tracking.uri", self.settings.tracking.uri)

    def _sql(self, key: str, uri: str) -> SqlStores:
        self._check(key, uri, ("sqlite",), "sqlite:///FILE")
        # SQLAlchemy takes longer to load than most commands take to run.
        from sparkscore.stores.sql import open_sql

        return open_sql(uri, self.artifacts.root_uri)

    def _check(self, key: str, uri: str, schemes: tuple[str, ...], supported: str) -> None:
        if urlsplit(uri).scheme.partition("+")[0] not in schemes:
            raise ConfigError(
                f"setting {key!r} is {shown(masked(key, uri))} ({self.resolved.origins[key]}): "
                f"this release supports {supported}"
            )
