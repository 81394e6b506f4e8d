from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import sparkscore
from sparkscore.errors import SparkFailedError
from sparkscore.package import TrustPolicy
from sparkscore.spark.daemon import MODULE, PRELOAD_VARIABLE
from sparkscore.spark.node_cache import NodeLimits
from sparkscore.spark.preloading import DAEMON_KEY, load_preloaded
from sparkscore.workspace import Workspace


def wanted(**changed: object) -> str:
    """What a driver asks a daemon to load."""
    said = {
        "version": sparkscore.__version__,
        "digest": "0" * 64,
        "trust": asdict(TrustPolicy()),
        "tree_runtime": "auto",
        "node_limits": asdict(NodeLimits()),
        "predict": None,
    }
    return json.dumps(said | changed)


def test_setting_makes_the_daemons_of_a_session_ours() -> None:
    asked = Workspace.open(overrides={"spark.preload": True}).session_settings
    assert asked.conf[DAEMON_KEY] == MODULE
    assert DAEMON_KEY not in Workspace.open().session_settings.conf


def test_node_with_another_sparkscore_preloads_nothing() -> None:
    with pytest.raises(SparkFailedError, match=r"the driver 9\.9; install the same on all nodes"):
        load_preloaded(wanted(version="9.9"))


def test_package_that_is_not_on_the_node_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARKSCORE_NODE_CACHE", str(tmp_path / "node"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"sparkscore-{'0' * 64}.tar"):
        load_preloaded(wanted())


@pytest.mark.parametrize("asked", [None, "no JSON"])
def test_daemon_serves_spark_with_or_without_a_model(asked: str | None, tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environ.pop(PRELOAD_VARIABLE, None)
    if asked is not None:
        environ[PRELOAD_VARIABLE] = asked
    daemon = subprocess.Popen(
        [sys.executable, "-m", MODULE, "pyspark.worker"],
        cwd=tmp_path,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert daemon.stdout is not None
    assert int.from_bytes(daemon.stdout.read(4)) > 0, "its port, as Spark reads it"
    _, said = daemon.communicate(timeout=60)
    assert (b"no model is preloaded: JSONDecodeError" in said) == (asked is not None)
