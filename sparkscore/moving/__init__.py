"""Moves a team's records: from MLflow's own stores into ours, and out to any MLflow server."""

from __future__ import annotations
