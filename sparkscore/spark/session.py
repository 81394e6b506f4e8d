"""Opens the Spark session of a job: the running one, a Connect server's, or a new one."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkscore.errors import (
    ConfigError,
    JavaError,
    MissingExtraError,
    PortTakenError,
    SparkFailedError,
    SparkscoreError,
    shown,
)
from sparkscore.spark.defaults import (
    CATALOG_KEY,
    DELTA_CATALOG,
    DELTA_EXTENSION,
    DRIVER_OPTIONS_KEY,
    EXTENSIONS_KEY,
    JARS_KEY,
    joined,
    session_conf,
    with_tries,
)
from sparkscore.spark.jars import DELTA_PACKAGE, KAFKA, JarSource, find_jars, resolve_jars
from sparkscore.spark.java import find_java
from sparkscore.spark.launch import prepare_environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_STOP_S = 10
_KAFKA_CONNECTOR = "org.apache.spark.sql.kafka010.KafkaSourceProvider"
# The last one is the root logger, which Py4J uses too.
_PY4J_LOGGERS = ("py4j.clientserver", "py4j.java_gateway", "")
_QUERY_LOGGERS = ("SQLQueryContextLogger", "DataFrameQueryContextLogger")
_PORT_SIGNS = ("BindException", "Address already in use", "Failed to bind")


@dataclass(frozen=True)
class SessionSettings:
    """How to get a session.

    Attributes:
        jars: Where Delta's jars and sparkscore's own files lie.
        master: Spark master of a new session. A local one without a number of failures gets 4
            tries a task, as a cluster has; plain `local[N]` gives up at the first failure.
            Under `spark-submit` its `--master` counts instead.
        app_name: Name in Spark's own pages; under `spark-submit` its `--name` counts instead.
        remote: Address of a Spark Connect server (`sc://host:port`), instead of `master`;
            `local[N]` starts a server in this process.
        conf: Spark settings, word for word; they win over our defaults, and `spark-submit
            --conf` wins over them.
    """

    jars: JarSource
    master: str = "local[*]"
    app_name: str = "sparkscore"
    remote: str | None = None
    conf: Mapping[str, str] = field(default_factory=dict)


def open_session(
    settings: SessionSettings, announce: Callable[[str], None] | None = None
) -> SparkSession:
    """A session that reads and writes Delta tables; the running one, if there is one.

    Under `spark-submit` Delta may come with `--jars` or `--packages`, or it is added from the
    cache that `sparkscore setup` fills.

    Args:
        settings: How to get a session.
        announce: Told in one line what takes long, such as fetching jars.

    Raises:
        ConfigError: The running session or the Connect server has no Delta.
        JavaError: No usable Java, or the JVM ended while it started.
        JarsUnavailableError: The Delta jars are not cached and cannot be fetched.
        MissingExtraError: PySpark is not installed.
        PortTakenError: A port that was asked for is in use.
        SparkFailedError: Spark did not start for another reason.
    """
    session = running_session()
    _hush()
    if session is None:
        connects = settings.remote is not None and not settings.remote.startswith("local")
        session = _connect(settings) if connects else _start(settings, announce)
    _require_delta(session, settings)
    return session


def running_session() -> SparkSession | None:
    """The session that is active here, or None.

    Raises:
        MissingExtraError: PySpark is not installed.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError as exc:
        raise MissingExtraError(
            "PySpark is not installed; run: pip install 'sparkscore[spark]'"
        ) from exc
    return SparkSession.getActiveSession()


def load_kafka(
    session: SparkSession, source: JarSource, announce: Callable[[str], None] | None = None
) -> None:
    """Let a running session read and write Kafka; its nodes get the jars from the driver.

    Args:
        session: A classic one; `--packages` may have brought the connector before.
        source: Where its jars are, or are fetched to.
        announce: Told in one line what is about to be fetched, if anything is.

    Raises:
        JarsUnavailableError: They are neither cached nor to be had.
        ConfigError: `source.folder` has none.
    """
    if _has_class(_KAFKA_CONNECTOR):
        return
    jars = resolve_jars(
        source, find_java(source.cache, os.environ), os.environ, announce, bundle=KAFKA
    )
    # Not by ADD JAR: Java's own logins, and Spark's reports of failed tasks, do not look there.
    _show_to_driver(jars)
    for jar in jars:
        session.sparkContext._jsc.addJar(str(jar))


