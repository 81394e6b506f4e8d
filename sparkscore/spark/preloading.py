"""Which model a session's Python daemons load before they fork workers, and loading it there."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import sparkscore
from sparkscore.errors import SparkFailedError
from sparkscore.flavors.base import TreeRuntime
from sparkscore.package.node_packages import hold_package
from sparkscore.package.trust import TrustPolicy
from sparkscore.spark.daemon import MODULE, PRELOAD_VARIABLE
from sparkscore.spark.defaults import is_local
from sparkscore.spark.node_cache import NodeLimits, loaded_model
from sparkscore.spark.threads import limited_threads

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkscore.spark.worker import ScoringTask

DAEMON_KEY = "spark.python.daemon.module"


def preloads(spark: SparkSession) -> bool:
    """Whether the Python daemons of a classic session are ours."""
    # The context's own answer is a copy of all settings, each fetched from the JVM by itself.
    return spark.conf.get(DAEMON_KEY, None) == MODULE


def packed_name(digest: str) -> str:
    """What a packed package is called among the files of a job."""
    return f"sparkscore-{digest}.tar"


def ask_for_preload(spark: SparkSession, task: ScoringTask) -> None:
    """Have the daemons of the next job load its model, where they are ours.

    Spark starts a daemon for each environment that a job asks for; earlier ones stay, with the
    models that they have.

    Args:
        spark: A classic session.
        task: What the job's workers do.
    """
    if not preloads(spark) or task.environment is not None:
        return
    if is_local(spark.sparkContext.master or ""):
        # A cluster's daemon finds the package among the files of the job.
        limit = task.node_limits.max_unpacked_bytes
        hold_package(task.digest, task.packed.open, limit).release()
    spark.sparkContext.environment[PRELOAD_VARIABLE] = json.dumps(
        {
            "version": sparkscore.__version__,
            "digest": task.digest,
            "trust": asdict(task.trust),
            "tree_runtime": task.tree_runtime.value,
            "node_limits": asdict(task.node_limits),
            "predict": task.predict,
        },
        sort_keys=True,
    )


def load_preloaded(wanted: str) -> None:
    """Load the model that `ask_for_preload` asked for into this process.

    Raises:
        SparkFailedError: This node's sparkscore is not the driver's.
        ModelError: The package cannot be loaded here.
        FileNotFoundError: The package is not on this node.
    """
    said = json.loads(wanted)
    if said["version"] != sparkscore.__version__:
        raise SparkFailedError(
            f"this node has sparkscore {sparkscore.__version__}, but the driver {said['version']}; "
            "install the same on all nodes"
        )
    digest = said["digest"]

    def open_packed() -> BinaryIO:
        return Path(packed_name(digest)).open("rb")

    with limited_threads(1):
        loaded_model(
            digest,
            TrustPolicy.from_plain(said["trust"]),
            open_packed,
            TreeRuntime(said["tree_runtime"]),
            NodeLimits(**said["node_limits"]),
            predict=said["predict"],
        )
