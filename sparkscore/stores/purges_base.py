"""The seam behind which is known what was deleted, and which files are to be removed for good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sparkscore.records import DeletedRecord, Removal


class PurgeStore(Protocol):
    """What a RunStore and a LoggedModelStore deleted and purged, for who clears up behind them.

    A purge notes the files of what it removes in the same step, so that they are found again
    whatever happens before they are gone. Any call may raise StoreUnavailableError.
    """

    def list_deleted(self, before_ms: int) -> Sequence[DeletedRecord]:
        """What was deleted at this time or before: runs, then logged models, then experiments.

        Of each kind that which was deleted first comes first. What an experiment holds counts as
        deleted with it; each of them can be purged.
        """
        ...

    def list_removals(self) -> Sequence[Removal]:
        """Files of purged records that nobody has said are gone, in the order of the purges."""
        ...

    def forget_removal(self, removal_id: int) -> None:
        """Note that these files are gone; nothing happens where that is known."""
        ...
