"""The jars that PySpark does not bring: from a folder, a cache, or a Maven repository.

PySpark ships Apache Ivy among its jars. Ivy, started as a program of its own, fetches Delta, or
Spark's connector to Kafka, and what they need from where the user's Maven or Ivy settings say, so
that a company's mirror works, and no address of a repository stands in this code.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sparkscore.errors import ConfigError, JarsUnavailableError
from sparkscore.spark.ivy import IvyProject, ivy_command
from sparkscore.spark.java import Java, spark_home

# The wheel delta-spark 4.4.1 is Python only and works with these jars; 4.4.0 is the newest
# release that every Maven repository we tried holds.
DELTA_VERSION = "4.4.0"
DELTA_PACKAGE = f"io.delta:delta-spark_4.2_2.13:{DELTA_VERSION}"
"""What `--packages` takes, for the pinned Spark 4.2 on Scala 2.13."""

_MARKER = "complete"
_FETCH_TIMEOUT_S = 900
_LOCK_TIMEOUT_S = 900
_VERSION_AND_SUFFIX = re.compile(r"-\d[\w.\-]*\.jar$")


@dataclass(frozen=True)
class JarBundle:
    """A module of Spark's world with the modules that it needs.

    Attributes:
        name: How messages and folders of the cache call it.
        organisation: Who publishes it.
        module: Its name without the releases of Spark and Scala.
        main_jar: Which file is its own; Ivy's folders put the organisation before its name.
        setup: The command that fetches it.
    """

    name: str
    organisation: str
    module: str
    main_jar: str
    setup: str


DELTA = JarBundle("Delta", "io.delta", "delta-spark", "*delta-spark_*.jar", "sparkscore setup")
KAFKA = JarBundle(
    "Kafka",
    "org.apache.spark",
    "spark-sql-kafka-0-10",
    "*spark-sql-kafka-0-10_*.jar",
    "sparkscore setup --kafka",
)
"""Spark's connector, of the release of the installed Spark."""


@dataclass(frozen=True)
class JarSource:
    """Where jars come from.

    Attributes:
        cache: Folder of sparkscore's own files; fetched jars are kept below it for good.
        folder: A folder that holds all needed jars; nothing is fetched then.
        version: Delta's release to fetch.
        ivy_settings: An `ivysettings.xml` to fetch by, before any other settings.
        home: The user's home, where `.ivy2` and `.m2` are looked for.
    """

    cache: Path
    folder: Path | None = None
    version: str = DELTA_VERSION
    ivy_settings: Path | None = None
    home: Path = Path("~")


def find_jars(source: JarSource, bundle: JarBundle = DELTA) -> tuple[Path, ...] | None:
    """The bundle's jars that are on this machine, or None where they must be fetched first.

    Raises:
        ConfigError: `source.folder` is no folder with the bundle's jars.
        MissingExtraError: PySpark is not installed.
    """
    if source.folder is not None:
        return _jars_of_folder(source.folder, bundle)
    store = _store(source, bundle)
    return _jars_in(store) if (store / _MARKER).is_file() else None


def resolve_jars(
    source: JarSource,
    java: Java,
    environ: Mapping[str, str],
    announce: Callable[[str], None] | None = None,
    bundle: JarBundle = DELTA,
) -> tuple[Path, ...]:
    """The bundle's jars, fetched once into the cache if they are not there.

    Safe to call from several processes at once: one of them fetches, the others wait for it.

    Args:
        source: Folder, cache and settings.
        java: Runs Ivy.
        environ: Read for HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
        announce: Told in one line what is about to be fetched, if anything is.
        bundle: Which jars.

    Returns:
        Absolute paths, sorted by name.

    Raises:
        ConfigError: `source.folder` is no folder with the bundle's jars.
        JarsUnavailableError: The jars could not be fetched; tells by which settings it was tried.
        MissingExtraError: PySpark is not installed.
    """
    ready = find_jars(source, bundle)
    if ready is not None:
        return ready
    with _locked(source, bundle) as store:
        if not (store / _MARKER).is_file():
            if announce is not None:
                announce(f"Fetching the jars of {_release(source, bundle)} into {store}")
            _fetch(source, java, environ, store, bundle)
    return _jars_in(store)


def keep_jars(source: JarSource, folder: Path) -> tuple[Path, ...]:
    """Copy the Delta jars of `folder` into the cache, in place of what is there.

    Raises:
        ConfigError: `folder` is no folder with Delta's jars.
        JarsUnavailableError: The cache cannot be written to.
    """
    jars = _jars_of_folder(folder, DELTA)
    with _locked(source, DELTA) as store, _draft(store) as draft:
        for jar in jars:
            shutil.copy2(jar, draft)
    return _jars_in(store)


