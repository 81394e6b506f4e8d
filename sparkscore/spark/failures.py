"""What a failed Spark job means, read off the text that the JVM gives."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from sparkscore import errors
from sparkscore.errors import (
    BatchDeadlineError,
    CheckpointError,
    ForeignCheckpointError,
    InvalidRowsError,
    KeyColumnError,
    SourceAwayError,
    SourceError,
    SourceLostError,
    SparkFailedError,
    SparkscoreError,
    SparkStoppedError,
    TargetSchemaError,
    TemporaryError,
    WorkerCrashError,
    shown,
)
from sparkscore.files.appended import vacuumed_error
from sparkscore.spark.delta_failures import of_delta_source
from sparkscore.spark.task_slot import NOTE_SIGN

SPARK_FAILURES = (PySparkException, Py4JError)
"""What a call to Spark raises: PySpark's errors, and Py4J's where PySpark knows no equal.

Delta's lost commits are among the latter.
"""

NULL_KEY_SIGN = "sparkscore: key column"
"""How `raise_error` of the engine begins; found again in the failure's text."""

INVALID_ROW_SIGN = "sparkscore: column"
"""How `raise_error` begins for a value that a pipeline cannot be given."""

OUTSIDE_PREDICATE_SIGN = "DELTA_REPLACE_WHERE_MISMATCH"
"""How Delta, and the sink where Delta does not look, name a row outside of replaceWhere."""

UNMATCHED_SIGN = "sparkscore: feature table"
"""How `raise_error` begins for a row that a joined table knows nothing of."""

MALFORMED_SIGN = "sparkscore: message of topic"
"""How `raise_error` begins for a message that is no row, where it cannot be set aside."""

_RAISED_IN_SQL = {
    NULL_KEY_SIGN: KeyColumnError,
    INVALID_ROW_SIGN: InvalidRowsError,
    UNMATCHED_SIGN: InvalidRowsError,
    MALFORMED_SIGN: InvalidRowsError,
}
_MAX_REASON_CHARS = 300
_CONFLICT = re.compile(
    r"DELTA_CONCURRENT_\w+|Concurrent(?:Append|Transaction|Write|DeleteRead|DeleteDelete)Exception"
    r"|MetadataChangedException|ProtocolChangedException|DELTA_METADATA_CHANGED"
)
_UNWRITABLE = re.compile(
    r"Permission denied|Read-only file system|AccessControlException|Mkdirs failed|Not a directory"
    r"|No space left on device|AccessDenied|DELTA_CANNOT_CREATE_LOG_PATH"
)
_DAMAGED = re.compile(r"\[DELTA_|FAILED_READ_FILE\S* .+/_delta_log/|EXPRESSION_DECODING_FAILED")
_STOPPED = re.compile(
    r"SparkContext was shut ?down|stopped SparkContext|SparkContext has been shutdown"
    r"|Py4JNetworkError|ConnectionRefusedError|ConnectionResetError|BrokenPipeError"
    # What Py4J says where it got no answer at all; of a class, what it says of one that is missing.
    r"|An error occurred while calling \S+[^.\s]\Z|Py4JError: \w+ does not exist in the JVM"
)
_OURS = re.compile(
    r"^(?:sparkscore\.errors\.)(\w+): "
    r"(.*(?:\n(?!\s*at |\s*SQLSTATE: |Driver stacktrace:|\S+Error\b|Traceback).*)*)",
    re.MULTILINE,
)
_UNREADABLE = re.compile(
    r"FAILED_READ_FILE\S*\] Encountered error while reading file (.+?)"
    r"\. (?: SQLSTATE|(File does not)|Data type mismatches|Could not read footer)"
)
_CAUSE = re.compile(
    r"^(?:Caused by: |: )(?:[\w$]+\.)+[\w$]+: (.*(?:\n(?!\s*at |\s*\.\.\. |Caused by: ).+)*)",
    re.MULTILINE,
)
_NOTE = re.compile(re.escape(NOTE_SIGN) + r"(.+)((?:\n(?!\s*at |Caused by|Driver stacktrace).*)*)")
_DEADLINE = re.compile(r"Timeout \((\S+)\)!")
_FATAL = re.compile(r"Fatal Python error: (.+)")
_PYTHON_LINE = re.compile(r'File "(.+)", line (\d+) in (\S+)')
_LOST_MESSAGES = re.compile(r"Some data may have been lost[^:]*Reason:\s*([^\n]+)", re.DOTALL)
_BROKERS_AWAY = re.compile(
    r"kafka\.common\.errors\.(?:Timeout|Disconnect|Network)Exception: ([^\n]+)"
    r"|(Cannot fetch record for offset [^\n]+)"
)
_DAMAGED_CHECKPOINT = re.compile(
    r"(batch \d+ doesn't exist|Failed to read log file \S+\. Incomplete log file"
    r"|\[STREAMING_STATEFUL_OPERATOR_MISSING_STATE_DIRECTORY\] [^\n]+)"
)
_RAISED_IN_PYTHON = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t].*\n)+(\S.*)")
# What PySpark's own runner of feeds says after it has told what theirs was.
_OF_RUNNER = "UnboundLocalError: cannot access local variable 'reader'"
_FEED_FAILED = re.compile(r"PYTHON_(?:STREAMING_)?DATA_SOURCE(?:_RUNTIME)?_ERROR\]")
_SHARED_CHECKPOINT = "CONCURRENT_STREAM_LOG_UPDATE"
_SLOW_START = "Python worker failed to connect back"
_DUPLICATE_KEYS = "DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE"


