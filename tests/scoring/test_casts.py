from __future__ import annotations

import datetime as dt
import pickle
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkscore.scoring.casts import Cast, can_hold_missing, cast_column, find_cast

ODD_LONG = 9223372036854775707
YEAR_1 = dt.datetime(1, 1, 1, 0, 0, 0, 1)
YEAR_9999 = dt.datetime(9999, 12, 31, 23, 59, 59, 999999)

INTEGERS = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
UNSIGNED = (pa.uint8(), pa.uint64())
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
    *UNSIGNED,
    pa.decimal128(10, 2),
    pa.decimal128(38, 0),
    pa.decimal128(30, 18),
    *(pa.list_(pa.field("item", kind, nullable=False), 2) for kind in (pa.int32(), pa.float64())),
    pa.timestamp("ms"),
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
    "timestamp[ms]": st.datetimes().map(lambda instant: instant.replace(microsecond=5000)),
    "decimal128(10, 2)": st.decimals(-(10**7), 10**7, places=2),
    "decimal128(38, 0)": st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal)
    | st.integers(-(2**63) - 2, 2**63 + 1).map(Decimal),
    "decimal128(30, 18)": st.integers(-(10**30) + 1, 10**30 - 1).map(
        lambda digits: Decimal(f"{digits}e-18")
    ),
}
ALLOWED = [(have, want) for have in TYPES for want in TYPES[:-1] if find_cast(have, want)]


def values_of(kind: pa.DataType) -> st.SearchStrategy[object]:
    """Values of an Arrow type, null among them."""
    if pa.types.is_null(kind):
        return st.none()
    return st.none() | _present(kind)


def _present(kind: pa.DataType) -> st.SearchStrategy[object]:
    if pa.types.is_list(kind):
        return st.lists(values_of(kind.value_type), max_size=3)
    if pa.types.is_fixed_size_list(kind):
        items = (
            values_of(kind.value_type) if kind.value_field.nullable else _present(kind.value_type)
        )
        return st.lists(items, min_size=kind.list_size, max_size=kind.list_size)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: values_of(field.type) for field in kind})
    if pa.types.is_map(kind):
        items = st.dictionaries(st.text(max_size=3), values_of(kind.item_type), max_size=3)
        return items.map(lambda items: list(items.items()))
    if pa.types.is_integer(kind):
        lowest = 0 if kind in UNSIGNED else -(2 ** (kind.bit_width - 1))
        highest = lowest + 2**kind.bit_width - 1
        edges = [n for n in (ODD_LONG, 2**53 + 1, 2**53, -(2**53) - 1) if lowest <= n <= highest]
        return st.sampled_from([lowest, highest, *edges]) | st.integers(lowest, highest)
    return SCALAR_VALUES[str(kind)]


def plain(value: object) -> object:
    """A value as it compares across the types that a cast may join."""
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, dt.date):
        return dt.datetime(value.year, value.month, value.day)
    return value


def is_same(after: object, before: object) -> bool:
    """Whether a value is the one that it was made of: of a decimal, the double nearest to it."""
    if isinstance(before, Decimal) and isinstance(after, float):
        return after == float(before)
    return plain(after) == plain(before)


@settings(deadline=None)  # The first example loads PyArrow's kernels.
@given(data=st.data())
def test_an_allowed_cast_keeps_every_value(data: st.DataObject) -> None:
    have, want = data.draw(st.sampled_from(ALLOWED))
    values = data.draw(st.lists(values_of(have), max_size=5))
    cast = find_cast(have, want)
    assert cast is not None
    converted, unfit = cast_column(pa.array(values, have), want)
    assert converted.type == want
    masked = [False] * len(values) if unfit is None else unfit.to_pylist()
    assert cast is Cast.CHECKED or not any(masked)
    for value, after, is_unfit in zip(values, converted.to_pylist(), masked, strict=True):
        assert after is None if is_unfit else is_same(after, value)


def test_a_long_beside_null_stays_what_it_is() -> None:
    converted, unfit = cast_column(pa.array([ODD_LONG, None], pa.int64()), pa.int64())
    assert converted.to_pylist() == [ODD_LONG, None]
    assert unfit is None


@pytest.mark.parametrize("value", [2**53, -(2**53), 0])
def test_a_long_within_the_exact_range_becomes_a_double(value: int) -> None:
    converted, unfit = cast_column(pa.array([value]), pa.float64())
    assert converted.to_pylist() == [float(value)]
    assert unfit is None


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, ODD_LONG, -(2**63)])
def test_a_long_beyond_the_exact_range_is_unfit_and_its_neighbours_are_kept(value: int) -> None:
    converted, unfit = cast_column(pa.array([1, value, None]), pa.float64())
    assert converted.to_pylist() == [1.0, None, None]
    assert unfit is not None
    assert unfit.to_pylist() == [False, True, False]


def test_a_dictionary_of_longs_is_checked_like_longs() -> None:
    column = pa.array([1, 2**53 + 1, None]).dictionary_encode()
    assert find_cast(column.type, pa.float64()) is Cast.CHECKED
    converted, unfit = cast_column(column, pa.float64())
    assert converted.to_pylist() == [1.0, None, None]
    assert unfit is not None
    assert unfit.to_pylist() == [False, True, False]


