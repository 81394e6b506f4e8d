"""Reading YAML that others wrote: bounded, without tags, and each error with its line."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import yaml

from sparkscore.errors import PackageFormatError, shown

_MAX_BYTES = 10 * 1024 * 1024
_MAX_DEPTH = 64
# PyYAML writes a list that stands twice as an alias, so a few are honest. With 20, a bomb of
# nested anchors grows to some 1,500 items at most.
_MAX_ALIASES = 20
_MERGE_TAG = "tag:yaml.org,2002:merge"
_PLAIN_TAGS = tuple(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "seq", "map", "timestamp", "merge", "value")
)


def read_yaml(path: Path) -> dict[str, object]:
    """The mapping that a YAML file holds, as plain values; a byte order mark is skipped.

    Raises:
        PackageFormatError: Missing, empty, over 10 MB, not UTF-8, broken, nested over 64 deep,
            with a tag, a doubled key or aliases that grow; names the file and the line.
    """
    text = _text(path)
    try:
        raw = yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader that refuses more
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise PackageFormatError(f"{path}{line}: {exc.problem or exc.context}") from exc
    except yaml.reader.ReaderError as exc:  # It knows places, and no lines.
        number = text[: exc.position].count("\n") + 1
        raise PackageFormatError(
            f"{path} line {number}: the character U+{ord(text[exc.position]):04X} is not allowed"
        ) from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise PackageFormatError(f"{path}: no readable YAML: {exc}") from exc
    if not isinstance(raw, dict):
        found = "is empty" if raw is None else f"holds {shown(raw)}"
        raise PackageFormatError(f"{path} line 1: {found}; a mapping of keys is needed")
    bad = next((key for key in raw if not isinstance(key, str)), None)
    if bad is not None:
        raise PackageFormatError(f"{path}: the key {shown(bad)} must be text")
    return raw


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise PackageFormatError(f"{path} is missing or no regular file")
        n_bytes = path.stat().st_size
        if n_bytes > _MAX_BYTES:
            raise PackageFormatError(f"{path} has {n_bytes} bytes; at most {_MAX_BYTES} are read")
        data = path.read_bytes()
    except OSError as exc:
        raise PackageFormatError(f"{path} cannot be read: {exc.strerror}") from exc
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        raise PackageFormatError(
            f"{path} line {line}: byte 0x{data[exc.start]:02x} is no UTF-8; save it as UTF-8"
        ) from exc


class _StrictLoader(yaml.SafeLoader):
    """A SafeLoader for small trusted shapes: what a person would write, and nothing else."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.n_aliases = 0
        # One entry for each node around the present one; None where it has no anchor.
        self.open_anchors: list[str | None] = []

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self.n_aliases += 1
            if self.n_aliases > _MAX_ALIASES:
                raise _refusal(event, f"more than {_MAX_ALIASES} aliases")
            if event.anchor in self.open_anchors:
                raise _refusal(event, f"the alias {event.anchor!r} holds itself")
        self.open_anchors.append(getattr(event, "anchor", None))
        if len(self.open_anchors) > _MAX_DEPTH:
            raise _refusal(event, f"nested more than {_MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self.open_anchors.pop()
        if node is not None and node.tag not in _PLAIN_TAGS:
            raise _refusal(node, f"the tag {node.tag!r} is not allowed; nothing of it was run")
        return node

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE_TAG:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise _refusal(key_node, "a key must be text")
            if key in seen:
                raise _refusal(key_node, f"the key {key!r} stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _refusal(at: yaml.Node | yaml.Event, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)  # type: ignore[arg-type]
