"""Laying values from files, environment and flags over each other, each with its origin."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from sparkscore.conf.settings import masked
from sparkscore.errors import ConfigError, listed, nearest, shown

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Given:
    """One value that a layer gives; `is_text` where it came as text (environment, flag)."""

    key: str
    value: object
    origin: str
    is_text: bool = False


@dataclass(frozen=True)
class Described:
    """One value in force, as `config show` writes it."""

    key: str
    value: object
    origin: str


@dataclass(frozen=True)
class Resolved(Generic[M]):
    """Values in force, and per dotted key where each came from (`base.yaml:12`, `default`)."""

    values: M
    origins: Mapping[str, str]

    def described(self) -> list[Described]:
        """Every value by dotted key, as it may be shown: plain JSON types, secrets masked."""
        flat = _flat(self.values.model_dump(mode="json", by_alias=True), "")
        return [
            Described(key, masked(key, value), self.origins[key])
            for key, value in sorted(flat.items())
        ]


@dataclass(frozen=True)
class _Leaf:
    is_list: bool
    is_map: bool
    is_optional: bool


class Keys:
    """The dotted keys of a settings model."""

    def __init__(self, model: type[BaseModel], noun: str) -> None:
        self.noun = noun
        self.sections: dict[str, list[str]] = {"": _names(model)}
        self.leaves: dict[str, _Leaf] = {}
        self._collect(model, "")

    def is_section(self, key: str) -> bool:
        """Whether other keys lie below `key`, a mapping of free keys included."""
        return key in self.sections or (key in self.leaves and self.leaves[key].is_map)

    def holder(self, key: str) -> str | None:
        """The mapping of free keys that `key` lies in, if it lies in one."""
        maps = (name for name, leaf in self.leaves.items() if leaf.is_map)
        return next((name for name in maps if key.startswith(f"{name}.")), None)

    def check(self, key: str, origin: str) -> None:
        """Refuse a key that is not known, or that is a section and so has no value itself.

        Raises:
            ConfigError: With the origin and the nearest known key, or the section's keys.
        """
        if key in self.sections:
            raise ConfigError(
                f"{self.noun} {key!r} ({origin}) is a section; give one of its keys: "
                + ", ".join(f"{key}.{name}" for name in self.sections[key])
            )
        if key not in self.leaves and self.holder(key) is None:
            known = [*self.leaves, *(name for name in self.sections if name)]
            raise ConfigError(
                f"unknown {self.noun} {shown(key)} ({origin}){nearest(key, known)}; "
                f"{self._neighbours(key)}"
            )

    def _neighbours(self, key: str) -> str:
        section = key.rpartition(".")[0]
        section = section if section in self.sections else ""
        where = f"section {section!r}" if section else "the top level"
        return f"{where} has the keys {', '.join(self.sections[section])}"

    def _collect(self, model: type[BaseModel], prefix: str) -> None:
        for name, field in zip(_names(model), model.model_fields.values(), strict=True):
            key = f"{prefix}{name}"
            kinds = _without_none(field.annotation)
            section = kinds[0] if len(kinds) == 1 else None
            if isinstance(section, type) and issubclass(section, BaseModel):
                self.sections[key] = _names(section)
                self._collect(section, f"{key}.")
            else:
                origins = {get_origin(kind) for kind in kinds}
                optional = len(kinds) < len(_members(field.annotation))
                self.leaves[key] = _Leaf(tuple in origins, dict in origins, optional)


def from_yaml(path: Path, keys: Keys) -> list[Given]:
    """What a YAML file of nested mappings gives, in its order.

    Raises:
        ConfigError: The file cannot be read or parsed, or a key is unknown or given twice.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot read {path}: {exc}") from exc
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(exc).split())}") from exc
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path} holds no mapping of keys to values; write e.g. 'tracking:'")
    return list(_walk(root, "", path.name, keys))


def from_text(key: str, text: str, origin: str, keys: Keys) -> Given:
    """A value that came as text: a list is split at commas, an empty text unsets an optional.

    Raises:
        ConfigError: The key is unknown.
    """
    keys.check(key, origin)
    leaf = keys.leaves.get(key)
    value: object = text
    if leaf and leaf.is_list:
        value = [part.strip() for part in text.split(",") if part.strip()]
    elif leaf and leaf.is_optional and not text:
        value = None
    return Given(key, value, origin, is_text=True)


