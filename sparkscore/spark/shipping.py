"""How a packed package leaves the driver: as a broadcast, or as a file where that fits better.

A broadcast reaches each executor once and is kept by it. Packages above BROADCAST_MAX_BYTES go as
a file of the job, so that neither driver nor executor holds them in memory, and so do all
packages of a Spark Connect session, which has no broadcasts.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.package.archive import pack
from sparkscore.spark.worker import PackedPackage

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import SparkSession

BROADCAST_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class BroadcastPackage:
    """A packed package in a Spark broadcast."""

    broadcast: Broadcast[bytes]

    def read(self) -> bytes:
        """The bytes, fetched by the executor at the first read."""
        return self.broadcast.value


@dataclass(frozen=True)
class FilePackage:
    """A packed package as a file that Spark copied to each node."""

    name: str

    def read(self) -> bytes:
        """The bytes of the node's copy."""
        from pyspark import SparkFiles

        return Path(SparkFiles.get(self.name)).read_bytes()


def ship(spark: SparkSession, folder: Path, digest: str) -> PackedPackage:
    """Send the package in `folder` to the nodes of `spark`, once per session and digest.

    Args:
        spark: A classic or a Connect session.
        folder: The package's folder, verified.
        digest: Its package digest; names the file.
    """
    packed = pack(folder)
    if is_connect(spark):
        return _as_file(spark, packed, digest)
    if len(packed) > BROADCAST_MAX_BYTES:
        return _as_file(spark, packed, digest)
    return BroadcastPackage(spark.sparkContext.broadcast(packed))


def is_connect(spark: SparkSession) -> bool:
    """Whether the session is a Spark Connect client, which has no SparkContext."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def _as_file(spark: SparkSession, packed: bytes, digest: str) -> FilePackage:
    name = f"sparkscore-{digest}.tar"
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-ship-"))
    path = folder / name
    path.write_bytes(packed)
    if is_connect(spark):
        spark.addArtifacts(str(path), file=True)
        path.unlink()
        folder.rmdir()
    else:
        spark.sparkContext.addFile(str(path))
    return FilePackage(name)
