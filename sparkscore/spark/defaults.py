"""The Spark settings of a session that sparkscore starts; each with its reason."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"
DELTA_CATALOG = "org.apache.spark.sql.delta.catalog.DeltaCatalog"

EXTENSIONS_KEY = "spark.sql.extensions"
CATALOG_KEY = "spark.sql.catalog.spark_catalog"
JARS_KEY = "spark.jars"
DRIVER_OPTIONS_KEY = "spark.driver.extraJavaOptions"
_LOCAL = re.compile(r"local(?:\[(\*|\d+)(?:,\s*\d+)?\])?")
_LOCAL_TRIES = 4
_LOG_SETTINGS = Path(__file__).with_name("log4j2.properties")


def is_local(master: str) -> bool:
    """Whether `master` means this process: its workers share the driver's machine and files."""
    return _LOCAL.fullmatch(master) is not None


def with_tries(master: str) -> str:
    """`master`, with 4 tries a task where it is a local one that does not say how many.

    Plain `local[N]` ends the job at the first failed task, while every cluster tries four times:
    the same job must outlive a killed Python worker on a laptop too.
    """
    local = _LOCAL.fullmatch(master)
    if local is None or "," in master:
        return master
    return f"local[{local[1] or 1},{_LOCAL_TRIES}]"


def session_conf(
    conf: Mapping[str, str], master: str, jars: Iterable[Path], cache: Path
) -> dict[str, str]:
    """All settings of a new session: defaults, then `conf` over them, then what Delta needs.

    Args:
        conf: The user's own Spark settings; lists such as `spark.jars` are added to.
        master: Decides whether the defaults for one machine apply.
        jars: Delta's jars.
        cache: Folder of sparkscore's own files.
    """
    local = _LOCAL.fullmatch(master)
    chosen = _defaults(cache) | (_local_defaults(_slots(local[1])) if local else {}) | dict(conf)
    chosen[JARS_KEY] = joined(chosen.get(JARS_KEY), [str(jar) for jar in jars])
    chosen[EXTENSIONS_KEY] = joined(chosen.get(EXTENSIONS_KEY), [DELTA_EXTENSION])
    logging = f"-Dlog4j2.configurationFile={_LOG_SETTINGS.as_uri()}"
    chosen[DRIVER_OPTIONS_KEY] = f"{logging} {chosen.get(DRIVER_OPTIONS_KEY, '')}".strip()
    return chosen


def joined(present: str | None, added: Iterable[str]) -> str:
    """The comma-separated list `present` with those of `added` that it lacks."""
    items = [item.strip() for item in (present or "").split(",") if item.strip()]
    return ",".join(dict.fromkeys([*items, *added]))


def _slots(count: str | None) -> int:
    if count == "*":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores()
    return int(count or 1)


def _cores() -> int:
    return os.cpu_count() or 1


def _defaults(cache: Path) -> dict[str, str]:
    return {
        # Delta SQL, MERGE and DESCRIBE HISTORY resolve tables through this catalog.
        CATALOG_KEY: DELTA_CATALOG,
        # A timestamp must mean the same instant on every machine that runs the job.
        "spark.sql.session.timeZone": "UTC",
        # Managed tables and the empty folder Spark makes at start stay out of the working folder.
        "spark.sql.warehouse.dir": (cache.absolute() / "warehouse").as_uri(),
        # A model loaded in a Python worker is only kept if the worker is.
        "spark.python.worker.reuse": "true",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # What a crashed worker was doing, and where, comes back in the failure: see `task_slot`.
        "spark.python.worker.faulthandler.enabled": "true",
        "spark.sql.execution.pyspark.udf.faulthandler.enabled": "true",
        # Histories of keys are kept nowhere else, and windows need no heap there; of a micro-batch
        # only what has changed is written.
        "spark.sql.streaming.stateStore.providerClass": (
            "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
        ),
        "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
        # Progress is shown by sparkscore; two bars on one terminal overwrite each other.
        "spark.ui.showConsoleProgress": "false",
        # Wide plans are cut in the log, not in the job; 25 columns are few for a feature table.
        "spark.sql.debug.maxToStringFields": "200",
    }


def _local_defaults(slots: int) -> dict[str, str]:
    return {
        # No open port and no look-up of a host name that a laptop's network may not know.
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        # One idle worker a slot keeps each model loaded; more would pile up beside them.
        "spark.python.factory.idleWorkerMaxPoolSize": str(slots),
        # 200 and 50 tasks for one machine's merges and table logs cost seconds each.
        "spark.sql.shuffle.partitions": str(max(2 * slots, 4)),
        "spark.databricks.delta.snapshotPartitions": str(max(slots, 2)),
    }