@pytest.mark.parametrize("value", [YEAR_1, YEAR_9999, None])
def test_a_timestamp_loses_its_zone_and_nothing_else(value: dt.datetime | None) -> None:
    have, want = pa.timestamp("us", tz="UTC"), pa.timestamp("us")
    assert find_cast(have, want) is Cast.EXACT
    zoned = None if value is None else value.replace(tzinfo=dt.UTC)
    assert cast_column(pa.array([zoned], have), want)[0].to_pylist() == [value]


@pytest.mark.parametrize(
    ("have", "want"),
    [
        (pa.float64(), pa.float32()),
        (pa.decimal128(10, 2), pa.float32()),
        (pa.decimal128(10, 2), pa.int64()),
        (pa.string(), pa.int64()),
        (pa.int64(), pa.string()),
        (pa.bool_(), pa.int32()),
        (pa.int32(), pa.bool_()),
        (pa.string(), pa.binary()),
        (pa.timestamp("us"), pa.date32()),
        (pa.list_(pa.int64()), pa.int64()),
        (pa.struct([("a", pa.int32())]), pa.struct([("b", pa.int32())])),
        (
            pa.struct([("a", pa.int32())]),
            pa.struct([("a", pa.int32()), pa.field("b", pa.int32(), nullable=False)]),
        ),
        (pa.struct([("a", pa.int32()), ("a", pa.int32())]), pa.struct([("a", pa.int32())])),
        (pa.map_(pa.string(), pa.int64()), pa.map_(pa.string(), pa.string())),
        (pa.map_(pa.string(), pa.int64()), pa.map_(pa.string(), pa.float64())),
    ],
    ids=str,
)
def test_a_cast_that_could_change_a_value_is_refused(have: pa.DataType, want: pa.DataType) -> None:
    assert find_cast(have, want) is None


def checked(values: list[object], have: pa.DataType, want: pa.DataType) -> list[object]:
    """The values after a cast that checks each of them; "unfit" where one has no equal."""
    assert find_cast(have, want) is Cast.CHECKED
    # A slice, since a batch may be one of another's.
    column = pa.array([None, *values, None], have).slice(1, len(values))
    converted, unfit = cast_column(column, want)
    masked = [False] * len(values) if unfit is None else unfit.to_pylist()
    pairs = zip(converted.to_pylist(), masked, strict=True)
    return ["unfit" if is_unfit else value for value, is_unfit in pairs]


@pytest.mark.parametrize(
    ("have", "want", "fitting", "unfit"),
    [
        (pa.int64(), pa.int32(), [2**31 - 1, -(2**31)], [2**31, -(2**31) - 1]),
        (pa.int64(), pa.float32(), [2**24, -(2**24)], [2**24 + 1]),
        (pa.int16(), pa.uint8(), [0, 255], [-1, 256]),
        (pa.uint64(), pa.int64(), [2**63 - 1], [2**63]),
        (pa.float64(), pa.int64(), [0.0, -(2.0**63)], [0.5, 2.0**63, float("nan"), float("-inf")]),
        (pa.float32(), pa.int32(), [-(2.0**31), 3.0], [2.0**31, 1.5]),
    ],
    ids=str,
)
def test_a_number_becomes_one_of_another_type_that_equals_it_or_is_unfit(
    have: pa.DataType, want: pa.DataType, fitting: list[object], unfit: list[object]
) -> None:
    found = checked([*fitting, *unfit, None], have, want)
    assert found == [*fitting, *("unfit" for _ in unfit), None]


def test_a_decimal_becomes_the_double_nearest_to_it_while_no_digit_is_lost() -> None:
    assert find_cast(pa.decimal128(15, 3), pa.float64()) is Cast.WIDENED
    # The product of 3 and 0.1 is another double than 0.3.
    tenths = pa.array([Decimal("0.3"), Decimal("0.7"), None], pa.decimal128(15, 1))
    assert cast_column(tenths, pa.float64())[0].to_pylist() == [0.3, 0.7, None]
    kept = [Decimal("0.300000000000000000"), Decimal("2251799813685248.5")]
    lost = [Decimal("2251799813685248.123456789"), Decimal("0.123456789012345678")]
    found = checked([*kept, *lost, None], pa.decimal128(38, 18), pa.float64())
    assert found == [0.3, 2251799813685248.5, "unfit", "unfit", None]
    large = [Decimal(2**60), Decimal(10**17 + 10), Decimal(2**53 + 1), Decimal(2**53 + 2)]
    found = checked(list(large), pa.decimal128(38, 0), pa.float64())
    assert found == [2.0**60, "unfit", "unfit", 2.0**53 + 2]


def test_a_decimal_without_fraction_becomes_an_integer_in_its_range() -> None:
    assert find_cast(pa.decimal128(18, 0), pa.int64()) is Cast.WIDENED
    values = [Decimal(2**63 - 1), Decimal(2**63), Decimal(-(10**37)), None]
    assert checked(list(values), pa.decimal128(38, 0), pa.int64()) == [
        2**63 - 1,
        "unfit",
        "unfit",
        None,
    ]


