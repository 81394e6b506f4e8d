"""What a session says of object stores, for the libraries that reach them without Spark."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sparkscore.errors import ConfigError, EngineUnfitError, shown
from sparkscore.files.azure_settings import azure_store
from sparkscore.files.filesystem import (
    AZURE_SCHEMES,
    HDFS_SCHEME,
    S3_SCHEMES,
    Store,
    check_place,
)
from sparkscore.files.hdfs_settings import hdfs_store
from sparkscore.files.hdfs_store import HdfsStore
from sparkscore.files.s3_settings import hadoop_names, s3_store
from sparkscore.spark.failures import SPARK_FAILURES
from sparkscore.spark.shipping import is_connect

if TYPE_CHECKING:
    from py4j.java_gateway import JavaObject
    from pyspark.sql import SparkSession

_JARS = {
    **dict.fromkeys(S3_SCHEMES, "org.apache.hadoop:hadoop-aws"),
    **dict.fromkeys(AZURE_SCHEMES, "org.apache.hadoop:hadoop-azure"),
    "gs": "com.google.cloud.bigdataoss:gcs-connector",
}
_LOG_STORES = tuple(
    f"spark.delta.logStore.{scheme}.impl" for scheme in (*S3_SCHEMES, *AZURE_SCHEMES)
)
_HDFS_LOG_STORE = f"spark.delta.logStore.{HDFS_SCHEME}.impl"
_DELTAS_OWN = "io.delta.storage.HDFSLogStore"


def store_of(spark: SparkSession, uri: str, noun: str) -> Store | None:
    """The store in which a located URI lies; None where it lies on this machine.

    Args:
        spark: The session; its fs.s3a settings win over the AWS variables, and its
            fs.defaultFS says where paths without a scheme lie.
        uri: A path or URI, not a table of the catalog.
        noun: `source` or `target`, for messages.

    Raises:
        EngineUnfitError: Only Spark can reach it, or only Spark heeds a setting of it; or the
            session is one of Spark Connect.
        InvalidNameError: The URI holds credentials.
    """
    if is_connect(spark):
        raise EngineUnfitError(f"the workers of a Connect session may not see the {noun}")
    check_place(uri, noun)
    parts = urlsplit(uri)
    if parts.scheme in S3_SCHEMES:
        names = hadoop_names(parts.netloc)
        hadoop = {name: value for name in names if (value := _hadoop_setting(spark, name))}
        return s3_store(uri, hadoop, os.environ)
    setting = partial(_hadoop_setting, spark)
    return azure_store(uri, setting, os.environ) or hdfs_store(uri, setting)


def refuse_other_committers(spark: SparkSession, store: Store) -> None:
    """Refuse a session whose writers commit by other means than `deltalake` does in the store.

    Raises:
        EngineUnfitError: It names a log store, which would not see our commits, nor we its locks.
    """
    if isinstance(store, HdfsStore):
        if spark.conf.get(_HDFS_LOG_STORE, "") not in ("", _DELTAS_OWN):
            raise EngineUnfitError(f"{_HDFS_LOG_STORE} is set, which may not commit by renaming")
        return
    for name in _LOG_STORES:
        if spark.conf.get(name, ""):
            raise EngineUnfitError(
                f"{name} is set, by which Delta's writers agree among themselves"
            )
    if os.environ.get("AWS_S3_LOCKING_PROVIDER"):
        raise EngineUnfitError("AWS_S3_LOCKING_PROVIDER is set: commits go through another lock")


def check_clients(spark: SparkSession, uris: Iterable[str], reason: str) -> None:
    """Refuse places for which this Spark has no client; its own error is a page of Java.

    Args:
        spark: The session; a Connect server's clients are its own affair.
        uris: Paths, URIs or names of the catalog.
        reason: Why Spark shall open them.

    Raises:
        ConfigError: It has none for one of them.
    """
    if is_connect(spark):
        return
    for uri in uris:
        scheme = urlsplit(uri).scheme
        if "://" not in uri or scheme == "file":
            continue
        jvm: JavaObject = spark.sparkContext._jvm
        try:
            hadoop = spark.sparkContext._jsc.hadoopConfiguration()
            jvm.org.apache.hadoop.fs.FileSystem.getFileSystemClass(scheme, hadoop)
        except SPARK_FAILURES as exc:
            raise ConfigError(
                f"Spark has no client for {shown(uri)} ({reason}); start it with the jars of one, "
                f"such as {_JARS.get(scheme, 'those that the store names')}, by --packages or "
                "spark.jars.packages"
            ) from exc


def _hadoop_setting(spark: SparkSession, name: str) -> str:
    """A setting of the session, its context or Hadoop's own files; empty: there is none."""
    # PySpark has no public way to its Hadoop configuration.
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    return str(spark.conf.get(name, None) or hadoop.get(name) or "")
