"""What a saved Spark ML pipeline consists of, read off its files before Spark sees them.

Spark makes an object of whatever class a stage's metadata names, in the JVM or in Python. Spark's
own stages hold numbers and settings, but for one that holds SQL, which can call any Java method.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sparkscore.errors import PackageFormatError, UntrustedCodeError, listed, shown
from sparkscore.package.trust import TrustPolicy

_METADATA = "metadata"
_SPARK = "org.apache.spark.ml."
_NOT_BY_ITSELF = ("org.apache.spark.ml.feature.SQLTransformer",)
_LEAVES_ROWS_OUT = {"handleInvalid": "skip", "coldStartStrategy": "drop"}


@dataclass(frozen=True)
class Stage:
    """One object of a pipeline, as its metadata describes it.

    Attributes:
        uid: Spark's name of it, such as `VectorAssembler_1f2e`.
        class_name: Of Java, or of Python where the stage was written there.
        params: Those that were set, over the defaults.
    """

    uid: str
    class_name: str
    params: Mapping[str, object]

    @property
    def leaves_rows_out(self) -> bool:
        """Whether rows that it cannot take are missing from its answer."""
        return any(self.params.get(name) == value for name, value in _LEAVES_ROWS_OUT.items())


def read_stages(folder: Path, trust: TrustPolicy) -> tuple[Stage, ...]:
    """All objects of the pipeline in `folder`, those inside of others too.

    Raises:
        UntrustedCodeError: A class is not one of Spark's own that only computes, and `trust` does
            not allow it.
        PackageFormatError: It is no saved pipeline.
    """
    stages = tuple(_stage(path) for path in sorted(folder.rglob(_METADATA)) if path.is_dir())
    if not stages:
        raise PackageFormatError(f"{folder} is no saved Spark ML model: it has no {_METADATA}")
    refused = [
        stage.class_name
        for stage in stages
        if not (trust.allow_code or trust.allows(stage.class_name) or _only_computes(stage))
    ]
    if refused:
        raise UntrustedCodeError(
            f"{folder} has stages of {listed(dict.fromkeys(refused))}, which can run any code; "
            "Spark's own stages are allowed. If you know them, allow them by the setting "
            f"trust.types or the flag --trust {refused[0]}"
        )
    return stages


def _only_computes(stage: Stage) -> bool:
    return stage.class_name.startswith(_SPARK) and stage.class_name not in _NOT_BY_ITSELF


def _stage(folder: Path) -> Stage:
    """The stage whose metadata lies in `folder`, which must be all that Spark could read there."""
    texts = list(_texts(folder))
    try:
        (text,) = texts
        raw = json.loads(text)
    except ValueError as exc:
        raise PackageFormatError(f"{folder} does not hold one JSON object: {exc}") from exc
    parts = [raw.get(key) for key in ("uid", "class")] if isinstance(raw, dict) else []
    if not parts or not all(isinstance(part, str) for part in parts):
        raise PackageFormatError(f"{folder} names no class and uid: {shown(raw)}")
    params: dict[str, object] = {}
    for key in ("defaultParamMap", "paramMap"):
        given = raw.get(key) or {}
        if not isinstance(given, dict):
            raise PackageFormatError(f"{folder}: {key} must be an object, not {shown(given)}")
        params |= given
    _check_names(params.get("stageUids"), folder)
    return Stage(str(parts[0]), str(parts[1]), params)


def _check_names(uids: object, folder: Path) -> None:
    """Refuse stages that would lie elsewhere: Spark makes folders of their names."""
    names = uids if isinstance(uids, list) else []
    odd = [uid for uid in names if not isinstance(uid, str) or "/" in uid or "\\" in uid]
    if odd:
        raise PackageFormatError(f"{folder} names stages outside of the package: {listed(odd)}")


def _texts(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".")):  # Nor does Spark read them.
            continue
        if not path.is_file():
            raise PackageFormatError(f"{folder} holds {path.name!r}, which is no file")
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise PackageFormatError(f"{path} is no text: {exc}") from exc
        if text:
            yield text
