"""Attributes of other libraries that are replaced for a time, now or when they are imported."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from weakref import ReferenceType, ref

_LOGGER = logging.getLogger("sparkscore.autologging")

Function = Callable[..., object]
Action = Callable[[ModuleType], None]


class Patches:
    """Replaces functions of modules and classes, once each, and puts them back."""

    def __init__(self) -> None:
        self._undoing: list[Callable[[], None]] = []
        self._finder = _AfterImport()

    def when_imported(self, name: str, action: Action) -> None:
        """Call `action` with the module `name` once it is imported, or now if it is.

        An action that fails is told to the log, and the import goes on.
        """
        if name in sys.modules:
            # Not sys.modules' own: another thread may be importing it, and this waits for that.
            _guarded(action, import_module(name))
            return
        self._finder.actions[name] = action
        if self._finder not in sys.meta_path:
            sys.meta_path.insert(0, self._finder)

    def replace(
        self,
        owner: type | ModuleType,
        name: str,
        wrap: Callable[[Function], Function],
        also: Iterable[ModuleType] = (),
    ) -> None:
        """Put `wrap(function)` in the place of the owner's own function, once.

        Args:
            owner: Where the function is defined.
            name: Its name; nothing happens where there is none, or no function.
            wrap: Makes what takes its place.
            also: Modules that may have taken the function over. They get the very same one, since
                a function is sent to other processes by its name.
        """
        original = vars(owner).get(name)
        if not callable(original) or hasattr(original, "_sparkscore_patch"):
            return
        wrapper = wrap(original)
        vars(wrapper)["_sparkscore_patch"] = True
        for place in (owner, *(other for other in also if vars(other).get(name) is original)):
            setattr(place, name, wrapper)
            self._undoing.append(partial(_put_back, ref(place), name, original, wrapper))

    def on_undo(self, action: Callable[[], None]) -> None:
        """Call `action` when the patches are undone."""
        self._undoing.append(action)

    def undo(self) -> None:
        """Put everything back, in reverse order; modules that come later are left alone."""
        self._finder.actions.clear()
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        while self._undoing:
            self._undoing.pop()()


class _AfterImport(MetaPathFinder):
    """Finds what the other finders find, and has an action follow the module's own code."""

    def __init__(self) -> None:
        self.actions: dict[str, Action] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.actions:
            return None
        others = (finder for finder in list(sys.meta_path) if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        # The loaders of frozen modules are classes, and belong to all of them.
        if spec is not None and spec.loader is not None and not isinstance(spec.loader, type):
            self._follow(fullname, spec.loader)
        return spec

    def _follow(self, name: str, loader: Loader) -> None:
        # A loader belongs to one module; its own method is there again once that has run.
        execute = loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)
            execute(module)
            action = self.actions.pop(name, None)
            if action is not None:
                _guarded(action, module)

        vars(loader)["exec_module"] = execute_and_act


def _put_back(
    place: ReferenceType[type | ModuleType], name: str, original: Function, wrapper: Function
) -> None:
    # Weak: a class that a notebook has redefined must be free to go.
    owner = place()
    # Where someone else has patched over ours, theirs stays; ours passes calls through.
    if owner is not None and vars(owner).get(name) is wrapper:
        setattr(owner, name, original)


def _guarded(action: Action, module: ModuleType) -> None:
    try:
        action(module)
    except Exception as exc:  # noqa: BLE001 - a library of another form must still be usable
        _LOGGER.warning("autolog cannot watch %s: %s", module.__name__, exc)
