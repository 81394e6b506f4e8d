"""What scores have to be before they are published: number of rows, nulls, range and drift."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from sparkscore.errors import CheckFailedError, ConfigError, listed, nearest, shown
from sparkscore.scoring.sketch import ColumnSketch, drift, is_number, item_type

if TYPE_CHECKING:
    from sparkscore.scoring.plan import RunIdentity
    from sparkscore.scoring.target import HistoryEntry

_PROFILE = "profile"


@dataclass(frozen=True)
class Checks:
    """Bounds of what a run may publish; None, or no column: nothing is asked.

    Attributes:
        min_rows: Fewest rows that are scored.
        max_rows: Most of them.
        max_row_change: Largest difference from the number of the last run, as a share of that.
        max_null_share: Largest share of rows without a value, by prediction column.
        min_value: Least value, by prediction column; NaN is outside of every range.
        max_value: Greatest value.
        max_drift: Largest population stability index against the last run; see `sketch.drift`.
    """

    min_rows: int | None = None
    max_rows: int | None = None
    max_row_change: float | None = None
    max_null_share: Mapping[str, float] = field(default_factory=dict)
    min_value: Mapping[str, float] = field(default_factory=dict)
    max_value: Mapping[str, float] = field(default_factory=dict)
    max_drift: Mapping[str, float] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Prediction columns whose values are looked at, each once."""
        asked = (self.max_null_share, self.min_value, self.max_value, self.max_drift)
        return tuple(dict.fromkeys(name for names in asked for name in names))

    @property
    def compares(self) -> bool:
        """Whether something is compared with the last run."""
        return self.max_row_change is not None or bool(self.max_drift)

    @property
    def are_there(self) -> bool:
        """Whether anything is checked."""
        rows = (self.min_rows, self.max_rows, self.max_row_change)
        return bool(self.columns) or any(bound is not None for bound in rows)

    def check_columns(self, predictions: pa.Schema) -> None:
        """Refuse bounds for what the model does not answer, or for values without an order.

        Raises:
            ConfigError: There are such.
        """
        for name in self.columns:
            if name not in predictions.names:
                raise ConfigError(
                    f"a check names column {name!r}, which the model does not answer"
                    f"{nearest(name, predictions.names)}; it answers {listed(predictions.names)}"
                )
        for name in dict.fromkeys([*self.min_value, *self.max_value, *self.max_drift]):
            kind = item_type(predictions.field(name).type)
            is_text = pa.types.is_string(kind)
            if is_text and name not in self.min_value and name not in self.max_value:
                continue
            if not is_number(kind):
                raise ConfigError(
                    f"a check of column {name!r} compares numbers, but it is {kind}; texts can be "
                    "checked by max_drift and max_null_share alone"
                )


@dataclass(frozen=True)
class Profile:
    """What is known of a run's scores as a whole: their number, and how columns are spread."""

    n_rows: int
    columns: Mapping[str, ColumnSketch] = field(default_factory=dict)

    def to_facts(self) -> dict[str, object]:
        """The profile as it stands in a commit's metadata."""
        columns = {name: sketch.to_facts() for name, sketch in self.columns.items()}
        return {"rows": self.n_rows, "columns": columns}


def profile_metadata(profile: Profile) -> dict[str, object]:
    """What a commit's metadata says beside the run, so that the next one can be compared."""
    return {_PROFILE: profile.to_facts()}


def last_profile(
    history: Iterable[HistoryEntry], job: str, identity: RunIdentity
) -> Profile | None:
    """The profile of the last run of a job that has told one; None: no other run has.

    Args:
        history: The target's commits, the newest first.
        job: Name of the logical job.
        identity: The run itself, which is not compared with itself.
    """
    for entry in history:
        facts = entry.facts
        if facts.get("job") != job or _PROFILE not in facts:
            continue
        if facts["app_id"] != identity.app_id:
            told = facts[_PROFILE]
            columns = told["columns"].items()
            sketches = {name: ColumnSketch.from_facts(sketch) for name, sketch in columns}
            return Profile(int(told["rows"]), sketches)
    return None


def merged(parts: Iterable[Mapping[str, ColumnSketch]]) -> dict[str, ColumnSketch]:
    """The sketches of all parts of a run, by column."""
    total: dict[str, ColumnSketch] = {}
    for part in parts:
        for name, sketch in part.items():
            total[name] = total[name].plus(sketch) if name in total else sketch
    return total


def failed_checks(checks: Checks, now: Profile, before: Profile | None) -> list[str]:
    """Each check that fails, with what was found and the bound.

    Args:
        checks: The bounds.
        now: What would be published.
        before: The last run's; None: nothing to compare with.
    """
    return list(_failed(checks, now, before))


def check_failed_error(failed: Sequence[str], ways_out: str) -> CheckFailedError:
    """Scores are held back.

    Args:
        failed: The failed checks.
        ways_out: What to do with what was held.
    """
    lines = "".join(f"\n  {line}" for line in failed)
    return CheckFailedError(
        f"the scores fail {len(failed)} of the job's checks:{lines}\n{ways_out}"
    )


def _failed(checks: Checks, now: Profile, before: Profile | None) -> Iterator[str]:
    yield from _failed_rows(checks, now, before)
    empty = ColumnSketch()
    for name in checks.columns:
        sketch = now.columns.get(name, empty)
        yield from _failed_nulls(checks, name, sketch)
        yield from _failed_range(checks, name, sketch)
        reference = None if before is None else before.columns.get(name)
        limit = checks.max_drift.get(name)
        if limit is not None and reference is not None:
            found = drift(reference, sketch)
            if found > limit:
                yield f"max_drift.{name}: {found:.4g} against the last run, the bound is {limit:g}"


def _failed_rows(checks: Checks, now: Profile, before: Profile | None) -> Iterator[str]:
    if checks.min_rows is not None and now.n_rows < checks.min_rows:
        yield f"min_rows: {now.n_rows} rows were scored, the bound is {checks.min_rows}"
    if checks.max_rows is not None and now.n_rows > checks.max_rows:
        yield f"max_rows: {now.n_rows} rows were scored, the bound is {checks.max_rows}"
    if checks.max_row_change is not None and before is not None:
        change = abs(now.n_rows - before.n_rows) / max(before.n_rows, 1)
        if change > checks.max_row_change:
            yield (
                f"max_row_change: {now.n_rows} rows after {before.n_rows} in the last run are a "
                f"change of {change:.4g}, the bound is {checks.max_row_change:g}"
            )


def _failed_nulls(checks: Checks, name: str, sketch: ColumnSketch) -> Iterator[str]:
    limit = checks.max_null_share.get(name)
    share = sketch.n_nulls / max(sketch.n_rows, 1)
    if limit is not None and share > limit:
        yield (
            f"max_null_share.{name}: {sketch.n_nulls} of {sketch.n_rows} rows are null "
            f"({share:.4g}), the bound is {limit:g}"
        )


def _failed_range(checks: Checks, name: str, sketch: ColumnSketch) -> Iterator[str]:
    low, high = checks.min_value.get(name), checks.max_value.get(name)
    if low is not None and sketch.low is not None and sketch.low < low:
        yield f"min_value.{name}: the least value is {sketch.low!r}, the bound is {low:g}"
    if high is not None and sketch.high is not None and sketch.high > high:
        yield f"max_value.{name}: the greatest value is {sketch.high!r}, the bound is {high:g}"
    if sketch.n_nan and (low is not None or high is not None):
        bound = "min_value" if low is not None else "max_value"
        yield f"{bound}.{name}: {shown(sketch.n_nan)} values are NaN, which no range has in it"
