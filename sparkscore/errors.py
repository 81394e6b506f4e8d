"""Every error sparkscore raises on purpose, as one tree.

```
SparkscoreError                     code               exit  a caller may ...
├── UsageError                      USAGE                2   mend the command or the settings
│   ├── ConfigError                 CONFIG_INVALID
│   ├── InvalidNameError            NAME_INVALID
│   ├── MissingExtraError           EXTRA_MISSING            install the extra it names
│   ├── JavaError                   JAVA_UNUSABLE
│   ├── SourceError                 SOURCE_INVALID
│   │   ├── SourceChangesError      SOURCE_CHANGES           say how changed rows are to be taken
│   │   └── SourceLostError         SOURCE_LOST              decide, as a person, to go on without
│   ├── EngineUnfitError            ENGINE_UNFIT             take another engine
│   ├── RecordNotFoundError         RESOURCE_DOES_NOT_EXIST
│   ├── RecordExistsError           RESOURCE_ALREADY_EXISTS
│   ├── InvalidStateError           INVALID_STATE
│   └── StoreSchemaError            STORE_SCHEMA             run the migration it names
├── DataError                       DATA_INVALID         3   mend the data, then run again
│   ├── KeyColumnError              KEY_INVALID
│   ├── InvalidRowsError            ROWS_INVALID
│   ├── RejectBudgetError           REJECTS_OVER_BUDGET      or admit more of them
│   └── CheckFailedError            CHECK_FAILED             look at what was held, then accept it
├── ModelError                      MODEL_UNUSABLE       4   register or choose another version
│   ├── PackageFormatError          PACKAGE_INVALID
│   ├── PackageDigestError          PACKAGE_DIGEST
│   ├── UnknownFlavorError          FLAVOR_UNKNOWN
│   ├── UntrustedCodeError          PACKAGE_UNTRUSTED
│   ├── UnsignedPackageError        PACKAGE_UNSIGNED         have it signed by a known key
│   ├── ModelNotFoundError          MODEL_NOT_FOUND
│   ├── SignatureMismatchError      SIGNATURE_MISMATCH
│   ├── PredictionError             PREDICTION_FAILED
│   ├── ModelTooLargeError          MODEL_TOO_LARGE          give workers more memory
│   ├── BatchDeadlineError          BATCH_DEADLINE           mend it, or give it more time
│   ├── WorkerCrashError            WORKER_CRASHED
│   ├── EnvironmentBuildError       ENVIRONMENT_UNUSABLE
│   ├── EnvironmentMismatchError    ENVIRONMENT_MISMATCH     install what it names
│   ├── NotCertifiedError           NOT_CERTIFIED
│   └── NotConvertedError           NOT_CONVERTED            keep the model as it is
├── TargetError                     TARGET_INVALID       5   decide, as a person, what it shall be
│   ├── TargetSchemaError           TARGET_SCHEMA
│   ├── TargetUnwritableError       TARGET_UNWRITABLE
│   ├── RunKeyConflictError         RUN_KEY_CONFLICT
│   ├── OutletError                 OUTLET_INVALID           mend the place that rows go to
│   └── CheckpointError             CHECKPOINT_INVALID
│       ├── ForeignCheckpointError  CHECKPOINT_FOREIGN
│       ├── LostCheckpointError     CHECKPOINT_LOST
│       └── StaleCheckpointError    CHECKPOINT_STALE
├── TemporaryError                  TEMPORARY           75   run the same command again
│   ├── StoreUnavailableError       STORE_UNAVAILABLE
│   ├── SourceAwayError             SOURCE_AWAY
│   ├── SchemaChangedError          SCHEMA_CHANGED
│   ├── JarsUnavailableError        JARS_UNAVAILABLE
│   ├── PortTakenError              PORT_TAKEN
│   ├── SparkStoppedError           SPARK_STOPPED
│   ├── StagedFilesGoneError        STAGED_FILES_GONE
│   ├── OutletAwayError             OUTLET_AWAY
│   └── TargetBusyError             TARGET_BUSY
└── InternalError                   INTERNAL             1   report it
    ├── BooksError                  BOOKS_UNBALANCED
    └── SparkFailedError            SPARK_FAILED
```

The exit codes are the ones orchestrators act on: 2, 3, 4 and 5 must not be retried, 75 should be.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

_MAX_SHOWN_CHARS = 200
_MAX_SHOWN_ITEMS = 5
_LOOK_ALIKES = str.maketrans(
    # Cyrillic, then Greek, small letters.
    "\u0430\u0441\u0435\u04bb\u0456\u0458\u043a\u043c\u043e\u0440\u0455\u0442\u0443\u0445"
    "\u03b1\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5",
    "acehijkmopstyxaikvoptu",
)


class SparkscoreError(Exception):
    """Anything sparkscore refuses or fails at; the message says what, where and what to do.

    Attributes:
        code: Stable name of the error, the same in CLI, Python, result files and REST.
        exit_code: What a command ends with when this error reaches its edge.
    """

    code: ClassVar[str] = "INTERNAL"
    exit_code: ClassVar[int] = 1

    @property
    def retryable(self) -> bool:
        """Whether the same command can succeed later without any change."""
        return self.exit_code == TemporaryError.exit_code


class UsageError(SparkscoreError, ValueError):
    """The command or its settings ask for something that cannot be."""

    code = "USAGE"
    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown, misspelled or of the wrong type."""

    code = "CONFIG_INVALID"


