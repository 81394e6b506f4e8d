"""Stores that fail on demand, to be laid around a real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from sparkscore.errors import StoreUnavailableError

Store = TypeVar("Store")


class Fault:
    """Decides which calls fail; one may govern several stores.

    Attributes:
        is_down: Every call fails.
        calls_left: The store goes down by itself after so many calls; None: it does not.
        error: What a call that fails raises; None: StoreUnavailableError.
    """

    def __init__(
        self,
        *,
        is_down: bool = False,
        calls_left: int | None = None,
        error: Exception | None = None,
    ) -> None:
        self.is_down = is_down
        self.calls_left = calls_left
        self.error = error

    def check(self) -> None:
        """Count a call, or fail it.

        Raises:
            StoreUnavailableError: It is this call's turn to fail.
        """
        if self.calls_left == 0:
            self.is_down = True
        if self.is_down:
            raise self.error or StoreUnavailableError("the store is down, as the test wants it")
        if self.calls_left is not None:
            self.calls_left -= 1


def failing(inner: Store, fault: Fault) -> Store:
    """`inner`, but each call of a method of it is first up to `fault`."""
    return cast("Store", _Failing(inner, fault))


class _Failing:
    def __init__(self, inner: object, fault: Fault) -> None:
        self._inner = inner
        self._fault = fault

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inner, name)
        return self._guarded(found) if callable(found) else found

    def _guarded(self, method: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            self._fault.check()
            return method(*args, **options)

        return call
