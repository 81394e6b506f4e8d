from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sparkscore.cli import main, score
from sparkscore.cli.scoring_options import reader_options
from sparkscore.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from sparkscore.conf import JobSettings


def test_a_source_option_is_a_name_and_a_value_that_may_be_empty() -> None:
    texts = ["sep=;", "quote=", "escape==", "nullValue=a=b"]
    assert reader_options(texts) == {
        "sep": ";",
        "quote": "",
        "escape": "=",
        "nullValue": "a=b",
    }


@pytest.mark.parametrize("text", ["header", "=x", ""])
def test_a_source_option_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not of the form KEY=VALUE"):
        reader_options([text])


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
