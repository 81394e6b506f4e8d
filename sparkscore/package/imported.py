"""Which installed libraries code of a model imports, read from it without running it."""

from __future__ import annotations

import ast
import pickletools
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.metadata import packages_distributions
from pathlib import Path

_OWN = ("sparkscore",)
_BY_NAME = "subimport"
"""How cloudpickle writes a module that a function uses: a call of this function by its name."""


def libraries_of_pickle(data: bytes) -> tuple[str, ...]:
    """The distributions whose modules a whole pickle names, sorted."""
    reading = _Reading()
    for opcode, argument, _ in pickletools.genops(data):
        reading.read(opcode, argument)
    return _distributions(reading.modules)


class _Reading:
    """The modules that a pickle's instructions name; no instruction is followed."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self._memo: dict[object, str | None] = {}
        # Texts that were pushed, in turn; None for whatever else.
        self._pushed: list[str | None] = [None, None]
        # Of the memo, those places that hold the function that imports by name.
        self._importers: set[object] = set()
        self._imports_next = False

    def read(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        name = opcode.name
        if "UNICODE" in name:
            self._push(str(argument))
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
            place = len(self._memo) if name == "MEMOIZE" else argument
            self._memo[place] = self._pushed[-1]
            if self._imports_next:
                self._importers.add(place)
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self._push(self._memo.get(argument))
            self._imports_next = argument in self._importers
        elif name == "GLOBAL":
            self._name(*str(argument).split(" ", 1))
        elif name == "STACK_GLOBAL":
            self._name(str(self._pushed[-2]), str(self._pushed[-1]))
        elif opcode.stack_after:
            self._push(None)

    def _name(self, module: str, function: str) -> None:
        self.modules.add(module)
        self._push(None)
        self._imports_next = function == _BY_NAME

    def _push(self, text: str | None) -> None:
        if self._imports_next and text is not None:
            self.modules.add(text)
        self._imports_next = False
        self._pushed.append(text)


def libraries_of_sources(paths: Iterable[Path]) -> tuple[str, ...]:
    """The distributions that Python files, and those below folders, import, sorted.

    A file that does not parse names none: whoever runs it says what is wrong with it.
    """
    return _distributions({name for path in _files(paths) for name in _imports(path)})


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _imports(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _distributions(modules: Iterable[str]) -> tuple[str, ...]:
    tops = {name.partition(".")[0] for name in modules}
    tops -= {*sys.stdlib_module_names, *_OWN}
    installed = _installed(tuple(_folders())) if tops else {}
    return tuple(sorted({installed[name][0] for name in tops if name in installed}))


def _folders() -> Iterator[tuple[str, int]]:
    """Where Python looks for modules, and when each folder last gained or lost one."""
    for folder in sys.path:
        try:
            yield folder, Path(folder).stat().st_mtime_ns
        except OSError:  # Python passes over it too.
            yield folder, 0


@lru_cache(maxsize=1)
def _installed(_state: tuple[tuple[str, int], ...]) -> Mapping[str, list[str]]:
    # Reads the lists of files of all that is installed, which takes longer than the rest of a save.
    return packages_distributions()