def test_nanoseconds_become_microseconds_only_where_none_is_left_over() -> None:
    column = pa.array([-1_000, -1_001, None, 5_000], pa.timestamp("ns"))
    converted, unfit = cast_column(column, pa.timestamp("us"))
    assert converted.cast(pa.int64()).to_pylist() == [-1, None, None, 5]
    assert unfit is not None
    assert unfit.to_pylist() == [False, True, False, False]


ROW = pa.list_(pa.field("item", pa.float64(), nullable=False), 2)


def test_lists_of_any_length_become_rows_of_one_length_without_null() -> None:
    values = [[1.0, 2.0], [3.0], None, [4.0, None], [5.0, 6.0, 7.0], [], [8.0, 9.0]]
    found = checked(list(values), pa.list_(pa.float64()), ROW)
    assert found == [[1.0, 2.0], "unfit", None, "unfit", "unfit", "unfit", [8.0, 9.0]]


def test_lists_of_lists_are_checked_at_each_depth() -> None:
    image = pa.list_(pa.field("item", ROW, nullable=False), 2)
    good = [[1.0, 2.0], [3.0, 4.0]]
    values = [
        good,
        [[1.0, 2.0]],
        [[1.0], [2.0, 3.0]],
        [None, [1.0, 2.0]],
        [[1.0, None], [1.0, 2.0]],
    ]
    found = checked(list(values), pa.list_(pa.list_(pa.float64())), image)
    assert found == [good, "unfit", "unfit", "unfit", "unfit"]
    longs = checked([[[2**53, 1], [2, 3]], [[2**53 + 1, 1], [2, 3]]], list_of(pa.int64(), 2), image)
    assert longs == [[[2.0**53, 1.0], [2.0, 3.0]], "unfit"]


def list_of(kind: pa.DataType, depth: int) -> pa.DataType:
    return kind if depth == 0 else pa.list_(list_of(kind, depth - 1))


def test_parts_of_a_struct_are_found_by_name_and_further_ones_left_out() -> None:
    have = pa.struct([("c", pa.string()), ("b", pa.int16()), ("a", pa.int32())])
    want = pa.struct([("a", pa.int64()), ("b", pa.int32()), ("d", pa.string())])
    assert find_cast(have, want) is Cast.WIDENED
    column = pa.array([{"c": "x", "b": 2, "a": 1}, None], have)
    found = cast_column(column, want)[0].to_pylist()
    assert found == [{"a": 1, "b": 2, "d": None}, None]


def test_any_takes_a_column_of_its_own_type_at_each_depth() -> None:
    nothing = pa.null()
    have = pa.struct([("a", pa.list_(pa.map_(pa.string(), pa.date32()))), ("b", pa.int32())])
    want = pa.struct(
        [("b", pa.int64()), ("a", pa.list_(pa.map_(pa.string(), nothing))), ("c", nothing)]
    )
    assert find_cast(have, want) is Cast.WIDENED
    day = dt.date(2020, 1, 2)
    converted, _ = cast_column(pa.array([{"a": [[("k", day)]], "b": 1}], have), want)
    assert converted.to_pylist() == [{"b": 1, "a": [[("k", day)]], "c": None}]
    for kind in (pa.decimal128(10, 2), have, pa.list_(pa.int8())):
        assert find_cast(kind, nothing) is Cast.EXACT
        assert cast_column(pa.array([None], kind), nothing)[0].type == kind


def test_null_in_a_required_part_of_a_struct_is_unfit_where_the_struct_is_not_null() -> None:
    have = pa.struct([("a", pa.int32())])
    want = pa.struct([pa.field("a", pa.int64(), nullable=False)])
    found = checked([{"a": 1}, None, {"a": None}], have, want)
    assert found == [{"a": 1}, None, "unfit"]
    text = pa.struct([pa.field("a", pa.string(), nullable=False)])
    loose = pa.array([{"a": None}, None], pa.struct([("a", pa.string())]))
    assert find_cast(loose.type, text) is Cast.EXACT
    assert cast_column(loose, text)[0].to_pylist() == [{"a": None}, None]


@pytest.mark.parametrize("kind", [*SCALARS, pa.list_(pa.int64())], ids=str)
def test_integers_and_booleans_alone_have_no_missing_value(kind: pa.DataType) -> None:
    assert can_hold_missing(kind) == (kind not in (*INTEGERS.values(), pa.bool_()))


@pytest.mark.parametrize("kind", [ROW, pa.list_(pa.field("item", ROW, nullable=False))], ids=str)
def test_row_of_a_tensor_has_no_missing_value_on_any_machine(kind: pa.DataType) -> None:
    assert not can_hold_missing(kind)
    sent = pickle.loads(pickle.dumps(kind))
    assert not can_hold_missing(sent)
    nothing = pa.array([[[None, 1.0]]] if pa.types.is_list(kind) else [[None, 1.0]])
    assert checked(nothing.to_pylist(), nothing.type, sent) == ["unfit"]