class InvalidNameError(UsageError):
    """A name, URI or path from outside does not parse."""

    code = "NAME_INVALID"


class MissingExtraError(UsageError, ImportError):
    """A library is needed that an extra of sparkscore would bring."""

    code = "EXTRA_MISSING"


class JavaError(UsageError):
    """No Java of the needed version was found, or the JVM could not start."""

    code = "JAVA_UNUSABLE"


class SourceError(UsageError):
    """The source is no table, or a filter or version of it does not exist."""

    code = "SOURCE_INVALID"


class SourceChangesError(SourceError):
    """What has changed in the source since the last run cannot be told."""

    code = "SOURCE_CHANGES"


class SourceLostError(SourceError):
    """Rows that were still to be read are gone from the source."""

    code = "SOURCE_LOST"


class EngineUnfitError(UsageError):
    """An engine cannot do what a job asks for; another one can.

    Attributes:
        reason: What it cannot do, in one line.
    """

    code = "ENGINE_UNFIT"

    def __init__(
        self,
        reason: str,
        engine: str = "files",
        cure: str = "take --engine arrow, or auto, which does so by itself",
    ) -> None:
        super().__init__(f"the {engine} engine cannot do this job: {reason}; {cure}")
        self.reason = reason


class RecordNotFoundError(UsageError, LookupError):
    """A store has no such experiment, run, model, version, alias, tag or artifact."""

    code = "RESOURCE_DOES_NOT_EXIST"


class RecordExistsError(UsageError):
    """A store already has a record of this name."""

    code = "RESOURCE_ALREADY_EXISTS"


class InvalidStateError(UsageError):
    """The record exists, but its state forbids the change (a deleted run, a version not READY)."""

    code = "INVALID_STATE"


class StoreSchemaError(UsageError):
    """The database belongs to another product or to another release of this one."""

    code = "STORE_SCHEMA"


class DataError(SparkscoreError, ValueError):
    """The rows break the contract of the job; running again would not help."""

    code = "DATA_INVALID"
    exit_code = 3


class KeyColumnError(DataError):
    """A key column holds nulls, or rows share a key where it must be unique."""

    code = "KEY_INVALID"


class InvalidRowsError(DataError):
    """Rows cannot be given to the model, and the policy is to fail."""

    code = "ROWS_INVALID"


class RejectBudgetError(DataError):
    """More rows of a run got no prediction than its budget admits."""

    code = "REJECTS_OVER_BUDGET"


class CheckFailedError(DataError):
    """Scores are not what the job's checks ask for; they were not published."""

    code = "CHECK_FAILED"


class ModelError(SparkscoreError):
    """The model cannot be loaded, trusted or used."""

    code = "MODEL_UNUSABLE"
    exit_code = 4


