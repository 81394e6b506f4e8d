"""A real HDFS on loopback: a name node and a data node in a Java process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sparkscore.files.filesystem import StorePath
from sparkscore.files.hdfs_store import HdfsStore
from sparkscore.spark.ivy import IvyProject
from sparkscore.spark.jars import shipped_modules
from sparkscore.spark.java import find_java, spark_home
from sparkscore.testing.maven_jars import fetched_jars

_MAIN = "org.apache.hadoop.mapreduce.MiniHadoopClusterManager"
_ASSERTIONS = ("org.junit.jupiter", "junit-jupiter-api", "5.12.2")
"""Hadoop's own cluster for tests asserts with it, and does not say so to Maven."""
_START_TIMEOUT_S = 120
_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m")


@dataclass(frozen=True)
class HdfsCluster:
    """A running cluster, whose user is the one of this process.

    Attributes:
        port: Where its name node listens.
    """

    port: int

    @property
    def name(self) -> str:
        """Host and port, as in a URI."""
        return f"127.0.0.1:{self.port}"

    @property
    def store(self) -> HdfsStore:
        """The cluster as a table's store."""
        return HdfsStore(self.name)

    def folder(self, name: str) -> StorePath:
        """A folder of the cluster, which need not be there."""
        return StorePath(self.store, f"{self.name}/{name}")


@contextmanager
def running_cluster(cache: Path, folder: Path) -> Iterator[HdfsCluster]:
    """A cluster that keeps its blocks in `folder`, until the block ends.

    Args:
        cache: Where the jars are kept for good; they are fetched as Delta's are.
        folder: An empty folder.
    """
    jars = (*_jars(cache), *_shipped("hadoop-client", "jcl-over-slf4j", "log4j", "slf4j-api"))
    details, log = folder / "details.json", folder / "log.txt"
    command = [
        str(find_java(cache, os.environ).executable),
        *_OPTIONS,
        f"-Dtest.build.data={folder}",
        *("-cp", os.pathsep.join(map(str, jars)), _MAIN),
        *("-nomr", "-format", "-writeDetails", str(details)),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command line, no shell
            command, stdout=output, stderr=subprocess.STDOUT, cwd=folder
        )
    try:
        yield HdfsCluster(_port(process, details, log))
    finally:
        process.kill()
        process.wait()


def _port(process: subprocess.Popen[bytes], details: Path, log: Path) -> int:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        text = details.read_text() if details.is_file() else ""
        if text.endswith("}"):
            port: int = json.loads(text)["namenode_port"]
            return port
        time.sleep(0.1)
    raise RuntimeError(f"no HDFS within {_START_TIMEOUT_S} s:\n{log.read_text()[-2000:]}")


def _jars(cache: Path) -> list[Path]:
    """Hadoop's cluster for tests, of the release that Spark brings the client of."""
    (client,) = _shipped("hadoop-client-api")
    version = client.stem.removeprefix("hadoop-client-api-")
    modules = (("org.apache.hadoop", "hadoop-client-minicluster", version), _ASSERTIONS)
    projects = [IvyProject(*module, shipped_modules()) for module in modules]
    return fetched_jars(cache, f"hadoop-minicluster-{version}", projects)


def _shipped(*names: str) -> list[Path]:
    """Jars that PySpark brings, by how they are called."""
    return [jar for name in names for jar in sorted((spark_home() / "jars").glob(f"{name}*.jar"))]
