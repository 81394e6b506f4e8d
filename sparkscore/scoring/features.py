"""What is computed from rows before scoring: windows, histories of keys, joined tables."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from sparkscore.errors import ConfigError, nearest, shown
from sparkscore.scoring.history import HistoryColumn

WINDOW_START, WINDOW_END = "window_start", "window_end"
ROWS_IN, OUT_OF_ORDER = "sparkscore_features", "sparkscore_state"
"""Under these names Spark tells, after a micro-batch, of rows that came to windows and states, and
of those that came to a state after a younger one of their key."""

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_DURATION = re.compile(rf"(\d+) ({'|'.join(_SECONDS)})s?")


class Missing(StrEnum):
    """What becomes of a row that has no match in a joined table."""

    KEEP = "keep"
    DROP = "drop"
    FAIL = "fail"


@dataclass(frozen=True)
class Watermark:
    """How long a stream waits for rows that come late.

    Attributes:
        column: The timestamp that says when a row came to be.
        delay: Such as `10 minutes`: a row is late when one that is younger by more has been seen.
    """

    column: str
    delay: str


@dataclass(frozen=True)
class Window:
    """Rows of a key and a span of time, made into one.

    Attributes:
        length: Such as `1 hour`.
        slide: How far one window begins after the other; None: as long as they are.
        by: Columns of the key.
        columns: Name to an aggregate in Spark's SQL, such as `max(temp) - min(temp)`.
    """

    length: str
    slide: str | None
    by: tuple[str, ...]
    columns: Mapping[str, str]


@dataclass(frozen=True)
class State:
    """What each row is told of the rows of its key before it.

    Attributes:
        by: Columns of the key.
        forget_after_s: A key's history begins anew after a pause that is longer.
        columns: Name to what it is; see `history.HistoryColumn`.
    """

    by: tuple[str, ...]
    forget_after_s: int
    columns: Mapping[str, HistoryColumn]


@dataclass(frozen=True)
class Join:
    """A Delta table whose columns are added to rows.

    Attributes:
        table: Its path or name.
        by: Columns that rows and table have in common; no two rows of the table share them.
        columns: Those that are taken; none: all.
        missing: What becomes of a row without a match.
        version: The table's; None: the newest when a run, or a batch of a stream, begins.
    """

    table: str
    by: tuple[str, ...]
    columns: tuple[str, ...] = ()
    missing: Missing = Missing.KEEP
    version: int | None = None


@dataclass(frozen=True)
class Features:
    """All that is computed before scoring, in this order: function, window or state, joins.

    Attributes:
        function: `module:name` of one that is given the rows as a DataFrame, and returns others.
    """

    function: str | None = None
    watermark: Watermark | None = None
    window: Window | None = None
    state: State | None = None
    joins: tuple[Join, ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse what does not go together.

        Raises:
            ConfigError: A duration does not parse, or parts are missing or too many.
        """
        if self.watermark is not None:
            duration_s(self.watermark.delay, "features.watermark.delay")
        if self.window is not None:
            _check_window(self.window)
        if self.window is not None and self.state is not None:
            raise ConfigError(
                "features.window makes rows of a window one, and features.state follows each row "
                "of a key; take one of them, or a features.function for both"
            )
        if self.watermark is None and (self.window is not None or self.state is not None):
            raise ConfigError(
                "features.window and features.state need features.watermark: the timestamp column "
                "by which rows are ordered, and how late a row may come (column: ts, delay: 10 "
                "minutes)"
            )
        if self.state is not None and not (self.state.by and self.state.columns):
            raise ConfigError("features.state needs `by`, the columns of a key, and `columns`")

    @property
    def are_there(self) -> bool:
        """Whether anything is computed."""
        return self != Features()

    @property
    def in_query(self) -> bool:
        """Whether a streaming query keeps state for them, or may; joins are done in batches."""
        return any(part is not None for part in (self.function, self.window, self.state))

    @property
    def digest(self) -> str:
        """What tells these features from others."""
        return hashlib.sha256(_text(asdict(self)).encode()).hexdigest()[:16]

    def bound_to_checkpoint(self) -> dict[str, str]:
        """What Spark's state in a checkpoint depends on, by name; joins may change."""
        parts = {
            "features.function": self.function,
            "features.watermark": self.watermark,
            "features.window": self.window,
            "features.state": self.state,
        }
        return {
            name: "" if part is None else part if isinstance(part, str) else _text(asdict(part))
            for name, part in parts.items()
        }


def duration_s(text: str, what: str) -> int:
    """Seconds of a duration such as `10 minutes`.

    Args:
        text: A whole number of seconds, minutes, hours or days.
        what: Where it stands, for messages.

    Raises:
        ConfigError: It is none.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        unit = text.rpartition(" ")[2]
        raise ConfigError(
            f"{what} is {shown(text)}{nearest(unit, [f'{name}s' for name in _SECONDS])}; write a "
            "whole number of seconds, minutes, hours or days, such as '10 minutes'"
        )
    return int(match[1]) * _SECONDS[match[2]]


def joined_text(versions: Mapping[str, int]) -> str:
    """Joined tables and their versions, as runs and commits name them."""
    return ", ".join(f"{table}@{version}" for table, version in sorted(versions.items()))


def _check_window(window: Window) -> None:
    length = duration_s(window.length, "features.window.length")
    if length == 0:
        raise ConfigError("features.window.length is 0; write such as '10 minutes'")
    if window.slide is not None:
        slide = duration_s(window.slide, "features.window.slide")
        if not 0 < slide <= length:
            raise ConfigError(
                f"features.window.slide is {window.slide!r}, and length {window.length!r}: a slide "
                "of nothing never ends, and a longer one leaves rows out"
            )
    if not window.columns:
        raise ConfigError(
            "features.window needs columns: a name and an aggregate each, such as "
            "temp_mean: avg(temp)"
        )
    check_unique((WINDOW_START, WINDOW_END, *window.by, *window.columns), "features.window")


def check_unique(names: Iterable[str], what: str) -> None:
    """Refuse names that Spark does not tell apart.

    Raises:
        ConfigError: There are such.
    """
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            raise ConfigError(f"{what} would make two columns called {name!r}; rename one")
        seen.add(name.casefold())


def _text(facts: Mapping[str, object]) -> str:
    return json.dumps(facts, sort_keys=True)