def is_conflict(exc: BaseException) -> bool:
    """Whether a Delta commit lost against another one."""
    return _is_of_spark(exc, _CONFLICT)


def is_unwritable(exc: BaseException) -> bool:
    """Whether the target's file system refused a write."""
    return _is_of_spark(exc, _UNWRITABLE)


def is_damaged(exc: BaseException) -> bool:
    """Whether the log of a Delta table cannot be read, or not by this release of Delta."""
    return _is_of_spark(exc, _DAMAGED)


def translated(
    exc: Exception, what: str, *, source: str = "", is_ending: bool = False
) -> SparkscoreError:
    """The error of ours that a failed Spark job stands for.

    An error that a Python worker raised comes back as the class it was there.

    Args:
        exc: What PySpark raised.
        what: The job, for the message of last resort.
        source: The URI that it reads: a damaged file below it is the source's.
        is_ending: Whether the driver's JVM is on its way out, so that Spark's words mean nothing.
    """
    text = _text(exc)
    # Of a chain of errors the last one is the outermost, and what it says is for the caller.
    for name, message in reversed(_OURS.findall(text)):
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, SparkscoreError):
            return kind(message.strip())
    note = _NOTE.search(text)
    if note is not None and not is_ending:  # An ending JVM ends its workers.
        return _ended_worker(what, rows=note[1], left=note[2])
    for sign, kind in _RAISED_IN_SQL.items():
        if sign in text:
            line = text[text.index(sign) :].splitlines()[0]
            return kind(line.removeprefix("sparkscore: ").split(" SQLSTATE")[0])
    known = (
        unreadable_source(exc, source)
        or _of_brokers(what, text)
        or of_delta_source(what, text)
        or _of_checkpoint(what, text)
        or _of_feed(what, text)
        or _of_sign(what, text)
    )
    if known is not None:
        return known
    if is_ending or _STOPPED.search(text):
        return _stopped(what)
    reason = _raised_in_python(text) or first_line(exc)
    return SparkFailedError(f"{what} failed in Spark; nothing was committed: {reason}")


def of_ended_driver(exc: BaseException, what: str) -> SparkStoppedError | None:
    """The error of a call that found the driver's JVM gone; None: something else has failed."""
    is_of_spark = isinstance(exc, (*SPARK_FAILURES, ConnectionError))
    return _stopped(what) if is_of_spark and _STOPPED.search(_text(exc)) else None


def _stopped(what: str) -> SparkStoppedError:
    return SparkStoppedError(
        f"{what}: Spark's driver JVM was stopped or killed before the job ended; run the same "
        "command again: what was committed is found and not scored twice"
    )


def _of_checkpoint(what: str, text: str) -> SparkscoreError | None:
    """The error that the checkpoint of a stream is the reason of, if it is."""
    if _SHARED_CHECKPOINT in text:
        return ForeignCheckpointError(
            f"{what}: another process goes on with the same checkpoint, and was faster; nothing "
            "is scored twice. Run one of the two; a stream of its own needs a --checkpoint of its "
            "own"
        )
    damaged = _DAMAGED_CHECKPOINT.search(text)
    if damaged is None:
        return None
    return CheckpointError(
        f"{what}: the checkpoint is damaged, so that nobody knows which rows were scored: "
        f"{_told(damaged[1])}. Put its files back from a backup; or start over with --start-over "
        "and a new --checkpoint, which reads the source from its beginning"
    )


def _of_feed(what: str, text: str) -> SparkscoreError | None:
    """The error of a Python data source that was opened or asked for offsets, if that failed."""
    found = _FEED_FAILED.search(text)
    if found is None:
        return None
    reason = _raised_in_python(text) or _told(text[found.end() :].splitlines()[0])
    return SourceError(
        f"{what}: the feed failed: {reason}; mend its class, its options (--source-option) or what "
        "it reads, and start again: what was committed is not scored twice"
    )


def _raised_in_python(text: str) -> str:
    """The last error that a Python worker told of; empty: none did."""
    lines = [line for line in _RAISED_IN_PYTHON.findall(text) if not line.startswith(_OF_RUNNER)]
    return lines[-1][:_MAX_REASON_CHARS] if lines else ""