class PackageFormatError(ModelError, ValueError):
    """A package is missing a file, or a file of it does not parse."""

    code = "PACKAGE_INVALID"


class PackageDigestError(ModelError):
    """The bytes of a package are not the ones that were sealed."""

    code = "PACKAGE_DIGEST"


class UnknownFlavorError(ModelError):
    """No flavor known here can load the package."""

    code = "FLAVOR_UNKNOWN"


class UntrustedCodeError(ModelError, PermissionError):
    """Loading the package would run code that the trust policy does not allow."""

    code = "PACKAGE_UNTRUSTED"


class UnsignedPackageError(ModelError, PermissionError):
    """The policy demands a signature by one of its keys, and the package has none."""

    code = "PACKAGE_UNSIGNED"


class ModelNotFoundError(ModelError, LookupError):
    """A model URI names no package or version."""

    code = "MODEL_NOT_FOUND"


class SignatureMismatchError(ModelError, TypeError):
    """The source's columns do not fit the model's signature."""

    code = "SIGNATURE_MISMATCH"


class PredictionError(ModelError, RuntimeError):
    """The model raised, or answered with something its signature does not allow.

    Attributes:
        column: The prediction column that the answer does not fit; None: no single one.
    """

    code = "PREDICTION_FAILED"

    def __init__(self, message: str, column: str | None = None) -> None:
        super().__init__(message)
        self.column = column


class ModelTooLargeError(ModelError, MemoryError):
    """The model, or what it needs for a single row, does not fit into a worker's memory."""

    code = "MODEL_TOO_LARGE"


class BatchDeadlineError(ModelError, TimeoutError):
    """A model took longer for a batch than it may."""

    code = "BATCH_DEADLINE"


class WorkerCrashError(ModelError):
    """A model ended the process that it ran in, at each try."""

    code = "WORKER_CRASHED"


class EnvironmentBuildError(ModelError):
    """The environment that a package needs cannot be made, or does not start."""

    code = "ENVIRONMENT_UNUSABLE"


class EnvironmentMismatchError(ModelError):
    """The libraries that would score are not those that the package was made with."""

    code = "ENVIRONMENT_MISMATCH"


class NotCertifiedError(ModelError):
    """A model scores otherwise in one way than in another."""

    code = "NOT_CERTIFIED"


class NotConvertedError(ModelError):
    """A model cannot be converted, or would score otherwise than it does."""

    code = "NOT_CONVERTED"


class TargetError(SparkscoreError):
    """The target table needs a person's decision."""

    code = "TARGET_INVALID"
    exit_code = 5


class TargetSchemaError(TargetError, TypeError):
    """The target's columns or partitions differ from the ones to be written."""

    code = "TARGET_SCHEMA"


class TargetUnwritableError(TargetError, PermissionError):
    """The target's location refuses writes."""

    code = "TARGET_UNWRITABLE"


class RunKeyConflictError(TargetError):
    """A run key was committed before with other inputs."""

    code = "RUN_KEY_CONFLICT"


class OutletError(TargetError):
    """A place that a stream is published to does not take its rows."""

    code = "OUTLET_INVALID"


class CheckpointError(TargetError):
    """The checkpoint of a stream is damaged, or cannot be written."""

    code = "CHECKPOINT_INVALID"


class ForeignCheckpointError(CheckpointError):
    """A checkpoint belongs to another stream, or is the copy of one that may still be used."""

    code = "CHECKPOINT_FOREIGN"


class LostCheckpointError(CheckpointError):
    """The target knows an earlier stream of the job, and the checkpoint does not."""

    code = "CHECKPOINT_LOST"


class StaleCheckpointError(CheckpointError):
    """Checkpoint and target do not know the same batches: one of them was put back or replaced."""

    code = "CHECKPOINT_STALE"


class TemporaryError(SparkscoreError):
    """Something outside is not there now; the same command may succeed later."""

    code = "TEMPORARY"
    exit_code = 75


class StoreUnavailableError(TemporaryError, ConnectionError):
    """A tracking, registry, artifact or object store did not answer."""

    code = "STORE_UNAVAILABLE"