def stop_session(session: SparkSession) -> None:
    """Stop `session` and the JVM that was started for it; a submitted job's JVM is left alone."""
    # In a thread of its own: a signal may have left this one's connection to the JVM unusable.
    stopping = threading.Thread(target=_stop_quietly, args=(session,), daemon=True)
    stopping.start()
    stopping.join(_STOP_S)
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        return
    from pyspark import SparkContext

    # PySpark keeps its JVM for a next session, and has no public way to end it before the
    # process ends. Ended here, the next session can have another Java, memory or jars.
    gateway = SparkContext._gateway
    if gateway is not None:
        gateway.shutdown()
        gateway.proc.stdin.close()
        try:
            gateway.proc.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            gateway.proc.kill()
            gateway.proc.wait()
        SparkContext._gateway = SparkContext._jvm = None


def _stop_quietly(session: SparkSession) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # PySpark's, that the JVM is gone
        try:
            session.stop()
        except Exception:  # noqa: BLE001 - a JVM that was killed is stopped too
            return


def _hush() -> None:
    """Keep off stderr what is raised as well."""
    from pyspark.logger import PySparkLogger

    for name in _PY4J_LOGGERS:
        logging.getLogger(name).addFilter(_is_news)
    for name in _QUERY_LOGGERS:  # Made by PySpark: its callers give what others would not take.
        PySparkLogger.getLogger(name).addFilter(_is_no_failed_query)


def _is_no_failed_query(record: logging.LogRecord) -> bool:
    """Whether a record is anything but the trace, in Java, of a query that is no good."""
    return record.exc_info is None


def _is_news(record: logging.LogRecord) -> bool:
    # Py4J logs the trace of each call that fails, as many do after Ctrl-C; whoever called gets
    # the error itself.
    return record.exc_info is None or Path(record.pathname).parent.name != "py4j"


def _connect(settings: SessionSettings) -> SparkSession:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.remote(settings.remote or "").appName(settings.app_name)
    try:
        return _configured(builder, settings.conf).getOrCreate()
    except ImportError as exc:
        raise MissingExtraError(
            "Spark Connect needs more libraries; run: pip install 'sparkscore[connect]'"
        ) from exc
    except Exception as exc:  # gRPC and PySpark raise unrelated types here
        raise SparkFailedError(
            f"the Spark Connect server {shown(settings.remote)} gave no session: "
            f"{_first_line(exc)}. Check the address and that the server is up"
        ) from exc


def _start(settings: SessionSettings, announce: Callable[[str], None] | None) -> SparkSession:
    from pyspark.sql import SparkSession

    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    try:
        if submitted:
            added = _submitted_conf(settings, announce)
            return _configured(SparkSession.builder, added).getOrCreate()
        java = find_java(settings.jars.cache, os.environ)
        jars = resolve_jars(settings.jars, java, os.environ, announce)
        prepare_environment(java, os.environ, settings.jars.cache)
        master = with_tries(settings.remote or settings.master)
        conf = session_conf(settings.conf, master, jars, settings.jars.cache)
        if settings.remote is not None:
            return _start_connect_server(master, conf | {"spark.app.name": settings.app_name})
        builder = SparkSession.builder.master(master).appName(settings.app_name)
        return _configured(builder, conf).getOrCreate()
    except SparkscoreError:
        raise
    except Exception as exc:  # py4j and PySpark raise unrelated types here
        from sparkscore.spark.failures import of_ended_driver

        raise of_ended_driver(exc, "starting Spark") or _start_error(exc) from exc


