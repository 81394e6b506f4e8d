from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkscore.scoring.casts import Cast, can_hold_missing, cast_column, find_cast

ODD_LONG = 9223372036854775707
YEAR_1 = dt.datetime(1, 1, 1, 0, 0, 0, 1)
YEAR_9999 = dt.datetime(9999, 12, 31, 23, 59, 59, 999999)

INTEGERS = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
SCALARS = [
    *INTEGERS.values(),
    pa.float32(),
    pa.float64(),
    pa.bool_(),
    pa.string(),
    pa.large_string(),
    pa.binary(),
    pa.large_binary(),
    pa.date32(),
    pa.timestamp("us"),
    pa.timestamp("us", tz="UTC"),
]
TYPES = [
    *SCALARS,
    *(pa.list_(kind) for kind in (pa.int32(), pa.int64(), pa.float64(), pa.string())),
    *(pa.struct([("a", kind), ("b", pa.string())]) for kind in (pa.int32(), pa.int64())),
    *(pa.map_(pa.string(), kind) for kind in (pa.float32(), pa.float64())),
    pa.list_(pa.struct([("a", pa.int16())])),
    pa.list_(pa.struct([("a", pa.int64())])),
    pa.decimal128(10, 2),
    pa.null(),
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
SCALAR_VALUES: dict[str, st.SearchStrategy[object]] = {
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "string": TEXT,
    "large_string": TEXT,
    "binary": st.binary(max_size=5),
    "large_binary": st.binary(max_size=5),
    "date32[day]": st.dates(),
    "timestamp[us]": st.sampled_from([YEAR_1, YEAR_9999]) | st.datetimes(),
    "timestamp[us, tz=UTC]": (st.sampled_from([YEAR_1, YEAR_9999]) | st.datetimes()).map(
        lambda instant: instant.replace(tzinfo=dt.UTC)
    ),
    "decimal128(10, 2)": st.decimals(-(10**7), 10**7, places=2),
}
ALLOWED = [(have, want) for have in TYPES for want in TYPES if find_cast(have, want)]


def values_of(kind: pa.DataType) -> st.SearchStrategy[object]:
    """Values of an Arrow type, null among them."""
    if pa.types.is_null(kind):
        return st.none()
    return st.none() | _present(kind)


def _present(kind: pa.DataType) -> st.SearchStrategy[object]:
    if pa.types.is_list(kind):
        return st.lists(values_of(kind.value_type), max_size=3)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: values_of(field.type) for field in kind})
    if pa.types.is_map(kind):
        items = st.dictionaries(st.text(max_size=3), values_of(kind.item_type), max_size=3)
        return items.map(lambda items: list(items.items()))
    if pa.types.is_integer(kind):
        bound = 2 ** (kind.bit_width - 1)
        edges = [n for n in (ODD_LONG, 2**53 + 1, 2**53, -(2**53) - 1) if -bound <= n < bound]
        return st.sampled_from([-bound, bound - 1, *edges]) | st.integers(-bound, bound - 1)
    return SCALAR_VALUES[str(kind)]


def plain(value: object) -> object:
    """A value as it compares across the types that a cast may join."""
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, dt.date):
        return dt.datetime(value.year, value.month, value.day)
    return value


@settings(deadline=None)  # The first example loads PyArrow's kernels.
@given(data=st.data())
def test_an_allowed_cast_keeps_every_value(data: st.DataObject) -> None:
    have, want = data.draw(st.sampled_from(ALLOWED))
    values = data.draw(st.lists(values_of(have), max_size=5))
    cast = find_cast(have, want)
    assert cast is not None
    converted, unfit = cast_column(pa.array(values, have), want, cast)
    assert converted.type == want
    masked = [False] * len(values) if unfit is None else unfit.to_pylist()
    assert cast is Cast.CHECKED or not any(masked)
    for value, after, is_unfit in zip(values, converted.to_pylist(), masked, strict=True):
        assert after is None if is_unfit else plain(after) == plain(value)


