"""What features go together, and what a checkpoint is bound to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sparkscore.errors import ConfigError
from sparkscore.scoring.features import Features, Join, State, Watermark, Window, duration_s
from sparkscore.scoring.history import HistoryColumn

MARK = Watermark("ts", "1 minute")
WINDOW = Window("10 minutes", "5 minutes", ("sensor",), {"n": "count(*)"})
STATE = State(("sensor",), 60, {"n": HistoryColumn("rows", None)})


@pytest.mark.parametrize(
    ("text", "seconds"), [("1 second", 1), ("10 minutes", 600), ("2 hours", 7200), ("1 day", 86400)]
)
def test_durations_are_read(text: str, seconds: int) -> None:
    assert duration_s(text, "delay") == seconds


@pytest.mark.parametrize("text", ["", "10", "minutes", "1.5 hours", "-1 seconds", "1 month", "10m"])
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError, match=r"delay is .*'10 minutes'"):
        duration_s(text, "delay")


def test_a_misspelled_unit_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'minutes'"):
        duration_s("10 mintues", "delay")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Features(window=WINDOW), "features.watermark"),
        (lambda: Features(state=STATE), "features.watermark"),
        (lambda: Features(watermark=MARK, window=WINDOW, state=STATE), "take one of them"),
        (lambda: Features(watermark=Watermark("ts", "soon")), "features.watermark.delay"),
        (lambda: Features(watermark=MARK, state=State((), 60, STATE.columns)), "`by`"),
        (lambda: window("0 seconds", None), "length is 0"),
        (lambda: window("1 hour", "2 hours"), "a slide"),
        (lambda: window("1 hour", "0 hours"), "a slide"),
        (lambda: Features(watermark=MARK, window=Window("1 hour", None, (), {})), "needs columns"),
        (
            lambda: Features(
                watermark=MARK, window=Window("1 hour", None, ("N",), {"n": "count(*)"})
            ),
            "two columns called 'n'",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(make: Callable[[], object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make()


def window(length: str, slide: str | None) -> Features:
    return Features(watermark=MARK, window=Window(length, slide, (), {"n": "count(*)"}))


def test_a_checkpoint_is_bound_to_all_but_joins() -> None:
    features = Features(watermark=MARK, window=WINDOW)
    joined = Features(watermark=MARK, window=WINDOW, joins=(Join("sensors", ("sensor",)),))
    assert features.bound_to_checkpoint() == joined.bound_to_checkpoint()
    assert features.digest != joined.digest
    other = Features(watermark=Watermark("ts", "2 minutes"), window=WINDOW)
    assert features.bound_to_checkpoint() != other.bound_to_checkpoint()
    assert set(Features().bound_to_checkpoint().values()) == {""}
