from __future__ import annotations

import json
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


WHERE = ("--model", "models:/m/1", "--source", "rows", "--target", "scores")


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[JobSettings]:
    """The jobs that commands would have run; each exits with 2."""
    jobs: list[JobSettings] = []

    def kept(_workspace: object, job: JobSettings, *_: object, **__: object) -> None:
        jobs.append(job)
        raise UsageError("that is all")

    monkeypatch.setattr(score, "run_batch_job", kept)
    monkeypatch.setattr(score, "run_stream_job", kept)
    return jobs


def test_zero_is_a_value_and_a_flag_that_is_not_set_is_none(jobs: list[JobSettings]) -> None:
    assert main(["score", "batch", *WHERE, "--source-version", "0"]) == 2
    (job,) = jobs
    assert job.source.version == 0
    assert not job.since_last


def test_columns_are_named_one_by_one_or_by_commas(jobs: list[JobSettings]) -> None:
    columns = ("--key", "a, b", "--key", "c", "--keep", "d,e", "--partition-by", "f,g")
    assert main(["score", "batch", *WHERE, *columns]) == 2
    assert main(["score", "stream", *WHERE, "--canary-by", "a,b", "--drift", "x,y"]) == 2
    batch, stream = jobs
    assert (batch.key, batch.keep) == (("a", "b", "c"), ("d", "e"))
    assert batch.partition_by == ("f", "g")
    assert stream.stream.canary.by == ("a", "b")
    assert stream.stream.drift.columns == ("x", "y")


def test_stream_without_a_file_is_named_as_one(
    jobs: list[JobSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "stream", *WHERE]) == 2
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["job"] == "score-stream"
    main(["score", "stream", *WHERE, "--name", "pumps"])
    main(["score", "batch", *WHERE])
    assert [job.name for job in jobs] == ["score-stream", "pumps", "score-batch"]


def test_help_of_a_stream_leaves_out_what_only_a_batch_job_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["score", "stream", "--help"]) == 0
    told = capsys.readouterr().out
    assert "--trigger" in told
    assert "kafka:TOPIC" in told
    assert "--since-last" not in told
    assert main(["score", "batch", "--help"]) == 0
    assert "--since-last" in capsys.readouterr().out
