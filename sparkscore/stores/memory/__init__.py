"""Records kept in memory: the reference that every other store must equal."""

from __future__ import annotations

from dataclasses import dataclass

from sparkscore.stores.base import Clock, system_clock
from sparkscore.stores.memory.logged_models import MemoryLoggedModelStore
from sparkscore.stores.memory.models import MemoryModelStore
from sparkscore.stores.memory.purges import MemoryPurgeStore
from sparkscore.stores.memory.runs import MemoryRunStore
from sparkscore.stores.memory.state import MemoryState
from sparkscore.stores.memory.webhooks import MemoryWebhookStore

__all__ = [
    "MemoryLoggedModelStore",
    "MemoryModelStore",
    "MemoryPurgeStore",
    "MemoryRunStore",
    "MemoryStores",
    "MemoryWebhookStore",
    "open_memory",
]


@dataclass(frozen=True)
class MemoryStores:
    """The record stores of one process."""

    runs: MemoryRunStore
    models: MemoryModelStore
    logged_models: MemoryLoggedModelStore
    webhooks: MemoryWebhookStore
    purges: MemoryPurgeStore


def open_memory(artifact_root: str, clock: Clock = system_clock) -> MemoryStores:
    """New record stores without records but the experiment `Default`.

    Args:
        artifact_root: URI below which experiments without a location of their own keep files.
        clock: Milliseconds since the epoch.
    """
    state = MemoryState()
    return MemoryStores(
        MemoryRunStore(artifact_root, clock, state),
        MemoryModelStore(clock),
        MemoryLoggedModelStore(state, clock),
        MemoryWebhookStore(),
        MemoryPurgeStore(state),
    )
