"""Python code that a package brings along, importable for as long as its model needs it.

Two packages may bring modules of one name and of different content, and one worker may have both.
So a package's modules can be found, and are in `sys.modules`, only while the model is loaded and
while it is asked; in between, they are kept here. What is imported late, in
`predict`, is found as it was while loading. A process has one list of modules: such models wait
for each other, and a thread that a model leaves behind must not import.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.machinery import ModuleSpec, PathFinder, all_suffixes
from pathlib import Path
from types import ModuleType

from sparkscore.errors import PackageFormatError, listed
from sparkscore.package.layout import resolve_inside

_FOUNDATION = {"cloudpickle", "numpy", "pandas", "pyarrow", "py4j", "pyspark", "sparkscore"}
"""What this process runs on is not replaced, nor is the standard library."""

_lock = threading.RLock()
_active: list[PackageCode] = []
"""Whose code is importable: the last one's; those before wait, since their models ask it."""


class PackageCode:
    """The code of one package; its modules are its own, whatever else the process has imported."""

    def __init__(self, package: Path, folder: Path | None) -> None:
        self._package = package.resolve()
        self._path = None if folder is None else str(folder.resolve())
        self._names = set() if folder is None else set(_top_level_names(folder))
        self._folders = {name for name in self._names if self._is_mere_folder(name)}
        self._modules: dict[str, ModuleType] = {}
        self._hidden: dict[str, ModuleType] = {}
        self._before: set[str] = set()
        self._wrote_no_bytecode = False

    def brings(self, module: str) -> bool:
        """Whether a module of this name lies in the folder."""
        return module.partition(".")[0] in self._names

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a module of this package is, as importlib asks its finders."""
        if path is not None or name not in self._names - self._folders:
            return None
        assert self._path is not None
        return PathFinder.find_spec(name, [self._path], target)

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Let this package's code be imported, and find what it has imported before."""
        with _lock:
            outer = _active[-1] if _active else None
            if outer is self:
                yield
                return
            if outer is not None:
                outer._leave()
            self._enter()
            _active.append(self)
            try:
                yield
            finally:
                _active.pop()
                self._leave()
                if outer is not None:
                    outer._enter()

    def _enter(self) -> None:
        self._hidden = self._take(self._of_others())
        sys.modules.update(self._modules)
        self._before = set(sys.modules)
        # Files beside the sealed ones would be taken for a package that was tampered with.
        self._wrote_no_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        if self._path is not None:
            sys.meta_path.insert(0, self)
            # Mere folders are found by it, and last, as Python has it.
            sys.path.append(self._path)

    def _leave(self) -> None:
        new = sys.modules.keys() - self._before
        own = {name for name in new if self._holds(sys.modules[name])}
        self._modules = self._take(own | (self._modules.keys() & sys.modules.keys()))
        sys.modules.update(self._hidden)
        sys.dont_write_bytecode = self._wrote_no_bytecode
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        if self._path in sys.path:
            sys.path.remove(self._path)

    def _of_others(self) -> set[str]:
        """Modules of the process that stand in the way of this package's own."""
        top = {
            name
            for name in self._names & sys.modules.keys()
            if name not in self._folders or getattr(sys.modules[name], "__file__", None) is None
        }
        return {name for name in sys.modules if name.partition(".")[0] in top} if top else set()

    def _is_mere_folder(self, name: str) -> bool:
        assert self._path is not None
        spec = PathFinder.find_spec(name, [self._path])
        return spec is None or spec.origin is None

    def _holds(self, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        places = [file] if isinstance(file, str) else list(getattr(module, "__path__", None) or [])
        return any(Path(place).is_relative_to(self._package) for place in places)

    @staticmethod
    def _take(names: set[str]) -> dict[str, ModuleType]:
        return {name: sys.modules.pop(name) for name in names}


def package_code(folder: Path, conf: Mapping[str, object], where: str) -> PackageCode | None:
    """The code that a flavor's entry of MLmodel names; None where it names none.

    Nothing is imported or run.

    Args:
        folder: The package.
        conf: The flavor's entry: its `code` names a folder, its `model_code_path` a script.
        where: What the entry is called, for the message.

    Raises:
        PackageFormatError: `code` leads out of the package, is missing, or is no folder; or a
            link lies in it.
    """
    if conf.get("code") is None:
        return PackageCode(folder, None) if conf.get("model_code_path") else None
    path = resolve_inside(folder, conf["code"], f"{where}.code")
    if not path.is_dir():
        raise PackageFormatError(f"{where}.code names {path.name!r}, which is no folder")
    links = sorted(str(p.relative_to(folder)) for p in path.rglob("*") if p.is_symlink())
    if links:
        raise PackageFormatError(
            f"{where}.code holds links: {listed(links)}; a package has regular files only"
        )
    return PackageCode(folder, path)


def importable(code: PackageCode | None) -> AbstractContextManager[None]:
    """`code.importable()`, or nothing where a package brings no code."""
    return nullcontext() if code is None else code.importable()


def _top_level_names(folder: Path) -> Iterator[str]:
    for path in folder.iterdir():
        endings = [s for s in all_suffixes() if path.name.endswith(s)]
        name = path.name.partition(".")[0] if path.is_file() and endings else path.name
        is_kept = name in sys.stdlib_module_names or name in _FOUNDATION
        if name.isidentifier() and not is_kept and (path.is_dir() or endings):
            yield name
