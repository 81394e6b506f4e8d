"""One call of a route: what was asked, what it works with, and who watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from starlette.types import Scope

from sparkscore.server.settings import ServerSettings
from sparkscore.server.webhooks import Webhooks
from sparkscore.stores.base import ArtifactStore, Clock, RunStore, system_clock
from sparkscore.stores.models_base import LoggedModelStore, ModelStore
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import Json
from sparkscore.wire.routes import Route
from sparkscore.wire.statuses import Fault


@dataclass(frozen=True)
class Call:
    """A request whose fields were read.

    `scope` is what ASGI says of it; in `scope["state"]` middleware leaves who calls.
    """

    route: Route
    given: Given
    scope: Scope


@dataclass(frozen=True)
class Outcome:
    """How a call ended: with an answer, or with a fault."""

    status: int
    answer: Json | None = None
    fault: Fault | None = None


class Guard(Protocol):
    """Watches calls of all routes; called in a worker thread, so that it may ask a store."""

    def before(self, call: Call) -> None:
        """Called before anything is done; for an upload, before its first byte is read.

        Raises:
            RefusedError: The call shall not be.
        """
        ...

    def after(self, call: Call, outcome: Outcome) -> Json | None:
        """Called once the outcome is known, and before it is answered.

        Returns:
            What is answered in the place of the outcome's own answer; None: that one.
        """
        ...


class RefusedError(Exception):
    """A call is answered with this fault, without being made.

    Attributes:
        fault: The answer.
        headers: Further headers of the answer.
    """

    def __init__(self, fault: Fault, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.headers = headers


@dataclass(frozen=True)
class Served:
    """What calls work with.

    Attributes:
        runs: Experiments and runs.
        models: Registered models.
        logged_models: Models of experiments.
        artifacts: Where the bytes lie that are served.
        webhooks: Who is told of what was done.
        settings: How to answer.
        clock: The present, in milliseconds since the epoch.
    """

    runs: RunStore
    models: ModelStore
    logged_models: LoggedModelStore
    artifacts: ArtifactStore
    webhooks: Webhooks
    settings: ServerSettings = field(default_factory=ServerSettings)
    clock: Clock = system_clock


Verb = Callable[[Served, Given], Json]
"""Does what a route is for, in a worker thread, and returns the answer."""