def _of_sign(what: str, text: str) -> SparkscoreError | None:
    """The error that one sign in Spark's text tells, if it is there."""
    if _DUPLICATE_KEYS in text:
        return KeyColumnError(
            f"{what}: several source rows have the same key, so a merge would keep any of them; "
            "name further key columns, or filter the source to one row a key"
        )
    if OUTSIDE_PREDICATE_SIGN in text:
        return TargetSchemaError(
            f"{what}: rows to be written lie outside replace_where, so they would not be replaced "
            "by a next run; make --where select the same rows as --replace-where"
        )
    if _SLOW_START in text:
        return TemporaryError(
            f"{what}: a Python worker did not report to Spark in time; nothing was "
            "committed; run the same command again, and if that ends in this way too, give the "
            "machine less to do, or see whether its Python starts (spark.pyspark.python)"
        )
    return None


def unreadable_source(exc: BaseException, source: str = "") -> SourceError | None:
    """The error for a file of the source that cannot be read, if that is what happened.

    Args:
        exc: What PySpark raised.
        source: The source's URI; without it, a Parquet file may as well be the target's.
    """
    found = _UNREADABLE.search(said_by(exc))
    if found is None:
        return None
    if "/_change_data/" in found[1]:
        return vacuumed_error(found[1])
    # A file of Delta's that has gone is told of by `of_delta_source`.
    if found[1].endswith(".parquet") and (found[2] or not _is_below(found[1], source)):
        return None
    # What Spark would have one do, to take the row as null, is no option of ours.
    reason = reason_of(exc).partition(" Parse Mode: ")[0]
    return SourceError(
        f"data file {shown(found[1])} cannot be read: {reason}; nothing was "
        "written; restore or mend the file, or check --source-option and --source-schema"
    )


def _is_below(file: str, source: str) -> bool:
    folder = unquote(urlsplit(source).path).rstrip("/")
    return bool(folder) and unquote(urlsplit(file).path).startswith(f"{folder}/")


def _of_brokers(what: str, text: str) -> SparkscoreError | None:
    """The error that Kafka's brokers are the reason of, if they are."""
    lost = _LOST_MESSAGES.search(text)
    if lost is not None:
        return SourceLostError(
            f"{what}: messages were removed before they were read: {_told(lost[1])}; go on with "
            "what is there by --source-option failOnDataLoss=false, if that is meant, and keep "
            "messages for longer than the stream may stand still"
        )
    away = _BROKERS_AWAY.search(text)
    if away is None:
        return None
    reason = _told(away[1] or away[2])
    return SourceAwayError(
        f"{what}: the brokers of Kafka did not answer ({reason}); run the same command again when "
        "they do: what was committed is found and not scored twice"
    )


def _told(line: str) -> str:
    return line.partition(" SQLSTATE")[0].strip(" .")[:_MAX_REASON_CHARS]


def _ended_worker(what: str, rows: str, left: str) -> SparkscoreError:
    """The error that a worker's note stands for.

    Args:
        what: The job.
        rows: The note: model and rows.
        left: What Python's fault handler wrote below it, if it came to that.
    """
    # That of the thread that crashed; a hang is shown with the main thread as the last one.
    start = left.find("Current thread")
    stack = left[start if start >= 0 else max(0, left.rfind("\nThread ")) :]
    line = _PYTHON_LINE.search(stack)
    where = f" in {line[3]} ({line[1]}, line {line[2]})" if line else ""
    deadline = _DEADLINE.search(left)
    if deadline is not None:
        return BatchDeadlineError(
            f"{what}: model {rows}: no answer after {deadline[1]}{where}; nothing was committed; "
            "mend the model, give it smaller batches (scoring.max_rows_per_batch) or more time "
            "(scoring.batch_deadline_s)"
        )
    fatal = _FATAL.search(left)
    how = f"by {fatal[1]}{where}" if fatal else "without a word (os._exit, or killed for memory?)"
    return WorkerCrashError(
        f"{what}: model {rows}: its Python worker ended {how} at each try; nothing was committed; "
        "try the model on these rows, give workers more memory (fewer slots a node), or register "
        "a mended version"
    )


def reason_of(exc: BaseException) -> str:
    """What went wrong at the bottom of a chain of Java's errors, in one line."""
    causes = _CAUSE.findall(said_by(exc))
    return " ".join(causes[-1].split())[:_MAX_REASON_CHARS] if causes else first_line(exc)


def first_line(exc: BaseException) -> str:
    """What went wrong, in one line, without the way that the call took through Py4J."""
    lines = [line.strip(": ") for line in said_by(exc).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("An error occurred while calling")]
    return (said or [type(exc).__name__])[0]


def _is_of_spark(exc: BaseException, sign: re.Pattern[str]) -> bool:
    """Whether Spark or Delta says so; a model's own message may hold any words."""
    text = _text(exc)
    return sign.search(text) is not None and _OURS.search(text) is None


def said_by(exc: BaseException) -> str:
    """The message of an error, which Py4J asks the JVM for; if that has gone, what it says then."""
    try:
        return str(exc)
    except (Py4JError, ConnectionError) as gone:
        return f"{type(gone).__name__}: {gone}"


def _text(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {said_by(exc)}"
