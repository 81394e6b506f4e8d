"""What the author of a python_function model writes against.

A model that is pickled brings these classes along by value, so that whoever loads it needs
nothing of ours: only the standard library is used here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class PythonContext:
    """What a model finds beside itself: local paths by artifact name, and its configuration."""

    artifacts: Mapping[str, str]
    model_config: Mapping[str, object] = field(default_factory=dict)


class PythonModel:
    """A model in Python: a subclass has `predict`, and `load_context` where it opens files.

    `predict(self, context, model_input, params)` answers one prediction for each row, in order; it
    may leave out `context`, `params` or both. `context` is a `PythonContext`. `model_input` is a
    pandas DataFrame, or a list where the argument is annotated as `list[...]`. `params` has a
    value for each param of the signature, and is None where it declares none.

    No base class is needed: any object with `predict`, or a function, is a model too. A class that
    lives in a module of its own is pickled by name, so that module must be installed where the
    package is loaded, or come along by `code_paths=`.
    """

    def load_context(self, context: PythonContext) -> None:
        """Open what the model needs; called once, after it was loaded."""


@dataclass(frozen=True)
class LoaderModule:
    """A model that a module of its package loads by `_load_pyfunc(path)`.

    Attributes:
        name: The module, dotted; in a file of `code_paths=`, or installed wherever it is loaded.
        data: The file or folder that it is given the path of; None: the package's folder.
    """

    name: str
    data: Path | None = None


@dataclass(frozen=True)
class PythonParts:
    """A model in Python, and what its package shall bring along for its context."""

    model: object
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)


@dataclass
class ScriptRun:
    """One run of a script that makes a model: what it is given, and what it has set."""

    config: Mapping[str, object]
    model: object = None


script_run: ContextVar[ScriptRun | None] = ContextVar("script_run", default=None)
"""The run that is going on; None where a script is run by its author."""


def set_model(model: object) -> None:
    """Say which object of a script is the model that its package shall load.

    Args:
        model: An object with `predict`, or a function. The last call counts.
    """
    run = script_run.get()
    if run is not None:
        run.model = model