def test_a_long_beside_null_stays_what_it_is() -> None:
    converted, unfit = cast_column(pa.array([ODD_LONG, None], pa.int64()), pa.int64(), Cast.EXACT)
    assert converted.to_pylist() == [ODD_LONG, None]
    assert unfit is None


@pytest.mark.parametrize("value", [2**53, -(2**53), 0])
def test_a_long_within_the_exact_range_becomes_a_double(value: int) -> None:
    converted, unfit = cast_column(pa.array([value]), pa.float64(), Cast.CHECKED)
    assert converted.to_pylist() == [float(value)]
    assert unfit is None


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, ODD_LONG, -(2**63)])
def test_a_long_beyond_the_exact_range_is_unfit_and_its_neighbours_are_kept(value: int) -> None:
    converted, unfit = cast_column(pa.array([1, value, None]), pa.float64(), Cast.CHECKED)
    assert converted.to_pylist() == [1.0, None, None]
    assert unfit is not None
    assert unfit.to_pylist() == [False, True, False]


def test_a_dictionary_of_longs_is_checked_like_longs() -> None:
    column = pa.array([1, 2**53 + 1, None]).dictionary_encode()
    assert find_cast(column.type, pa.float64()) is Cast.CHECKED
    converted, unfit = cast_column(column, pa.float64(), Cast.CHECKED)
    assert converted.to_pylist() == [1.0, None, None]
    assert unfit is not None
    assert unfit.to_pylist() == [False, True, False]


@pytest.mark.parametrize("value", [YEAR_1, YEAR_9999, None])
def test_a_timestamp_loses_its_zone_and_nothing_else(value: dt.datetime | None) -> None:
    have, want = pa.timestamp("us", tz="UTC"), pa.timestamp("us")
    assert find_cast(have, want) is Cast.EXACT
    zoned = None if value is None else value.replace(tzinfo=dt.UTC)
    assert cast_column(pa.array([zoned], have), want, Cast.EXACT)[0].to_pylist() == [value]


@pytest.mark.parametrize(
    ("have", "want"),
    [
        (pa.int64(), pa.int32()),
        (pa.int64(), pa.float32()),
        (pa.int32(), pa.float32()),
        (pa.float64(), pa.float32()),
        (pa.float64(), pa.int64()),
        (pa.decimal128(10, 2), pa.float64()),
        (pa.string(), pa.int64()),
        (pa.int64(), pa.string()),
        (pa.bool_(), pa.int32()),
        (pa.int32(), pa.bool_()),
        (pa.string(), pa.binary()),
        (pa.timestamp("us"), pa.date32()),
        (pa.timestamp("ns"), pa.timestamp("us")),
        (pa.uint64(), pa.int64()),
        (pa.list_(pa.int64()), pa.list_(pa.float64())),
        (pa.list_(pa.int64()), pa.int64()),
        (pa.struct([("a", pa.int32())]), pa.struct([("b", pa.int32())])),
        (pa.struct([("a", pa.int64())]), pa.struct([("a", pa.float64())])),
        (pa.map_(pa.string(), pa.int64()), pa.map_(pa.string(), pa.string())),
    ],
    ids=str,
)
def test_a_cast_that_could_change_a_value_is_refused(have: pa.DataType, want: pa.DataType) -> None:
    assert find_cast(have, want) is None


def test_a_part_of_a_struct_may_be_required_by_the_signature() -> None:
    have = pa.struct([("a", pa.int32())])
    want = pa.struct([pa.field("a", pa.int64(), nullable=False)])
    assert find_cast(have, want) is Cast.WIDENED
    column = pa.array([{"a": 1}, None], have)
    assert cast_column(column, want, Cast.WIDENED)[0].to_pylist() == [{"a": 1}, None]


@pytest.mark.parametrize("kind", [*SCALARS, pa.list_(pa.int64())], ids=str)
def test_integers_and_booleans_alone_have_no_missing_value(kind: pa.DataType) -> None:
    assert can_hold_missing(kind) == (kind not in (*INTEGERS.values(), pa.bool_()))
