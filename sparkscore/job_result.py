"""What a job tells its orchestrator: one JSON object, in a file and as the last line of stdout."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sparkscore.errors import InternalError, SparkscoreError, UsageError
from sparkscore.next_steps import NEXT_STEPS
from sparkscore.whole_files import write_whole

SCHEMA = 1


@dataclass(frozen=True)
class JobResult:
    """The outcome of one attempt at a job; field names are part of the interface.

    Attributes:
        status: `succeeded`, `skipped` (already scored) or `failed`.
        code: Exit code of the process.
        message: One line for people.
        batch_id: The run key.
        started, ended: ISO 8601 in UTC.
        attempt: 1 for the first attempt at this run key, as far as the tracking store knows.
    """

    status: str
    code: int
    message: str
    job: str
    started: str
    ended: str
    schema: int = SCHEMA
    run_id: str | None = None
    batch_id: str | None = None
    error: Mapping[str, object] | None = None
    model: Mapping[str, object] = field(default_factory=dict)
    input: Mapping[str, object] = field(default_factory=dict)
    output: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    attempt: int = 1
    links: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The object on one line of ASCII; a number that JSON cannot say is null."""
        return json.dumps(_plain(asdict(self)), allow_nan=False)

    def write(self, path: Path) -> None:
        """Write the object to `path`, whole or not at all; an earlier file is replaced.

        Raises:
            UsageError: The file cannot be written.
        """
        try:
            write_whole(path, self.to_json() + "\n")
        except OSError as exc:
            raise UsageError(
                f"the result file {str(path)!r} cannot be written: {exc.strerror}; "
                "name another with --result-file"
            ) from exc


def error_facts(exc: BaseException) -> dict[str, object]:
    """An error as the result's `error`: code, class, message, whether to try again, what to do."""
    code = exc.code if isinstance(exc, SparkscoreError) else InternalError.code
    return {
        "code": code,
        "class": type(exc).__name__,
        "message": str(exc),
        "retryable": isinstance(exc, SparkscoreError) and exc.retryable,
        "next_step": NEXT_STEPS.get(code, NEXT_STEPS[InternalError.code]),
    }


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
