from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkscore.errors import UsageError
from sparkscore.wire.reading import read_body, read_fields, read_query
from sparkscore.wire.routes import Route, all_routes
from sparkscore.wire.shapes import Shape, each, enum, flag, int64, real, text, texts

POINT = Shape("Point", (text("key", required=True), real("value", required=True), int64("step")))
ASKED = Shape(
    "Asked",
    (
        text("run_id"),
        int64("max_results", low=1, high=100),
        flag("all_of_them"),
        enum("view_type", {"ACTIVE_ONLY": 1, "ALL": 3}),
        texts("order_by", at_most=3),
        each("metrics", POINT),
    ),
)


@pytest.mark.parametrize("name", ["max_results", "maxResults"])
@pytest.mark.parametrize("value", [7, "7", 7.0, "+7"])
def test_whole_numbers_are_read_from_text_and_under_both_names(name: str, value: object) -> None:
    assert read_fields({name: value}, ASKED).whole("max_results") == 7


@pytest.mark.parametrize("value", ["ALL", 3, "3"])
def test_enums_are_read_by_name_and_by_number(value: object) -> None:
    assert read_fields({"view_type": value}, ASKED).text("view_type") == "ALL"


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({"run_id": 31}, "Invalid value 31 for parameter 'run_id' supplied"),
        ({"run_id": "a\0b"}, "Invalid value \"a\\u0000b\" for parameter 'run_id' supplied"),
        ({"run_id": "\ud800"}, "for parameter 'run_id' supplied"),
        ({"max_results": 1.5}, "Invalid value 1.5 for parameter 'max_results' supplied"),
        ({"max_results": True}, "Invalid value true for parameter 'max_results' supplied"),
        ({"max_results": 2**64}, "for parameter 'max_results' supplied"),
        ({"max_results": 101}, "expected 1 to 100"),
        ({"view_type": "all"}, "Invalid value \"all\" for parameter 'view_type' supplied"),
        ({"all_of_them": "yes"}, "Invalid value \"yes\" for parameter 'all_of_them' supplied"),
        ({"order_by": "a"}, "Invalid value \"a\" for parameter 'order_by' supplied"),
        ({"order_by": ["a"] * 4}, "at most 3 order_by"),
        ({"order_by": ["a", None]}, "Invalid value null for parameter 'order_by[1]' supplied"),
        (
            {"metrics": [{"key": "a", "value": 1}, {"key": "a"}]},
            "Missing value for required parameter 'metrics[1].value'",
        ),
        (
            {"metrics": [{"key": "a", "value": "x"}]},
            "Invalid value \"x\" for parameter 'metrics[0].value' supplied",
        ),
        ({"max_results": 1, "maxResults": 1}, "parameter 'max_results' is given twice"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_found(raw: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=r".") as caught:
        read_fields(raw, ASKED)
    assert told in str(caught.value)


def test_fields_that_are_not_known_and_nulls_are_ignored() -> None:
    given = read_fields({"colour": "red", "run_id": None}, ASKED)
    assert "run_id" not in given
    assert "colour" not in given


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"NaN"', "nan"),
        ("NaN", "nan"),
        ('"Infinity"', "inf"),
        ('"-Infinity"', "-inf"),
        ("-0.0", "-0.0"),
        ("0.1", "0.1"),
        ('"0.25"', "0.25"),
        ("5e-324", "5e-324"),
        ("9007199254740994", "9007199254740994.0"),
        ('"-7"', "-7.0"),
    ],
)
def test_doubles_are_read_as_they_were_written(written: str, value: str) -> None:
    body = f'{{"metrics": [{{"key": "k", "value": {written}}}]}}'.encode()
    (point,) = read_fields(read_body(body), ASKED).each("metrics")
    assert str(point.real("value")) == value


@pytest.mark.parametrize("written", ["1e999", "9007199254740993", '"9007199254740993"', "true"])
def test_a_number_that_no_double_holds_is_refused(written: str) -> None:
    body = f'{{"metrics": [{{"key": "k", "value": {written}}}]}}'.encode()
    with pytest.raises(UsageError, match=r"metrics\[0\]\.value"):
        read_fields(read_body(body), ASKED)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"[" * 100_000, "nested too deep|no JSON"),
        (b'{"a": 1, "a": 2}', "the field 'a' twice"),
        (b"[1]", "a JSON object is needed"),
        (b"\xff\xfe", "no JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "no JSON"),
    ],
)
def test_a_body_that_is_no_object_is_refused(body: bytes, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read_body(body)


def test_an_object_that_was_written_as_json_twice_is_read_twice() -> None:
    assert read_body(json.dumps(json.dumps({"run_id": "a"})).encode()) == {"run_id": "a"}


def test_a_query_is_read_with_lists_flags_and_numbers() -> None:
    raw = read_query("order_by=a&order_by=b%20c&max_results=5&all_of_them=true&x=1", ASKED)
    given = read_fields(raw, ASKED)
    assert given.texts("order_by") == ("a", "b c")
    assert given.whole("max_results") == 5
    assert given.flag("all_of_them") is True


def test_a_query_with_one_field_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        read_query("run_id=a&run_id=b", ASKED)


LEAVES = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        2**31,
        2**63,
        2**64,
        1.5,
        float("inf"),
        "",
        "1",
        "a\0",
        "\ud800",
        "NaN",
        "é",
    ]
)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["key", "value", "dataset"]), inner, max_size=3)
    ),
    max_leaves=8,
)
ROUTES = list(all_routes().values())
NAMES = sorted({key for route in ROUTES for key in route.request.by_key})


@given(route=st.sampled_from(ROUTES), raw=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5))
def test_whatever_is_sent_is_read_or_refused_in_a_few_words(
    route: Route, raw: dict[str, object]
) -> None:
    told = ""
    try:
        read_fields(raw, route.request)
    except UsageError as exc:
        told = str(exc)
    assert len(told) < 1000
