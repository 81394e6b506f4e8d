"""Alerts of a stream: each is told once when its bound is passed, and once when that is over."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sparkscore.errors import ConfigError, SparkscoreError, shown
from sparkscore.server.webhook_addresses import (
    Destination,
    parse_destination,
    resolve_by_system,
)
from sparkscore.server.webhook_posting import Posted, post, signed_headers

if TYPE_CHECKING:
    from types import TracebackType

    from sparkscore.conf import JobSettings
    from sparkscore.tracking import ActiveRun

_IDLE = "idle_seconds"
_ENDS_AT = 0.8
"""Share of the bound: a measure that swings about its bound is one alert, and not one each time."""
_LOOK_S = 1.0
_TIMEOUT_S = 5.0
_TRIES_AFTER_S = (0.0, 1.0, 5.0)
_MAX_WAITING = 100
_MEASURE_OF = {"batch_seconds": "batch_triggerExecution_seconds"}
"""Bounds whose measure has another name in the series."""


@dataclass(frozen=True)
class Alert:
    """A bound that was passed, or is so no more.

    Attributes:
        name: The bound's.
        is_begun: Whether it begins; else it ends.
        value: What was found.
        bound: What it may be at most.
        at: Seconds since 1970.
    """

    name: str
    is_begun: bool
    value: float
    bound: float
    at: float


class Alerts:
    """Compares measures with their bounds.

    Args:
        bounds: The most that each measure may be.
        tell: Called with each change, in the thread that looks.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        bounds: Mapping[str, float],
        tell: Callable[[Alert], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bounds = bounds
        self._tell = tell
        self._clock = clock
        self._active: set[str] = set()
        self._lock = threading.Lock()

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the bounds that are passed now."""
        return tuple(sorted(self._active))

    @property
    def gauges(self) -> dict[str, float]:
        """1 for each alert that has begun, 0 for the others."""
        return {f"alert_{name}": float(name in self._active) for name in self._bounds}

    def look(self, measures: Mapping[str, float]) -> None:
        """Compare what is known now; of what is not, nothing changes."""
        with self._lock:
            for name, bound in self._bounds.items():
                value = measures.get(_MEASURE_OF.get(name, name))
                if value is not None:
                    self._compare(name, value, bound)

    def _compare(self, name: str, value: float, bound: float) -> None:
        was = name in self._active
        # NaN is within no bound.
        is_over = not value <= (bound * _ENDS_AT if was else bound)
        if is_over != was:
            (self._active.add if is_over else self._active.remove)(name)
            self._tell(Alert(name, is_over, value, bound, self._clock()))


@dataclass(frozen=True)
class AlertHook:
    """Where alerts are posted, with the signature that webhooks of our server have."""

    destination: Destination
    secret: str

    def post(self, body: bytes, delivery_id: str) -> Posted:
        """Send a body once; never raises for what the receiver does."""
        try:
            address = resolve_by_system(self.destination.host, self.destination.port)[0]
        except (OSError, UnicodeError) as exc:
            return Posted(0, error=f"{self.destination.host} has no address: {exc}")
        headers = signed_headers(body, delivery_id, int(time.time()), self.secret)
        return post(self.destination, address, body, headers, _TIMEOUT_S)


class AlertWatch:
    """Tells alerts on: to the log, the run and a webhook; and looks how long no batch has ended.

    All that may take long goes on in a thread of its own, and what fails there is told and let go.

    Args:
        job: The stream's name.
        run: Its run.
        bounds: See `alert_bounds`.
        hook: Where alerts are posted; None: nowhere.
        announce: Told in one line of each alert.
    """

    def __init__(
        self,
        job: str,
        run: ActiveRun,
        bounds: Mapping[str, float],
        hook: AlertHook | None,
        announce: Callable[[str], None],
    ) -> None:
        self._alerts = Alerts(bounds, self._begin_telling)
        self._job = job
        self._run = run
        self._hook = hook
        self._announce = announce
        self._waiting: deque[Alert] = deque(maxlen=_MAX_WAITING)
        self._ended, self._stirred = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sparkscore-alerts", daemon=True)
        self._looks = bool(bounds)
        self._batch_ended_at = time.monotonic()

    @property
    def active(self) -> tuple[str, ...]:
        """Names of alerts that have begun."""
        return self._alerts.active

    @property
    def gauges(self) -> Mapping[str, float]:
        """1 for each alert that has begun, 0 for the others."""
        return self._alerts.gauges

    def batch_ended(self) -> None:
        """Take note that a batch is in the table."""
        self._batch_ended_at = time.monotonic()

    def look(self, measures: Mapping[str, float]) -> None:
        """Compare what a stream says of its last batch with the bounds."""
        self._alerts.look(measures)

    def __enter__(self) -> Self:
        if self._looks:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._stirred.set()
        if self._looks:
            self._thread.join(_TIMEOUT_S)

    def _begin_telling(self, alert: Alert) -> None:
        self._waiting.append(alert)
        self._stirred.set()
        self._announce(f"alert {json.dumps(self._facts(alert))}")

    def _watch(self) -> None:
        while not self._ended.is_set():
            self._stirred.wait(_LOOK_S)
            self._stirred.clear()
            self._alerts.look({_IDLE: time.monotonic() - self._batch_ended_at})
            self._tell_all()
        self._tell_all()

    def _tell_all(self) -> None:
        while self._waiting:
            alert = self._waiting.popleft()
            try:
                self._run.set_tag("sparkscore.alerts", ", ".join(self.active), synchronous=False)
                self._post(alert)
            except (SparkscoreError, OSError) as exc:
                self._announce(f"alert {alert.name} could not be told on: {exc}")

    def _post(self, alert: Alert) -> None:
        if self._hook is None:
            return
        body = _body(alert, self._facts(alert))
        delivery_id = str(uuid.uuid4())
        posted = Posted(0)
        for pause_s in _TRIES_AFTER_S:
            self._ended.wait(pause_s)
            posted = self._hook.post(body, delivery_id)
            if posted.is_taken or not posted.may_succeed_later:
                break
        if not posted.is_taken:
            self._announce(f"the webhook did not take alert {alert.name}: {posted.error}")

    def _facts(self, alert: Alert) -> dict[str, object]:
        return {"job": self._job, "run_id": str(self._run.run_id), **asdict(alert)}


def alert_bounds(job: JobSettings) -> dict[str, float]:
    """The bounds of a stream by the names of what they bound.

    Raises:
        ConfigError: One is of what the stream does not measure.
    """
    facts = job.stream.alerts.model_dump(exclude={"webhook", "secret_file"}, exclude_none=True)
    bounds: dict[str, float] = {}
    for name, value in facts.items():
        by_column = value if isinstance(value, dict) else None
        of_each = {name: value} if by_column is None else _by_column(name, by_column)
        bounds |= {key: float(bound) for key, bound in of_each.items()}
    if "latency_p99_seconds" in bounds and job.stream.event_time is None:
        raise ConfigError(
            "an alert bounds latency_p99_seconds, which is told by the column that says when a row "
            "came to be; name it with --event-time (stream.event_time)"
        )
    return bounds


def alert_hook(job: JobSettings) -> AlertHook | None:
    """Where a stream's alerts are posted; None: nowhere.

    Raises:
        ConfigError: The URL is none, or the file of its secret cannot be read.
    """
    alerts = job.stream.alerts
    if alerts.webhook is None:
        if alerts.secret_file is not None:
            raise ConfigError(
                "stream.alerts.secret_file signs what is posted, but no stream.alerts.webhook is "
                "given; give both, or neither"
            )
        return None
    try:
        destination = parse_destination(alerts.webhook)
    except SparkscoreError as exc:
        raise ConfigError(f"stream.alerts.webhook: {exc}") from exc
    return AlertHook(destination, _secret(alerts.secret_file))


def _by_column(name: str, bounds: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}.{column}": bound for column, bound in bounds.items()}


def _secret(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"stream.alerts.secret_file cannot be read: {exc}") from exc
    if not secret:
        raise ConfigError(f"stream.alerts.secret_file {shown(str(path))} is empty")
    return secret


def _body(alert: Alert, facts: Mapping[str, object]) -> bytes:
    """The JSON of a delivery, in the form that webhooks of our server have."""
    told = {
        "entity": "stream",
        "action": "alert_begun" if alert.is_begun else "alert_ended",
        "timestamp": datetime.fromtimestamp(alert.at, UTC).isoformat(),
        "data": facts,
    }
    return json.dumps(told, separators=(",", ":")).encode()
