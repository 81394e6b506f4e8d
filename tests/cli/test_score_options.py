"""Options of jobs reach the job as they were given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sparkscore.cli import main, score
from sparkscore.errors import UsageError

if TYPE_CHECKING:
    from sparkscore.conf import JobSettings


def test_zero_is_a_value_and_a_flag_that_is_not_set_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs: list[JobSettings] = []

    def kept(_workspace: object, job: JobSettings, *_: object) -> None:
        jobs.append(job)
        raise UsageError("that is all")

    monkeypatch.setattr(score, "run_batch_job", kept)
    where = ("--model", "models:/m/1", "--source", "rows", "--target", "scores")
    assert main(["score", "batch", *where, "--source-version", "0"]) == 2
    (job,) = jobs
    assert job.source.version == 0
    assert not job.since_last
