"""What the stream of a Delta table ended with, read off Delta's error classes."""

from __future__ import annotations

import re
from typing import NamedTuple

from sparkscore.errors import (
    ForeignCheckpointError,
    SchemaChangedError,
    SourceChangesError,
    SourceError,
    SourceLostError,
    SparkscoreError,
)


class _Kind(NamedTuple):
    """One reason, as Spark tells it and as we do.

    Attributes:
        sign: What Spark's text has in it.
        error: What is raised.
        text: Its message, with the groups of `sign` as {0}, {1}, ...
    """

    sign: re.Pattern[str]
    error: type[SparkscoreError]
    text: str


def of_delta_source(what: str, text: str) -> SparkscoreError | None:
    """The error that a Delta source is the reason of; None: it is not.

    Args:
        what: The job.
        text: What Spark said, with Delta's error class.
    """
    for kind in _KINDS:
        found = kind.sign.search(text)
        if found is not None:
            return kind.error(f"{what}: {kind.text.format(*map(_plain, found.groups()))}")
    return None


def _plain(text: str) -> str:
    """One line of Spark's, without its code for databases."""
    return text.partition(" SQLSTATE")[0].strip(" .")


_KINDS = (
    _Kind(
        re.compile(
            r"Detected (?:a data update|deleted data) \(for example (.+?)\)"
            r" (?:in the source table|from streaming source) at version (\d+)"
        ),
        SourceChangesError,
        "version {1} of the source changed or deleted rows that were there before ({0}), and a "
        "stream scores rows that are added; pass such versions over by --source-option "
        "skipChangeCommits=true, or have what they changed scored by --source-option "
        "readChangeFeed=true, if the source keeps its change data feed",
    ),
    _Kind(
        re.compile(r"DELTA_MISSING_CHANGE_DATA.+?for version \[(\d+)\]", re.DOTALL),
        SourceChangesError,
        "the source kept no change data for its version {0}; set its property "
        "delta.enableChangeDataFeed to true, and begin after that, with an empty --checkpoint and "
        "--source-option startingVersion=N; or leave readChangeFeed out",
    ),
    _Kind(
        re.compile(
            r"DELTA_LOG_FILE_NOT_FOUND_FOR_STREAMING_SOURCE|DELTA_STREAMING_TRAILING_COMMIT_MISSING"
        ),
        SourceLostError,
        "the source's log was cut before the stream had read it, and with it rows; begin anew with "
        "--start-over, an empty --checkpoint and --source-option startingVersion=N, the first that "
        "is there; keep the log (delta.logRetentionDuration) for longer than the stream may stand "
        "still",
    ),
    _Kind(
        re.compile(r"FAILED_READ_FILE\.FILE_NOT_EXIST\S* .+? file (\S+\.parquet)"),
        SourceLostError,
        "data file '{0}' was removed before it was read, such as by VACUUM; put it back, or score "
        "what is there: a batch job by running it again, a stream by --start-over and an empty "
        "--checkpoint; keep files that were replaced (delta.deletedFileRetentionDuration) for "
        "longer than a stream may stand still",
    ),
    _Kind(
        re.compile(r"DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE"),
        ForeignCheckpointError,
        "the checkpoint was made for another table at that place, which was removed and made anew; "
        "begin anew with --start-over and an empty --checkpoint",
    ),
    _Kind(
        re.compile(
            r"DELTA_SCHEMA_CHANGED|DELTA_STREAMING_SCHEMA_MISMATCH_ON_RESTART"
            r"|DELTA_STREAMING_METADATA_EVOLUTION"
        ),
        SchemaChangedError,
        "the columns of the source changed while the stream ran; start it again: it is planned "
        "anew, with those that are there now",
    ),
    _Kind(
        re.compile(r"DELTA_STREAMING_INCOMPATIBLE_SCHEMA_CHANGE"),
        SourceChangesError,
        "columns of the source were renamed, dropped or given another type, and rows from before "
        "that are still to be read; begin anew with --start-over and an empty --checkpoint",
    ),
    _Kind(
        re.compile(r"DELTA_(?:VERSION_NOT_FOUND|TIMESTAMP_GREATER_THAN_COMMIT)\] (.+)"),
        SourceError,
        "the source has no such version to begin at: {0}; mend --source-option startingVersion or "
        "startingTimestamp",
    ),
    _Kind(
        re.compile(r"Invalid value '(.*?)' for option '(\w+)', (.+)"),
        SourceError,
        "--source-option {1}={0}: {2}",
    ),
)
