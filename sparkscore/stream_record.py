"""What a stream tells of itself: metric series of its run, pages for Prometheus, a health file."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from sparkscore.errors import PortTakenError, UsageError
from sparkscore.scoring.features import OUT_OF_ORDER, ROWS_IN
from sparkscore.scoring.outcome import ModelCounts
from sparkscore.scoring.panel import SPLIT_LABELS
from sparkscore.scoring.shadow import SHADOW_LABEL
from sparkscore.whole_files import write_whole

if TYPE_CHECKING:
    from sparkscore.scoring.outcome import Outcome
    from sparkscore.scoring.streams import BatchModel, BatchModels
    from sparkscore.stream_alerts import AlertWatch
    from sparkscore.tracking import ActiveRun

_FIRST_INTERVAL_S = 10.0
_REJECTED_OVER = 20
"""Batches that the share of rejected rows is over: of a batch of few rows one is much."""
_NO_KEY = re.compile(r"[^/\w.\-: ]")
"""What the key of a metric has not, and a column's name may have."""
_OF_TRIALS = ("canary_", "shadow_")
_POINTS_BEFORE_DOUBLING = 360
"""An hour of points ten seconds apart, then of twenty, and so on: a year has some 5,000 points."""


@dataclass
class Pace:
    """How often a series gets a point: seldom enough that a stream of months has but thousands.

    Attributes:
        clock: Seconds that never go back.
    """

    clock: Callable[[], float] = time.monotonic
    _interval_s: float = _FIRST_INTERVAL_S
    _n_points: int = 0
    _last: float | None = None

    def is_due(self) -> bool:
        """Whether a point may be kept now; then it counts as kept."""
        now = self.clock()
        if self._last is not None and now - self._last < self._interval_s:
            return False
        self._last = now
        self._n_points += 1
        if self._n_points % _POINTS_BEFORE_DOUBLING == 0:
            self._interval_s *= 2
        return True


@dataclass
class StreamTotals:
    """What a stream has done since its process began, and how its last batch went.

    Attributes:
        n_batches: Batches that were committed, or found committed.
        n_replayed: Those of them that an earlier attempt had committed.
        n_skipped: Rows that a join dropped, since they had no match.
        n_features_in: Rows that came to windows or states.
        n_timeless: Those of them that had no time, and were left out.
        n_late: What came to windows or states after their time, and was left out: rows, or of
            windows one for each window and key of a task.
        n_out_of_order: Rows that were older than one of their key before, and were scored.
        n_unmatched: Rows without a match in a joined table.
        latest: Measures of the last batch; units are in the names.
    """

    n_batches: int = 0
    n_replayed: int = 0
    n_read: int = 0
    n_scored: int = 0
    n_rejected: int = 0
    n_nulled: int = 0
    n_published: int = 0
    n_skipped: int = 0
    n_features_in: int = 0
    n_timeless: int = 0
    n_late: int = 0
    n_out_of_order: int = 0
    n_unmatched: int = 0
    batch: int = -1
    table_version: int = -1
    model_digest: str = ""
    canary_digest: str = ""
    shadow_digest: str = ""
    latest: dict[str, float] = field(default_factory=dict)

    @property
    def has_rows(self) -> bool:
        """Whether rows have come; a feed may open a batch before it knows of any."""
        return self.n_replayed + self.n_read + self.n_features_in > 0

    def add(self, number: int, outcome: Outcome, models: BatchModels) -> None:
        """Count a batch that is in the table."""
        self.n_batches += 1
        self.n_read += outcome.n_read
        self.n_scored += outcome.n_scored
        self.n_rejected += outcome.n_rejected
        self.n_nulled += outcome.n_nulled
        self.n_skipped += outcome.n_skipped
        self.batch, self.table_version = number, outcome.commit.version
        self.model_digest = models.champion.digest
        self.canary_digest = "" if models.canary is None else models.canary.digest
        self.shadow_digest = "" if models.shadow is None else models.shadow.digest

    def as_metrics(self) -> dict[str, float]:
        """The totals by name."""
        return {
            "batches": self.n_batches,
            "batches_replayed": self.n_replayed,
            "rows_read": self.n_read,
            "rows_scored": self.n_scored,
            "rows_rejected": self.n_rejected,
            "rows_nulled": self.n_nulled,
            "rows_published": self.n_published,
            "rows_skipped": self.n_skipped,
            "rows_before_features": self.n_features_in,
            "rows_without_time": self.n_timeless,
            "rows_late": self.n_late,
            "rows_out_of_order": self.n_out_of_order,
            "rows_unmatched": self.n_unmatched,
        }

    def add_progress(self, progress: Mapping[str, Any]) -> None:
        """Count what Spark says of the features of a batch that it has executed."""
        if "addBatch" not in (progress.get("durationMs") or {}):
            return  # Of an idle while it may say again what it said of the batch before.
        for operator in progress.get("stateOperators") or ():
            self.n_late += int(operator.get("numRowsDroppedByWatermark") or 0)
        observed = progress.get("observedMetrics") or {}
        rows = observed.get(ROWS_IN)
        if rows is not None:
            self.n_features_in += rows["n_rows"]
            self.n_timeless += rows["n_timeless"]
        old = observed.get(OUT_OF_ORDER)
        self.n_out_of_order += old["n_rows"] if old is not None else 0