def shipped_modules() -> tuple[str, ...]:
    """The modules that PySpark ships, which must not be on the class path twice."""
    jars = (spark_home() / "jars").glob("*.jar")
    return tuple(sorted({_VERSION_AND_SUFFIX.sub("", path.name) for path in jars}))


def _run_ivy(command: list[str]) -> str | None:
    """Why Ivy could not fetch; None: it did."""
    try:
        done = subprocess.run(  # noqa: S603 - our own command line, no shell
            command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no end after {_FETCH_TIMEOUT_S} s"
    return None if done.returncode == 0 else _reason(done.stdout + done.stderr)


def _reason(log: str) -> str:
    """The first line of Ivy's log that says what went wrong."""
    telling = ("Exception", "UNRESOLVED", "not found", "SERVER ERROR", "Error", "Unsupported")
    lines = (line.strip(" \t:*") for line in log.splitlines())
    return next((line for line in lines if any(word in line for word in telling)), "Ivy failed")


def _version(source: JarSource, bundle: JarBundle) -> str:
    return source.version if bundle is DELTA else _spark_and_scala()[0]


def _release(source: JarSource, bundle: JarBundle) -> str:
    return f"{bundle.name} {_version(source, bundle)}"


def _store(source: JarSource, bundle: JarBundle) -> Path:
    name = f"{bundle.name.lower()}-{_version(source, bundle)}"
    return source.cache.absolute() / "jars" / name


def _jars_in(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path.absolute() for path in folder.glob("*.jar")))


def _jars_of_folder(folder: Path, bundle: JarBundle) -> tuple[Path, ...]:
    if not any(folder.glob(bundle.main_jar)):
        fault = f"has no {bundle.main_jar[1:]}" if folder.is_dir() else "is not a folder"
        raise ConfigError(
            f"spark.jars names {str(folder)!r}, which {fault}; name a folder that holds "
            f"{bundle.name}'s jars, or leave the setting out and run: {bundle.setup}"
        )
    return _jars_in(folder)


@contextmanager
def _locked(source: JarSource, bundle: JarBundle) -> Iterator[Path]:
    """The cache's folder for the jars, while no other process fills it."""
    store = _store(source, bundle)
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{store}.lock", timeout=_LOCK_TIMEOUT_S):
            yield store
    except Timeout as exc:
        raise JarsUnavailableError(
            f"another process has been fetching the jars of {bundle.name} into {str(store)!r} for "
            f"{_LOCK_TIMEOUT_S} s; run the command again when it has ended"
        ) from exc
    except OSError as exc:
        raise JarsUnavailableError(
            f"the jars of {bundle.name} cannot be kept in {str(store)!r}: {exc}. Make that folder "
            "writable, or name a folder with the jars in the setting spark.jars"
        ) from exc


@contextmanager
def _draft(store: Path) -> Iterator[Path]:
    """A folder to fill, which then becomes `store` at once, so that `store` is never half full."""
    with tempfile.TemporaryDirectory(dir=store.parent, prefix=".fetch-") as scratch:
        draft = Path(scratch) / store.name
        draft.mkdir()
        yield draft
        (draft / _MARKER).touch()
        shutil.rmtree(store, ignore_errors=True)
        draft.rename(store)


def _fetch(
    source: JarSource, java: Java, environ: Mapping[str, str], store: Path, bundle: JarBundle
) -> None:
    project = IvyProject(
        organisation=bundle.organisation,
        module=_artifact(bundle),
        version=_version(source, bundle),
        excluded=shipped_modules(),
    )
    with _draft(store) as draft:
        command, tried = ivy_command(
            project,
            java,
            scratch=draft.parent,
            target=draft,
            home=source.home.expanduser(),
            settings=source.ivy_settings,
            environ=environ,
        )
        fault = _run_ivy(command)
        if fault is None and not any(draft.glob(bundle.main_jar)):
            fault = f"Ivy ended without the jar of {bundle.module}"
        if fault is not None:
            raise JarsUnavailableError(
                f"the jars of {_release(source, bundle)} are not cached and could not be fetched "
                f"by {tried}: {fault}. Run '{bundle.setup}' where the repository can be reached, "
                "or name a folder with the jars in the setting spark.jars"
            )


def _artifact(bundle: JarBundle) -> str:
    """The bundle's artifact for the installed Spark: Delta has one for each release of it."""
    spark, scala = _spark_and_scala()
    if bundle is DELTA:
        return f"{bundle.module}_{'.'.join(spark.split('.')[:2])}_{scala}"
    return f"{bundle.module}_{scala}"


def _spark_and_scala() -> tuple[str, str]:
    """The releases of the installed Spark and of its Scala, such as 4.2.0 and 2.13."""
    core = next((spark_home() / "jars").glob("spark-core_*.jar"))
    scala, _, spark = core.stem.removeprefix("spark-core_").partition("-")
    return spark, scala