def from_flags(flags: Mapping[str, object], keys: Keys, origin: str) -> list[Given]:
    """What flags or a Python caller give: dotted key to text, or to a value of the right type.

    Raises:
        ConfigError: A key is unknown.
    """
    given: list[Given] = []
    for key, value in flags.items():
        leaf = keys.leaves.get(key)
        if leaf and leaf.is_map and isinstance(value, Mapping):
            given += [Given(f"{key}.{name}", item, origin) for name, item in value.items()]
        elif isinstance(value, str):
            given.append(from_text(key, value, origin, keys))
        else:
            keys.check(key, origin)
            given.append(Given(key, value, origin))
    return given


def resolve(model: type[M], given: Iterable[Given], keys: Keys) -> Resolved[M]:
    """The model's values, where a later layer wins over an earlier one, key by key.

    Raises:
        ConfigError: A value has the wrong type, or a required key is in no layer.
    """
    chosen = {item.key: item for item in given}
    tree: dict[str, object] = {}
    for item in chosen.values():
        _place(tree, item, keys)
    try:
        values = model.model_validate(tree)
    except ValidationError as exc:
        raise _refusal(exc, chosen, keys) from exc
    origins = {key: "default" for key, leaf in keys.leaves.items() if not leaf.is_map}
    return Resolved(values, origins | {key: item.origin for key, item in chosen.items()})


def _names(model: type[BaseModel]) -> list[str]:
    """What a file calls the fields: an alias where Python has the name for something else."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _flat(tree: Mapping[str, object], prefix: str) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        flat |= _flat(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return flat


def _members(annotation: object) -> tuple[object, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _without_none(annotation: object) -> list[object]:
    return [member for member in _members(annotation) if member is not type(None)]


def _walk(node: yaml.MappingNode, prefix: str, file: str, keys: Keys) -> Iterator[Given]:
    seen: set[str] = set()
    for name_node, value_node in node.value:
        origin = f"{file}:{name_node.start_mark.line + 1}"
        if not isinstance(name_node, yaml.ScalarNode):
            raise ConfigError(f"{origin}: a key must be plain text")
        key = f"{prefix}{name_node.value}"
        if key in seen:
            raise ConfigError(f"{keys.noun} {key!r} is given twice; the second is at {origin}")
        seen.add(key)
        if keys.is_section(key):
            yield from _section(value_node, key, origin, file, keys)
        else:
            keys.check(key, origin)
            yield Given(key, _plain(value_node, key, origin), origin)


def _section(node: yaml.Node, key: str, origin: str, file: str, keys: Keys) -> Iterator[Given]:
    if isinstance(node, yaml.MappingNode):
        yield from _walk(node, f"{key}.", file, keys)
    elif not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:null":
        names = keys.sections.get(key)
        such = f", such as {key}: {{{names[0]}: ...}}" if names else ""
        raise ConfigError(
            f"{keys.noun} {key!r} ({origin}) must be a mapping of keys to values{such}"
        )


def _plain(node: yaml.Node, key: str, origin: str) -> object:
    try:
        return yaml.SafeLoader("").construct_document(node)
    except (yaml.YAMLError, ValueError) as exc:
        reason = " ".join(str(exc).split())
        raise ConfigError(f"{key!r} ({origin}) has no readable value: {reason}") from exc


def _place(tree: dict[str, object], item: Given, keys: Keys) -> None:
    holder = keys.holder(item.key)
    *sections, last = (holder or item.key).split(".")
    if holder:
        sections, last = [*sections, last], item.key.removeprefix(f"{holder}.")
    for section in sections:
        below = tree.setdefault(section, {})
        assert isinstance(below, dict)
        tree = below
    tree[last] = item.value


def _refusal(exc: ValidationError, chosen: Mapping[str, Given], keys: Keys) -> ConfigError:
    error = exc.errors(include_url=False, include_context=False)[0]
    parts = [str(part) for part in error["loc"]]
    dotted = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    item = next((chosen[key] for key in dotted if key in chosen), None)
    if item is None:
        return ConfigError(
            f"{keys.noun} {dotted[0]!r} is missing; give it in the file or by a flag "
            f"(given: {listed(chosen)})"
        )
    reason = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    value = shown(masked(item.key, item.value))
    return ConfigError(f"{keys.noun} {item.key!r} is {value} ({item.origin}): {reason}")
