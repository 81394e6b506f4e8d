"""What came over, what was there before, and what was left out with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock

_MAX_EXAMPLES = 5
_MAX_REASONS = 500
_MORE_REASONS = "for further reasons"


@dataclass
class LeftOut:
    """Records of a kind that one reason kept from coming over."""

    kind: str
    why: str
    n: int = 0
    examples: list[str] = field(default_factory=list)


class Tally:
    """Counts by kind; safe between threads, and small however much is left out."""

    def __init__(self) -> None:
        self.new: Counter[str] = Counter()
        self.there: Counter[str] = Counter()
        self._left_out: dict[tuple[str, str], LeftOut] = {}
        self._lock = Lock()

    @property
    def left_out(self) -> list[LeftOut]:
        """Every reason, by kind."""
        return sorted(self._left_out.values(), key=lambda it: (it.kind, it.why))

    def count(self, kind: str, *, new: int = 0, there: int = 0) -> None:
        """Add what came over, and what was there before."""
        with self._lock:
            self.new[kind] += new
            self.there[kind] += there

    def refuse(self, kind: str, name: str, why: str) -> None:
        """Add one that is left out."""
        with self._lock:
            if (kind, why) not in self._left_out and len(self._left_out) >= _MAX_REASONS:
                why = _MORE_REASONS
            of_reason = self._left_out.setdefault((kind, why), LeftOut(kind, why))
            of_reason.n += 1
            if len(of_reason.examples) < _MAX_EXAMPLES:
                of_reason.examples.append(name)

    def n_left_out(self, kind: str) -> int:
        """How many of a kind are left out."""
        return sum(it.n for it in self._left_out.values() if it.kind == kind)

    def is_whole(self, by_design: Iterable[str] = ()) -> bool:
        """Whether all came over, but for what these reasons leave out."""
        return not {why for _, why in self._left_out} - set(by_design)