def _start_connect_server(master: str, conf: Mapping[str, str]) -> SparkSession:
    from pyspark.sql import SparkSession

    # Given to the builder, the server's static settings would be sent to the running server too,
    # which warns about each; given to the launcher, they are there when it starts.
    before = os.environ.get("PYSPARK_SUBMIT_ARGS")
    options = [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"{shlex.join(options)} {before or 'pyspark-shell'}"
    try:
        return SparkSession.builder.remote(master).getOrCreate()
    finally:
        if before is None:
            del os.environ["PYSPARK_SUBMIT_ARGS"]
        else:
            os.environ["PYSPARK_SUBMIT_ARGS"] = before


def _configured(builder: SparkSession.Builder, conf: Mapping[str, str]) -> SparkSession.Builder:
    for key, value in conf.items():
        builder = builder.config(key, value)
    return builder


def _submitted_conf(
    settings: SessionSettings, announce: Callable[[str], None] | None
) -> dict[str, str]:
    """What to add to the settings of `spark-submit`; its own ones win, its lists are added to."""
    from pyspark import SparkConf, SparkContext

    SparkContext._ensure_initialized()  # connects to the JVM that is waiting
    given = dict(SparkConf().getAll())
    jars = () if _has_class(DELTA_EXTENSION) else _add_to_class_path(settings.jars, announce)
    wanted = session_conf(settings.conf, given.get("spark.master", ""), jars, settings.jars.cache)
    del wanted[DRIVER_OPTIONS_KEY]  # The JVM runs already.
    chosen = {key: value for key, value in wanted.items() if key not in given}
    for key in (JARS_KEY, EXTENSIONS_KEY):
        chosen[key] = joined(given.get(key), wanted[key].split(","))
    return chosen


def _has_class(name: str) -> bool:
    from py4j.protocol import Py4JJavaError

    try:
        _thread().getContextClassLoader().loadClass(name)
    except Py4JJavaError:
        return False
    return True


def _add_to_class_path(
    source: JarSource, announce: Callable[[str], None] | None
) -> tuple[Path, ...]:
    """Let the waiting JVM see Delta's jars; executors get them through `spark.jars`."""
    java = find_java(source.cache, os.environ)
    jars = resolve_jars(source, java, os.environ, announce)
    _show_to_driver(jars)
    return jars


def _show_to_driver(jars: Iterable[Path]) -> None:
    """Let the driver's JVM see jars, as `--jars` would have done.

    Python jobs run under a class loader that takes more of them, also while Spark runs.
    """
    from pyspark import SparkContext

    loader = _thread().getContextClassLoader()
    for jar in jars:
        loader.addURL(SparkContext._jvm.java.io.File(str(jar)).toURI().toURL())  # type: ignore[union-attr]


def _thread() -> Any:  # noqa: ANN401 - an object of the JVM has no Python type
    from pyspark import SparkContext

    return SparkContext._jvm.java.lang.Thread.currentThread()  # type: ignore[union-attr]


def _require_delta(session: SparkSession, settings: SessionSettings) -> None:
    if DELTA_EXTENSION in (session.conf.get(EXTENSIONS_KEY, "") or ""):
        return
    if settings.remote is not None:
        place = f"the Spark Connect server {shown(settings.remote)} runs without Delta; start it"
    else:
        place = "the running Spark session is without Delta; stop it and run again, or start it"
    jars = find_jars(settings.jars)
    raise ConfigError(f"{place} with: {submit_options(jars)}")


def submit_options(jars: tuple[Path, ...] | None) -> str:
    """The options that give Delta to `spark-submit`, `pyspark` or a Connect server."""
    source = f"--jars {','.join(map(str, jars))}" if jars else f"--packages {DELTA_PACKAGE}"
    return (
        f"{source} --conf {EXTENSIONS_KEY}={DELTA_EXTENSION} --conf {CATALOG_KEY}={DELTA_CATALOG}"
    )


def _start_error(exc: Exception) -> SparkscoreError:
    text = str(exc)
    if any(sign in text for sign in _PORT_SIGNS):
        return PortTakenError(
            f"Spark could not open a port that it was told to use: {_first_line(exc)}. Free the "
            "port, or leave spark.driver.port, spark.ui.port and spark.blockManager.port out of "
            "the settings, so that Spark takes free ones"
        )
    if "JAVA_GATEWAY_EXITED" in text or "Java gateway process exited" in text:
        return JavaError(
            f"the JVM of JAVA_HOME {shown(os.environ.get('JAVA_HOME'))} ended while Spark started; "
            "its own message stands above. Usual causes: an option in JAVA_TOOL_OPTIONS or "
            "spark.driver.extraJavaOptions that this Java does not know, or spark.driver.memory "
            "above the machine's; 'sparkscore doctor' checks Java and Spark"
        )
    return SparkFailedError(
        f"Spark did not start: {_first_line(exc)}. 'sparkscore doctor' checks Java, Spark and "
        "Delta's jars; --debug shows the whole trace"
    )


def _first_line(exc: Exception) -> str:
    """The line of a Java trace that names the cause, else the first line of the message."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:")]
    telling = causes or [line for line in lines if "Exception" in line or "Error" in line] or lines
    return (telling or [type(exc).__name__])[-1 if causes else 0][:300]
