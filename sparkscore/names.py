"""Names, URIs and paths from outside: parsed here once, or refused.

What comes in as `str` leaves as one of the types below and is not looked at again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NewType
from urllib.parse import unquote, urlsplit

from sparkscore.errors import InvalidNameError, shown

ModelName = NewType("ModelName", str)
AliasName = NewType("AliasName", str)
ExperimentName = NewType("ExperimentName", str)
RunId = NewType("RunId", str)
RunKey = NewType("RunKey", str)
ArtifactPath = NewType("ArtifactPath", str)

_MAX_NAME_CHARS = 500
_MAX_KEY_CHARS = 250
_ALIAS = re.compile(r"[\w\-]+", re.ASCII)
_RESERVED_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}", re.ASCII)
_RECORD_KEY = re.compile(r"[/\w.\-: ]+")
_TOPIC = re.compile(r"[\w.\-]{1,249}", re.ASCII)
_KAFKA = "kafka:"
_PYTHON = "python:"
_MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_MQTT_FORM = "mqtt://HOST:PORT/TOPIC/FILTER"
# Half a surrogate pair is no text either: neither a database nor a file system keeps it.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class PathRef:
    """A model that lies as a package folder at `path`."""

    path: Path


@dataclass(frozen=True)
class MqttSource:
    """A broker, and which topics are read.

    Attributes:
        name: The URI without its password.
        password: That of the URI, if it has one.
    """

    name: str
    host: str
    port: int
    is_encrypted: bool
    topic: str
    user: str | None
    password: str | None = field(repr=False)


@dataclass(frozen=True)
class VersionRef:
    """One version of a registered model."""

    name: ModelName
    version: int


@dataclass(frozen=True)
class AliasRef:
    """The version that an alias of a registered model points at."""

    name: ModelName
    alias: AliasName


@dataclass(frozen=True)
class LatestRef:
    """The READY version of a registered model with the highest number."""

    name: ModelName


ModelRef = PathRef | VersionRef | AliasRef | LatestRef


def parse_model_name(text: str) -> ModelName:
    """A registered model's name: 1 to 500 characters without `/`, `:`, `@` or control characters.

    Raises:
        InvalidNameError: The text is not such a name.
    """
    return ModelName(_bounded(text, "model name", forbidden="/:@"))


def parse_alias(text: str) -> AliasName:
    """An alias: letters, digits, `_` and `-`; not `latest` and not `v` with a number.

    Raises:
        InvalidNameError: The text is not such a name.
    """
    _bounded(text, "alias", max_chars=255)
    if not _ALIAS.fullmatch(text) or _RESERVED_ALIAS.fullmatch(text):
        raise InvalidNameError(
            f"alias {shown(text)} is not usable: take letters, digits, '_' and '-', "
            "and neither 'latest' nor 'v' with a number, which mean versions"
        )
    return AliasName(text)


def parse_experiment_name(text: str) -> ExperimentName:
    """An experiment's name: 1 to 500 characters without control characters.

    Raises:
        InvalidNameError: The text is not such a name.
    """
    return ExperimentName(_bounded(text, "experiment name"))


def parse_run_id(text: str) -> RunId:
    """A tracking run's id: 1 to 256 letters, digits, `_` and `-`.

    Raises:
        InvalidNameError: The text is not such an id.
    """
    if not _RUN_ID.fullmatch(text):
        raise InvalidNameError(f"run id {shown(text)} is not 1 to 256 letters, digits, '_' or '-'")
    return RunId(text)


def parse_run_key(text: str) -> RunKey:
    """The name that an orchestrator gives one logical run: 1 to 250 printable characters.

    Raises:
        InvalidNameError: The text is not such a key.
    """
    return RunKey(_bounded(text, "run key", max_chars=_MAX_KEY_CHARS))


def parse_record_key(text: str, noun: str) -> str:
    """The key of a param, metric or tag (`noun` says which, for the message).

    Raises:
        InvalidNameError: Empty, over 250 characters, `..` in it, a leading `/`, or other
            characters than letters, digits, `_-.:/` and space.
    """
    _bounded(text, noun, max_chars=_MAX_KEY_CHARS)
    if not _RECORD_KEY.fullmatch(text) or ".." in text or text.startswith("/"):
        raise InvalidNameError(
            f"{noun} {shown(text)} is not usable: take letters, digits, '_', '-', '.', ':', '/' "
            "and space, no '..' and no leading '/'"
        )
    return text


def parse_artifact_path(text: str) -> ArtifactPath:
    """A `/`-separated path below an artifact root; `""` is the root itself.

    Raises:
        InvalidNameError: Absolute, or with an empty, `.` or `..` part, a backslash or a
            control character, encoded or not.
    """
    plain = unquote(text)
    if plain == "":
        return ArtifactPath("")
    parts = plain.split("/")
    if _CONTROL.search(plain) or "\\" in plain or any(part in ("", ".", "..") for part in parts):
        raise InvalidNameError(
            f"artifact path {shown(text)} is not a plain relative path such as 'plots/roc.png'"
        )
    return ArtifactPath(text)


def parse_model_uri(text: str) -> ModelRef:
    """A model URI, as MLflow writes them.

    Args:
        text: `models:/name/3`, `models:/name@alias`, `models:/name/latest`, `file:///folder`
            or a folder's path.

    Raises:
        InvalidNameError: Another scheme, or a `models:` URI of another form.
    """
    if not text or _CONTROL.search(text):
        raise InvalidNameError(f"model URI {shown(text)} is empty or holds control characters")
    parts = urlsplit(text)
    if parts.scheme == "models":
        return _registered(text, text.removeprefix("models:").lstrip("/"))
    if parts.scheme == "file":
        return PathRef(Path(unquote(parts.path)))
    if parts.scheme:
        raise InvalidNameError(
            f"model URI {shown(text)} has the scheme {parts.scheme!r}; use models:/NAME/VERSION, "
            "models:/NAME@ALIAS, or the path of a package folder"
        )
    return PathRef(Path(text))


def kafka_topic(uri: str) -> str | None:
    """The topic that `kafka:TOPIC` names; None: the URI is of another kind.

    Raises:
        InvalidNameError: What it names is none.
    """
    if not uri.startswith(_KAFKA):
        return None
    topic = uri.removeprefix(_KAFKA)
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise InvalidNameError(
            f"{shown(uri)} names no topic of Kafka; write kafka:TOPIC, with letters, digits, '.', "
            "'_' and '-', and the brokers as --source-option kafka.bootstrap.servers=HOST:PORT"
        )
    return topic


def mqtt_source(uri: str) -> MqttSource | None:
    """What `mqtt://USER@HOST:PORT/TOPIC/FILTER` names, or `mqtts:`; None: it is of another kind.

    Raises:
        InvalidNameError: It names no broker, or what it names is no topic filter.
    """
    scheme, _, rest = uri.partition("://")
    if scheme not in _MQTT_PORTS:
        return None
    # Not urlsplit: the '#' at the end of a filter is no fragment.
    netloc, _, topic = rest.partition("/")
    login, _, address = netloc.rpartition("@")
    user, _, password = login.partition(":")
    host, colon, port = address.partition(":")
    name = f"{scheme}://{f'{user}@' if user else ''}{address}/{topic}"
    if not host or (colon and not port.isdecimal()):
        raise InvalidNameError(f"source {shown(name)} names no broker; write {_MQTT_FORM}")
    *above, last = levels = topic.split("/")
    is_odd = any("#" in level for level in above) or any(
        "+" in level and level != "+" for level in levels
    )
    if not topic or is_odd or ("#" in last and last != "#"):
        raise InvalidNameError(
            f"source {shown(name)} has no topic filter of MQTT's; write {_MQTT_FORM}, where + is "
            "one whole level, and # all that are left"
        )
    return MqttSource(
        name=name,
        host=host,
        port=int(port or _MQTT_PORTS[scheme]),
        is_encrypted=scheme == "mqtts",
        topic=topic,
        user=unquote(user) or None,
        password=unquote(password) or None,
    )


def python_class(uri: str) -> tuple[str, str] | None:
    """Module and class that `python:MODULE:CLASS` names; None: the URI is of another kind.

    Raises:
        InvalidNameError: It names no class.
    """
    if not uri.startswith(_PYTHON):
        return None
    module, _, name = uri.removeprefix(_PYTHON).partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise InvalidNameError(
            f"source {shown(uri)} names no class; write python:PACKAGE.MODULE:CLASS"
        )
    return module, name


def feed_name(uri: str) -> str | None:
    """What to call a source that sends rows and keeps no table; None: it is of another kind.

    Raises:
        InvalidNameError: It is one, and names nothing.
    """
    broker = mqtt_source(uri)
    if broker is not None:
        return broker.name
    is_feed = kafka_topic(uri) is not None or python_class(uri) is not None
    return uri if is_feed else None


def same_place(uri: str) -> str:
    """One name for a place: s3:, s3n: and s3a: are one store to Hadoop, abfs: is abfss:."""
    scheme, separator, rest = uri.partition("://")
    if separator and scheme in ("s3", "s3n", "s3a"):
        return f"s3a://{rest.rstrip('/')}"
    if separator and scheme in ("abfs", "abfss"):
        return f"abfss://{rest.rstrip('/')}"
    return uri


def are_one_place(first: str, second: str) -> bool:
    """Whether two URIs name one place, however their paths are written."""
    return _whole_place(first) == _whole_place(second)


def _whole_place(uri: str) -> str:
    place = same_place(uri)
    path = place.removeprefix("file://")
    return place if urlsplit(path).scheme else str(Path(path).absolute())


def _registered(uri: str, rest: str) -> ModelRef:
    name, at, alias = rest.partition("@")
    if at:
        return AliasRef(parse_model_name(name), parse_alias(alias))
    name, slash, version = rest.partition("/")
    if slash and version.isascii() and version.isdigit():
        return VersionRef(parse_model_name(name), int(version))
    if slash and version.casefold() == "latest":
        return LatestRef(parse_model_name(name))
    raise InvalidNameError(
        f"model URI {shown(uri)} is not of the form models:/NAME/VERSION, models:/NAME@ALIAS "
        "or models:/NAME/latest"
    )


def _bounded(text: str, noun: str, *, forbidden: str = "", max_chars: int = _MAX_NAME_CHARS) -> str:
    if not text.strip():
        raise InvalidNameError(f"{noun} is empty")
    if len(text) > max_chars:
        raise InvalidNameError(f"{noun} has {len(text)} characters; at most {max_chars} are kept")
    if _CONTROL.search(text) or any(char in forbidden for char in text):
        raise InvalidNameError(
            f"{noun} {shown(text)} holds a control character"
            + (f" or one of {' '.join(forbidden)}" if forbidden else "")
        )
    return text
