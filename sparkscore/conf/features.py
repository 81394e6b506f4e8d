"""The block `features` of a job's file: what is computed before scoring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from sparkscore.conf.settings import Frozen
from sparkscore.errors import nearest


class WatermarkSettings(Frozen):
    """When a row came to be, and how late it may come."""

    column: str | None = None
    delay: str = "0 seconds"


class WindowSettings(Frozen):
    """One row for each key and span of time."""

    length: str | None = None
    slide: str | None = None
    """None: windows that do not overlap."""
    by: tuple[str, ...] = ()
    columns: dict[str, str] = Field(default_factory=dict)
    """Name to an aggregate in Spark's SQL."""


class StateSettings(Frozen):
    """What a row is told of those of its key before it."""

    by: tuple[str, ...] = ()
    forget_after: str = "1 day"
    """A key of which no row comes for longer begins anew."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Name to such as `lag(temp, 1)`."""


class JoinSettings(Frozen):
    """A Delta table whose columns are added."""

    table: str
    by: tuple[str, ...] = Field(min_length=1)
    columns: tuple[str, ...] = ()
    """None: all."""
    missing: Literal["keep", "drop", "fail"] = "keep"
    """Of rows without a match."""
    version: int | None = Field(default=None, ge=0)
    """None: the newest when a run, or a batch of a stream, begins."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: object) -> object:
        """Refuse a misspelled name with the one that was meant: it has no dotted key of its own."""
        known = list(cls.model_fields)
        for name in given if isinstance(given, Mapping) else ():
            if name not in known:
                raise ValueError(
                    f"unknown key {name!r}{nearest(str(name), known)}; a join has the keys "
                    f"{', '.join(known)}"
                )
        return given


class FeatureSettings(Frozen):
    """What is computed from the source's rows before they are scored."""

    function: str | None = None
    """`module:name`: is given the rows as a DataFrame, streaming or not, and returns others."""
    watermark: WatermarkSettings = WatermarkSettings()
    window: WindowSettings = WindowSettings()
    state: StateSettings = StateSettings()
    joins: tuple[JoinSettings, ...] = ()
