"""Opens what the settings name: stores, registry, tracking. It has no verbs of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparkscore.conf import Resolved, Settings, load_settings


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
