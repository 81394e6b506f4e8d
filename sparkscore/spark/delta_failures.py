"""What the stream of a Delta table ended with, read off Delta's error classes."""

from __future__ import annotations

import re
from collections.abc import Callable

from sparkscore.errors import (
    ForeignCheckpointError,
    SchemaChangedError,
    SourceChangesError,
    SourceError,
    SourceLostError,
    SparkscoreError,
)

_Made = Callable[[str, re.Match[str]], SparkscoreError]


def of_delta_source(what: str, text: str) -> SparkscoreError | None:
    """The error that a Delta source is the reason of; None: it is not.

    Args:
        what: The job.
        text: What Spark said, with Delta's error class.
    """
    for sign, made in _KINDS:
        found = sign.search(text)
        if found is not None:
            return made(what, found)
    return None


def _changed(what: str, found: re.Match[str]) -> SparkscoreError:
    return SourceChangesError(
        f"{what}: version {found[2]} of the source changed or deleted rows that were there before "
        f"({found[1]}), and a stream scores rows that are added; pass such versions over by "
        "--source-option skipChangeCommits=true, or have what they changed scored by "
        "--source-option readChangeFeed=true, if the source keeps its change data feed"
    )


def _no_feed(what: str, found: re.Match[str]) -> SparkscoreError:
    return SourceChangesError(
        f"{what}: the source kept no change data for its version {found[1]}; set its property "
        "delta.enableChangeDataFeed to true, and begin after that, with an empty --checkpoint and "
        "--source-option startingVersion=N; or leave readChangeFeed out"
    )


def _log_lost(what: str, _: re.Match[str]) -> SparkscoreError:
    return SourceLostError(
        f"{what}: the source's log was cut before the stream had read it, and with it rows; begin "
        "anew with --start-over, an empty --checkpoint and --source-option startingVersion=N, the "
        "first that is there; keep the log (delta.logRetentionDuration) for longer than the stream "
        "may stand still"
    )


def _file_lost(what: str, found: re.Match[str]) -> SparkscoreError:
    return SourceLostError(
        f"{what}: data file {found[1]!r} was removed before it was read, such as by VACUUM; put it "
        "back, or score what is there: a batch job by running it again, a stream by --start-over "
        "and an empty --checkpoint; keep files that were replaced "
        "(delta.deletedFileRetentionDuration) for longer than a stream may stand still"
    )


def _other_table(what: str, _: re.Match[str]) -> SparkscoreError:
    return ForeignCheckpointError(
        f"{what}: the checkpoint was made for another table at that place, which was removed and "
        "made anew; begin anew with --start-over and an empty --checkpoint"
    )


def _other_columns(what: str, _: re.Match[str]) -> SparkscoreError:
    return SchemaChangedError(
        f"{what}: the columns of the source changed while the stream ran; start it again: it is "
        "planned anew, with those that are there now"
    )


def _never_again(what: str, _: re.Match[str]) -> SparkscoreError:
    return SourceChangesError(
        f"{what}: columns of the source were renamed, dropped or given another type, and rows from "
        "before that are still to be read; begin anew with --start-over and an empty --checkpoint"
    )


def _no_beginning(what: str, found: re.Match[str]) -> SparkscoreError:
    return SourceError(
        f"{what}: the source has no such version to begin at: {_plain(found[1])}; mend "
        "--source-option startingVersion or startingTimestamp"
    )


def _option(what: str, found: re.Match[str]) -> SparkscoreError:
    return SourceError(f"{what}: --source-option {found[2]}={found[1]}: {_plain(found[3])}")


def _plain(text: str) -> str:
    """One line of Spark's, without its code for databases."""
    return text.partition(" SQLSTATE")[0].strip(" .")


_KINDS: tuple[tuple[re.Pattern[str], _Made], ...] = (
    (
        re.compile(
            r"Detected (?:a data update|deleted data) \(for example (.+?)\)"
            r" (?:in the source table|from streaming source) at version (\d+)"
        ),
        _changed,
    ),
    (re.compile(r"DELTA_MISSING_CHANGE_DATA.+?for version \[(\d+)\]", re.DOTALL), _no_feed),
    (
        re.compile(
            r"DELTA_LOG_FILE_NOT_FOUND_FOR_STREAMING_SOURCE|DELTA_STREAMING_TRAILING_COMMIT_MISSING"
        ),
        _log_lost,
    ),
    (re.compile(r"FAILED_READ_FILE\.FILE_NOT_EXIST\S* .+? file (\S+\.parquet)"), _file_lost),
    (re.compile(r"DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE"), _other_table),
    (
        re.compile(
            r"DELTA_SCHEMA_CHANGED|DELTA_STREAMING_SCHEMA_MISMATCH_ON_RESTART"
            r"|DELTA_STREAMING_METADATA_EVOLUTION"
        ),
        _other_columns,
    ),
    (re.compile(r"DELTA_STREAMING_INCOMPATIBLE_SCHEMA_CHANGE"), _never_again),
    (
        re.compile(r"DELTA_(?:VERSION_NOT_FOUND|TIMESTAMP_GREATER_THAN_COMMIT)\] (.+)"),
        _no_beginning,
    ),
    (re.compile(r"Invalid value '(.*?)' for option '(\w+)', (.+)"), _option),
)
