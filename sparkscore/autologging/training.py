"""One training under record: its run, the calls inside of it, and what could not be kept."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar

from sparkscore.current_run import active_run
from sparkscore.names import ModelName
from sparkscore.provenance import run_origin
from sparkscore.stores.rules import MAX_PARAM_CHARS
from sparkscore.tracking import ActiveRun
from sparkscore.workspace import Workspace, default_workspace

if TYPE_CHECKING:
    from sparkscore.autologging.boosting import Steps

_LOGGER = logging.getLogger("sparkscore.autologging")
_MAX_KEY_CHARS = 250

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class AutologOptions:
    """What is kept of a training, and where."""

    log_models: bool = True
    log_datasets: bool = True
    log_input_examples: bool = False
    registered_model: ModelName | None = None
    silent: bool = False
    given: Workspace | None = None

    @property
    def workspace(self) -> Workspace:
        """The workspace that was given, else the one that settings name now."""
        return self.given or default_workspace()


class Recorder(Protocol):
    """What one library knows of one call that trains."""

    @property
    def library(self) -> str:
        """MLflow's name of the library, for the tag `mlflow.autologging`."""
        ...

    @property
    def name(self) -> str:
        """What the run is called."""
        ...

    def begin(self, training: Training) -> None:
        """Keep what is known before the call: params, tags, the rows."""
        ...

    def finish(self, training: Training, result: object) -> None:
        """Keep what the call brought about: metrics, the model."""
        ...


class _Switch:
    options: AutologOptions | None = None


_SWITCH = _Switch()
_ONGOING: dict[threading.Thread, Training] = {}


def set_options(options: AutologOptions | None) -> None:
    """Put options in force for trainings that start from now on; None records none."""
    _SWITCH.options = options


def recorded(make: Callable[[], Recorder | None], call: Callable[[], _Result]) -> _Result:
    """What `call` returns or raises, put on record if it is not part of another training.

    Args:
        make: Says what trains; None: nothing that is recorded, nor are the fits in it.
        call: The library's own function, with its arguments.
    """
    options = _SWITCH.options
    if options is None or ongoing() is not None:
        return call()
    training = Training(options)
    thread = threading.current_thread()
    _ONGOING[thread] = training
    try:
        with training:
            training.begin(make)
            result = call()
            training.finish(result)
            return result
    finally:
        del _ONGOING[thread]


def ongoing() -> Training | None:
    """The training that the caller is part of, if there is one.

    Fits that joblib spreads over threads are part of it too: a thread of such a pool knows the
    thread that made the pool.
    """
    thread: threading.Thread | None = threading.current_thread()
    while thread is not None:
        training = _ONGOING.get(thread)
        if training is not None:
            return training
        thread = getattr(thread, "_parent", None)
    return None


class Training:
    """One training under record; leaving its `with` block ends a run that it has started."""

    def __init__(self, options: AutologOptions) -> None:
        self.options = options
        self.recorder: Recorder | None = None
        self.steps: Steps | None = None
        """Of boosting: what is measured in each step."""
        self._run: ActiveRun | None = None
        self._is_ours = False
        self._lost: dict[str, str] = {}

    @property
    def run(self) -> ActiveRun:
        """The run that takes the record; asked for only where there is one."""
        assert self._run is not None
        return self._run

    @property
    def is_recorded(self) -> bool:
        """Whether there is a run that takes the record."""
        return self._run is not None

    def begin(self, make: Callable[[], Recorder | None]) -> None:
        """Start a run, or take the active one, and keep what is known before the call."""
        with self.keeping("the training"):
            self.recorder = make()
            if self.recorder is not None:
                self._run = self._started(self.recorder)
                self.recorder.begin(self)

    def finish(self, result: object) -> None:
        """Keep what the call brought about."""
        with self.keeping("the result"):
            if self.recorder is not None and self.is_recorded:
                self.recorder.finish(self, result)

    def keeping(self, part: str) -> AbstractContextManager[None]:
        """A block that keeps a part of the record: an error in it is told at the end, in brief."""
        return _Keeping(part, self._lost)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Keep params as text, in the form that stores take."""
        with self.keeping("params"):
            self.run.log_params({plain_key(key): _text(value) for key, value in params.items()})

    def __enter__(self) -> Training:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self.keeping("steps"):
            # Of a training that failed too: they show where it went wrong.
            if self.steps is not None:
                self.steps.send()
        with self.keeping("the end"):
            if self._run is not None and self._is_ours:
                # With the user's exception, if there is one: it says how the run ended.
                self._run.__exit__(kind, error, trace)
        if self._lost and not self.options.silent:
            # By the log: a warning that is made an error would break the user's fit.
            of = "a training" if self._run is None else f"run {self._run.run_name}"
            lost = "; ".join(f"{part} ({reason})" for part, reason in self._lost.items())
            _LOGGER.warning("autolog of %s: not recorded: %s", of, lost)

    def _started(self, recorder: Recorder) -> ActiveRun:
        tags = {"mlflow.autologging": recorder.library}
        run = active_run()
        if run is not None:
            run.set_tags(tags)
            return run
        self._is_ours = True
        workspace = self.options.workspace
        return workspace.tracking.start_run(
            recorder.name,
            workspace.settings.tracking.experiment,
            experiment_id=workspace.settings.tracking.experiment_id,
            origin=replace(run_origin(), source_type="LOCAL"),
            tags=tags,
        )


def plain_key(text: str) -> str:
    """A key with `_` for what no store takes, such as a column's odd name."""
    plain = "".join(char if char.isalnum() or char in "_-.:/ " else "_" for char in text)
    return plain.replace("..", "__").lstrip("/")[:_MAX_KEY_CHARS] or "_"


class _Keeping:
    def __init__(self, part: str, lost: dict[str, str]) -> None:
        self._part = part
        self._lost = lost

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        # Everything but an interrupt: whatever fails here, the user's training goes on.
        if not isinstance(error, Exception):
            return False
        # The first one of a part, by its first line: xgboost's go on with a stack.
        said = str(error).partition("\n")[0]
        self._lost.setdefault(self._part, f"{type(error).__name__}: {said}")
        return True


def _text(value: object) -> str:
    """A param's value as text that stores take; a longer one ends with its length."""
    text = str(value).replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
    if len(text) <= MAX_PARAM_CHARS:
        return text
    end = f"… ({len(text)} characters)"
    return text[: MAX_PARAM_CHARS - len(end)] + end