class StreamRecord:
    """Keeps a stream's totals, and tells them to its run, to a health file and to a page.

    A tracking store that is away costs the stream nothing: points are sent in the background.

    Args:
        run: The stream's run.
        job: The job's name, a label of the page.
        health_file: Written anew after each batch; None: none is.
        alerts: Looks at each batch's measures; None: nobody does.

    Raises:
        UsageError: The health file cannot be written.
    """

    def __init__(
        self,
        run: ActiveRun,
        job: str,
        health_file: Path | None,
        alerts: AlertWatch | None = None,
    ) -> None:
        self.totals = StreamTotals()
        self._run = run
        self._job = job
        self._health_file = health_file
        self._alerts = alerts
        self._shadow: BatchModel | None = None
        self._difference = ModelCounts()
        self._rejected: deque[tuple[int, int]] = deque(maxlen=_REJECTED_OVER)
        self._pace = Pace()
        self._told_at = time.time()
        self._waits: dict[str, str] = {}
        self._lock = threading.Lock()
        try:
            self._write_health()
        except OSError as exc:
            raise UsageError(
                f"the health file {str(health_file)!r} cannot be written: {exc.strerror}; name "
                "another with --health-file"
            ) from exc

    def batch(self, number: int, outcome: Outcome, models: BatchModels, *, is_replay: bool) -> None:
        """Take note of a batch that is in the table."""
        with self._lock:
            self.totals.add(number, outcome, models)
            self.totals.n_replayed += is_replay
            # Of a canary or shadow that is there no more, nothing is told.
            kept = {k: v for k, v in self.totals.latest.items() if not k.startswith(_OF_TRIALS)}
            self.totals.latest = (
                kept
                | self._trial_measures(outcome, models)
                | {f"seconds_{phase}": value for phase, value in outcome.seconds.items()}
                | {"rejected_share": self._rejected_share(outcome)}
            )
        if self._alerts is not None:
            self._alerts.batch_ended()

    def measured(self, values: Mapping[str, float]) -> None:
        """Take note of further measures of the last batch, by names with units."""
        with self._lock:
            self.totals.latest.update(values)

    def published(self, n_rows: int) -> None:
        """Take note of rows that outlets were handed."""
        with self._lock:
            self.totals.n_published += n_rows

    def waits(self, what: str, reason: Exception | None) -> None:
        """Take note, and tell it on at once, that something is waited for; None: no more."""
        with self._lock:
            self._waits.pop(what, None)
            if reason is not None:
                self._waits[what] = str(reason)
        with suppress(OSError):
            self._write_health()

    def latency(self, seconds: Mapping[str, float]) -> None:
        """Take note of how old the rows of the last batch were when they were committed."""
        with self._lock:
            self.totals.latest.update(
                {f"latency_{name}_seconds": value for name, value in seconds.items()}
            )

    def unmatched(self, n_rows: int) -> None:
        """Take note of the last batch's rows without a match in a joined table."""
        with self._lock:
            self.totals.n_unmatched += n_rows

    def progress(self, progress: Mapping[str, Any]) -> None:
        """Take note of what Spark says after a batch, and tell it on."""
        with self._lock:
            self._told_at = time.time()
            self.totals.add_progress(progress)
            self.totals.latest.update(_measures(progress))
            if self._alerts is not None:
                self._alerts.look(self.totals.latest)
                self.totals.latest.update(self._alerts.gauges)
            step = int(progress["batchId"])
        with suppress(OSError):  # A file that grows old is what its reader looks for.
            self._write_health()
        if self._pace.is_due():
            self._run.log_metrics(self.metrics(), step=step, synchronous=False)

    def metrics(self) -> dict[str, float]:
        """Totals and measures of the last batch, as a run takes their names."""
        with self._lock:
            found = self.totals.latest | self.totals.as_metrics()
        return {_NO_KEY.sub("_", name): value for name, value in found.items()}

    def health(self) -> dict[str, object]:
        """State of the stream, as the health file and `/healthz` have it."""
        totals = self.totals
        return {
            "job": self._job,
            "run_id": self._run.run_id,
            "batch": totals.batch,
            "table_version": totals.table_version,
            "model_digest": totals.model_digest,
            "canary_digest": totals.canary_digest,
            "shadow_digest": totals.shadow_digest,
            "alerts": [] if self._alerts is None else list(self._alerts.active),
            "told_at": self._told_at,
            "waits_for": list(self._waits.values()),
            **totals.as_metrics(),
        }

    def age_s(self) -> float:
        """Seconds since a batch ended or Spark told that there was none to begin."""
        return time.time() - self._told_at

    def page(self) -> str:
        """The measures in Prometheus' text format."""
        with self._lock:
            totals, latest = self.totals.as_metrics(), dict(self.totals.latest)
        if self._alerts is not None:  # Also while no batch comes.
            latest.update(self._alerts.gauges)
        label = _labels({"job": self._job})
        lines = [
            f"# TYPE sparkscore_stream_{name}_total counter\n"
            f"sparkscore_stream_{name}_total{label} {value}"
            for name, value in totals.items()
        ]
        latest["is_waiting"] = float(bool(self._waits))
        for name, of_name in groupby(sorted(latest), lambda name: name.partition(".")[0]):
            lines.append(f"# TYPE sparkscore_stream_{name} gauge")
            for each in of_name:
                labels = {"job": self._job}
                if each != name:  # Such as drift.temperature.
                    labels["column"] = each.partition(".")[2]
                lines.append(f"sparkscore_stream_{name}{_labels(labels)} {latest[each]}")
        return "\n".join(lines) + "\n"

    def _rejected_share(self, outcome: Outcome) -> float:
        """Rows without a prediction, as a share of those of the last batches."""
        self._rejected.append((outcome.n_read, outcome.n_rejected + outcome.n_nulled))
        n_read, n_rejected = map(sum, zip(*self._rejected, strict=True))
        return n_rejected / max(n_read, 1)

    def _trial_measures(self, outcome: Outcome, models: BatchModels) -> dict[str, float]:
        """What a batch's canary and shadow did, if it had them."""
        found: dict[str, float] = {}
        for what, label in (("canary", SPLIT_LABELS[1]), ("shadow", SHADOW_LABEL)):
            counts = outcome.models.get(label)
            if counts is not None:
                found[f"{what}_rows_scored"] = counts.n_scored
                found[f"{what}_rows_rejected"] = counts.n_rejected
                found[f"{what}_rows_failed"] = counts.n_failed
        if outcome.shadow_failure is not None:
            found["shadow_rows_failed"] = outcome.n_read
        if models.shadow != self._shadow:
            self._shadow, self._difference = models.shadow, ModelCounts()
        counts = outcome.models.get(SHADOW_LABEL, ModelCounts())
        self._difference = self._difference.plus(counts)
        return found | _difference_measures(self._difference)

    def _write_health(self) -> None:
        if self._health_file is not None:
            write_whole(self._health_file, json.dumps(self.health()) + "\n")


