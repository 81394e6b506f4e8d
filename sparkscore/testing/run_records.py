"""What the cases of stores share: values as hypothesis draws them, and runs to try them on."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sparkscore.names import RunId
from sparkscore.records import Metric, Run
from sparkscore.stores.base import RunStore

# Each example uses a run of its own, so one store may serve all examples and all subclasses.
SHARED_STORE = settings(
    deadline=None,
    max_examples=40,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
KEYS = st.from_regex(r"[\w\-: ][/\w\-: ]{0,60}", fullmatch=True).filter(lambda key: key.strip())
INT64 = st.integers(min_value=-(2**63), max_value=2**63 - 1)
FLOATS = st.floats(allow_nan=True, allow_infinity=True)
POINTS = st.builds(Metric, KEYS, FLOATS, timestamp_ms=INT64, step=INT64)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200)


def new_run(
    store: RunStore,
    *,
    experiment_id: str = "0",
    run_id: str = "run-1",
    start_time_ms: int = 1,
    tags: Mapping[str, str] | None = None,
) -> Run:
    """A run of which only what a test is about needs to be said."""
    return store.create_run(
        experiment_id,
        run_id=RunId(run_id),
        run_name=f"name of {run_id}",
        user_id="ann",
        start_time_ms=start_time_ms,
        tags=tags,
    )


def comparable(point: Metric) -> tuple[str, str, int, int]:
    """A point as a value that equals itself; repr, since NaN does not, and -0.0 equals 0.0."""
    return point.key, repr(point.value), point.timestamp_ms, point.step