class SourceAwayError(TemporaryError, ConnectionError):
    """Those who keep the source's rows do not answer."""

    code = "SOURCE_AWAY"


class SchemaChangedError(TemporaryError):
    """A stream's source has other columns than those that the stream was planned with."""

    code = "SCHEMA_CHANGED"


class JarsUnavailableError(TemporaryError):
    """Jars of Delta, or of Kafka's connector, are not cached and could not be fetched."""

    code = "JARS_UNAVAILABLE"


class PortTakenError(TemporaryError, OSError):
    """A port that was asked for is in use."""

    code = "PORT_TAKEN"


class StagedFilesGoneError(TemporaryError):
    """What a job had written and not committed was removed, while it was stopped."""

    code = "STAGED_FILES_GONE"


class OutletAwayError(TemporaryError, ConnectionError):
    """A place that a stream is published to did not answer."""

    code = "OUTLET_AWAY"


class SparkStoppedError(TemporaryError):
    """Spark's driver JVM was stopped or killed while a job of ours ran in it."""

    code = "SPARK_STOPPED"


class TargetBusyError(TemporaryError):
    """Concurrent commits to the target won every try."""

    code = "TARGET_BUSY"


class InternalError(SparkscoreError, RuntimeError):
    """A promise of sparkscore's own was broken."""

    code = "INTERNAL"


class BooksError(InternalError):
    """Rows read are not rows scored + rejected + skipped."""

    code = "BOOKS_UNBALANCED"


class SparkFailedError(InternalError):
    """A Spark job failed for a reason that has no error class of its own."""

    code = "SPARK_FAILED"


def is_interrupt(exc: BaseException) -> bool:
    """Whether Ctrl-C is what happened, though a library may have raised something else over it.

    Py4J, for one, fails to close its connection when Ctrl-C breaks into a call, and raises that.
    """
    seen: BaseException | None = exc
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__cause__ or seen.__context__
    return seen is not None


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether a lack of memory is what happened, though a library may have raised something else.

    Libraries in C++ hand on what their allocator says, as an error of their own class.
    """
    if isinstance(exc, MemoryError) or "bad_alloc" in str(exc):
        return True
    return exc.__cause__ is not None and is_out_of_memory(exc.__cause__)


def shown(value: object) -> str:
    """`value` as an error message shows it: its repr, cut at 200 characters."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else text[: _MAX_SHOWN_CHARS - 1] + "…"


def listed(values: Iterable[object]) -> str:
    """`values` as an error message lists them: five at most, then how many more."""
    items = list(values)
    head = ", ".join(shown(item) for item in items[:_MAX_SHOWN_ITEMS])
    more = len(items) - _MAX_SHOWN_ITEMS
    return f"{head} and {more} more" if more > 0 else head or "none"


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the closest known word, or an empty string.

    Words that look alike are close, and told apart by their first other character.
    """
    by_fold = {_folded(name): name for name in known}
    close = get_close_matches(_folded(word), by_fold, n=1, cutoff=0.6)
    if not close:
        return ""
    name = by_fold[close[0]]
    looks_alike = close[0] == _folded(word) and name.casefold() != word.casefold()
    told = f", which has {_first_difference(name, word)}" if looks_alike else ""
    return f" (did you mean {name!r}{told}?)"


def _folded(word: str) -> str:
    """A word by its looks: without case, spaces, marks that are not seen, and other alphabets."""
    seen = unicodedata.normalize("NFKC", word).casefold()
    letters = (c for c in seen if not c.isspace() and unicodedata.category(c) != "Cf")
    return "".join(letters).translate(_LOOK_ALIKES)


def _first_difference(name: str, word: str) -> str:
    pairs = enumerate(zip(name, word, strict=False))
    start = next((i for i, (a, b) in pairs if a != b), min(len(name), len(word)))
    return f"{_code_point(name[start:])} where {word!r} has {_code_point(word[start:])}"


def _code_point(text: str) -> str:
    if not text:
        return "its end"
    return f"U+{ord(text[0]):04X} {unicodedata.name(text[0], '(a character without name)')}"
