"""How a package and our own source leave the driver: as a broadcast, or as files.

A broadcast reaches each executor once and is kept by it. Packages above BROADCAST_MAX_BYTES go as
a file of the job, so that neither driver nor executor holds them in memory, and so do all
packages of a Spark Connect session, which has no broadcasts, and of one that preloads models, whose
daemons can read no broadcast.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import sparkscore
from sparkscore.environments.build import BuiltEnvironment
from sparkscore.environments.node import packed_environment, unpacked_environment
from sparkscore.environments.source import zipped_source
from sparkscore.errors import UsageError
from sparkscore.package.archive import pack, pack_into
from sparkscore.spark.defaults import is_local
from sparkscore.spark.preloading import packed_name, preloads
from sparkscore.spark.worker import PackedPackage

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import SparkSession

BROADCAST_MAX_BYTES = 64 * 2**20

_supplied: weakref.WeakSet[object] = weakref.WeakSet()
"""Contexts and Connect sessions whose executors have our source."""


@dataclass(frozen=True)
class BroadcastPackage:
    """A packed package in a Spark broadcast."""

    broadcast: Broadcast[bytes]

    def open(self) -> BinaryIO:
        """The bytes, fetched by the executor when it first asks for them."""
        return io.BytesIO(self.broadcast.value)


@dataclass(frozen=True)
class FilePackage:
    """A packed package as a file that Spark copied to each node."""

    name: str

    def open(self) -> BinaryIO:
        """The node's copy."""
        from pyspark import SparkFiles

        return Path(SparkFiles.get(self.name)).open("rb")


@dataclass(frozen=True)
class LocalEnvironment:
    """An environment on the machine where all workers are."""

    key: str
    python: Path
    source: Path

    def open(self) -> tuple[Path, Path]:
        """Its interpreter and its copy of sparkscore."""
        return self.python, self.source


@dataclass(frozen=True)
class FileEnvironment:
    """An environment as an archive that Spark copied to each node."""

    key: str
    name: str
    source: str

    def open(self) -> tuple[Path, Path]:
        """Its interpreter and its copy of sparkscore, in the node's unpacked copy.

        Raises:
            EnvironmentBuildError: It cannot be unpacked here.
        """
        from pyspark import SparkFiles

        folder = unpacked_environment(Path(SparkFiles.get(self.name)))
        return folder / "bin" / "python", folder / self.source


def check_takes_environments(spark: SparkSession) -> None:
    """Refuse a session that cannot send an environment to its nodes.

    Raises:
        UsageError: The session is a Connect one.
    """
    if is_connect(spark):
        raise UsageError(
            "a Spark Connect session takes no environment of a model's own along (--env-manager "
            "virtualenv); run the job in a classic session (spark.master), or install on the "
            "server's workers what `sparkscore env check MODEL` lists"
        )


def ship_environment(
    spark: SparkSession, built: BuiltEnvironment
) -> LocalEnvironment | FileEnvironment:
    """Send an environment to the nodes of a classic session, if they are not this machine.

    Raises:
        UsageError: The session is a Connect one.
    """
    check_takes_environments(spark)
    if is_local(spark.sparkContext.master or ""):
        return LocalEnvironment(built.key, built.python, built.source)
    archive = packed_environment(built)
    spark.sparkContext.addFile(str(archive))
    return FileEnvironment(built.key, archive.name, built.source.name)


def ship(
    spark: SparkSession, folder: Path, digest: str, broadcast_max_bytes: int = BROADCAST_MAX_BYTES
) -> PackedPackage:
    """Send the package in `folder`, and the code that reads it, to the nodes of `spark`.

    Args:
        spark: A classic or a Connect session.
        folder: The package's folder, verified.
        digest: Its package digest; names the file.
        broadcast_max_bytes: A package whose files are larger than this goes as a file.
    """
    ship_code(spark)
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if is_connect(spark) or preloads(spark) or n_bytes > broadcast_max_bytes:
        return _as_file(spark, folder, digest)
    return BroadcastPackage(spark.sparkContext.broadcast(pack(folder)))


def ship_code(spark: SparkSession) -> None:
    """Send sparkscore's own source to executors that may not have it, once per session.

    It wins over a sparkscore that is installed there, so that driver and workers never differ.
    A local session's workers share the driver's files, so that nothing is sent. What it imports is
    not sent: executors need pyarrow, pandas, numpy, cloudpickle, filelock, packaging, pyyaml,
    threadpoolctl and the model's own libraries.

    Args:
        spark: A classic or a Connect session.
    """
    source = Path(sparkscore.__file__).parent
    owner: object = spark if is_connect(spark) else spark.sparkContext
    # Run from a zip of `--py-files` there is no folder, and Spark has sent that zip already.
    if (
        owner in _supplied
        or is_local(spark.conf.get("spark.master", "") or "")
        or not source.is_dir()
    ):
        return
    zipped = zipped_source(source)
    name = f"sparkscore-{hashlib.sha256(zipped).hexdigest()[:16]}.zip"
    path = _new_file(owner, name)
    path.write_bytes(zipped)
    if is_connect(spark):
        spark.addArtifacts(str(path), pyfile=True)
    else:
        spark.sparkContext.addPyFile(str(path))
    _supplied.add(owner)


def is_connect(spark: SparkSession) -> bool:
    """Whether the session is a Spark Connect client, which has no SparkContext."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def _as_file(spark: SparkSession, folder: Path, digest: str) -> FilePackage:
    name = packed_name(digest)
    path = _new_file(spark if is_connect(spark) else spark.sparkContext, name)
    with path.open("wb") as file:
        pack_into(folder, file)
    if is_connect(spark):
        spark.addArtifacts(str(path), file=True)
    else:
        spark.sparkContext.addFile(str(path))
    return FilePackage(name)


def _new_file(owner: object, name: str) -> Path:
    """Where to write a file that lives as long as `owner`.

    Executors fetch it when their first task starts.
    """
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-ship-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder / name