class StreamPages:
    """`/metrics` and `/healthz` of a stream.

    Args:
        record: What they show.
        port: 0: any that is free.
        host: The address to listen at.

    Raises:
        PortTakenError: The port is in use, or the address is none of this machine.
    """

    def __init__(self, record: StreamRecord, port: int, host: str) -> None:
        try:
            self._server = ThreadingHTTPServer((host, port), _handler_of(record))
        except OSError as exc:
            raise PortTakenError(
                f"port {port} of {host} cannot be listened at: {exc.strerror}; free it, or give "
                "another with --metrics-port, or another address with --metrics-host"
            ) from exc
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def _labels(labels: Mapping[str, str]) -> str:
    texts = (f"{name}={json.dumps(text, ensure_ascii=False)}" for name, text in labels.items())
    return "{" + ",".join(texts) + "}"


def _handler_of(record: StreamRecord) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            if asked.path == "/metrics":
                self._answer(record.page(), "text/plain; version=0.0.4")
            elif asked.path == "/healthz":
                self._health(parse_qs(asked.query).get("max_age_s", ["inf"])[0])
            else:
                self.send_error(404)

        def _health(self, max_age_s: str) -> None:
            """Tell the state; 503 where nothing was heard of the stream for longer than that."""
            try:
                is_late = record.age_s() > float(max_age_s)
            except ValueError:
                self.send_error(400, "max_age_s is a number of seconds")
                return
            status = HTTPStatus.SERVICE_UNAVAILABLE if is_late else HTTPStatus.OK
            self._answer(json.dumps(record.health()), "application/json", status)

        def _answer(self, text: str, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's
            """Say nothing: probes come each second."""

    return Handler


def _difference_measures(total: ModelCounts) -> dict[str, float]:
    """How the answers of a shadow differ from the published ones."""
    if not total.n_compared:
        return {}
    return {
        "shadow_rows_compared": total.n_compared,
        "shadow_different_share": total.n_different / total.n_compared,
        "shadow_mean_difference": total.difference / total.n_compared,
        "shadow_mean_absolute_difference": total.absolute / total.n_compared,
    }


def _measures(progress: Mapping[str, Any]) -> dict[str, float]:
    """What Spark says of a batch, by names with units."""
    found = {
        "rows_per_second_in": float(progress.get("inputRowsPerSecond") or 0.0),
        "rows_per_second_out": float(progress.get("processedRowsPerSecond") or 0.0),
    }
    durations = progress.get("durationMs") or {}
    found |= {f"batch_{name}_seconds": float(ms) / 1000 for name, ms in durations.items()}
    for operator in progress.get("stateOperators") or ():
        sizes = {
            "state_rows": operator.get("numRowsTotal"),
            "state_bytes": operator.get("memoryUsedBytes"),
            "state_disk_bytes": (operator.get("customMetrics") or {}).get("rocksdbSstFileSize"),
        }
        for name, size in sizes.items():
            found[name] = found.get(name, 0.0) + float(size or 0)
    for source in progress.get("sources") or ():
        for name, value in (source.get("metrics") or {}).items():
            if name in _BACKLOG:
                found[_BACKLOG[name]] = found.get(_BACKLOG[name], 0.0) + float(value)
    return found


_BACKLOG = {
    "numBytesOutstanding": "backlog_bytes",
    "numFilesOutstanding": "backlog_files",
    "maxOffsetsBehindLatest": "backlog_offsets",
}
"""What sources of Spark call that which waits."""
