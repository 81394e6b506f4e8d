from __future__ import annotations

import datetime as dt

import pytest

from sparkscore.errors import ConfigError, PackageFormatError
from sparkscore.package.params import (
    ParamText,
    given_params,
    plain_params,
    resolved_params,
)
from sparkscore.package.schema import ParamSpec
from sparkscore.package.signature import ObjectType, Property, ScalarType

SPECS = (
    ParamSpec("flag", ScalarType.BOOLEAN, False),
    ParamSpec("n", ScalarType.LONG, 3),
    ParamSpec("small", ScalarType.INTEGER, 1),
    ParamSpec("share", ScalarType.DOUBLE, 0.5),
    ParamSpec("word", ScalarType.STRING, "a"),
    ParamSpec("at", ScalarType.DATETIME, "2026-01-02T03:04:05"),
    ParamSpec("raw", ScalarType.BINARY, None),
    ParamSpec("cuts", ScalarType.DOUBLE, [1.0], (-1,)),
    ParamSpec("rule", ObjectType((Property("top", ScalarType.LONG),)), {"top": 1}),
)


def test_defaults_are_given_as_their_types() -> None:
    assert resolved_params(SPECS, {}) == {
        "flag": False,
        "n": 3,
        "small": 1,
        "share": 0.5,
        "word": "a",
        "at": dt.datetime(2026, 1, 2, 3, 4, 5),
        "raw": None,
        "cuts": [1.0],
        "rule": {"top": 1},
    }


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("flag", True, True),
        ("n", 2**63 - 1, 2**63 - 1),
        ("small", -(2**31), -(2**31)),
        ("share", 2, 2.0),
        ("word", "b", "b"),
        ("cuts", (1, 2.5), [1.0, 2.5]),
        ("raw", "AAE=", b"\0\1"),
        ("rule", {"top": 2}, {"top": 2}),
        ("flag", ParamText("true"), True),
        ("n", ParamText("-7"), -7),
        ("share", ParamText("1e-3"), 0.001),
        ("word", ParamText("007"), "007"),
        ("word", ParamText("true"), "true"),
        ("cuts", ParamText("[1, 2]"), [1.0, 2.0]),
        ("rule", ParamText('{"top": 2}'), {"top": 2}),
    ],
)
def test_value_of_the_declared_type_is_taken(name: str, value: object, expected: object) -> None:
    given = given_params(SPECS, {name: value})
    assert given == {name: expected}
    assert type(given[name]) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("flag", 1, "param 'flag' is 1, but the model's signature declares boolean"),
        ("flag", ParamText("yes"), "'flag' is 'yes', .* boolean"),
        ("n", True, "'n' is True, .* long"),
        ("n", 1.0, r"'n' is 1\.0, .* long"),
        ("n", 2**63, "'n' is 9223372036854775808, .* long"),
        ("n", "5", "'n' is '5', .* long"),
        ("n", ParamText("1.5"), r"'n' is '1\.5', .* long"),
        ("n", [1], r"'n' is \[1\], .* long"),
        ("n", None, "'n' is None, .* long"),
        ("small", 2**31, "'small' is 2147483648, .* integer"),
        ("share", 2**53 + 1, "'share' is 9007199254740993, .* double"),
        ("share", 10**400, "'share' is 1000.*, .* double"),
        ("share", "0.5", r"'share' is '0\.5', .* double"),
        ("word", 5, "'word' is 5, .* string"),
        ("at", "soon", "'at' is 'soon', .* datetime"),
        ("raw", "?", r"'raw' is '\?', .* binary"),
        ("cuts", 1.0, r"'cuts' is 1\.0, .* a list of double"),
        ("cuts", [1.0, "2"], r"'cuts'\[1\] is '2', .* double"),
        ("cuts", ParamText("1,2"), "'cuts' is '1,2', .* a list of double"),
        ("rule", {"top": 1, "low": 2}, "'rule' has the unknown 'low'; .* 'top'"),
        ("rule", {}, "'rule' lacks 'top'"),
        ("rule", {"top": "1"}, r"'rule'\.top is '1', .* long"),
        ("rule", 7, "'rule' is 7, .*object"),
        ("wrod", "b", r"'wrod' is unknown to the model \(did you mean 'word'\?\); it has 'flag'"),
    ],
)
def test_unknown_name_or_another_type_is_one_error(name: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        given_params(SPECS, {name: value})


def test_model_without_params_says_so() -> None:
    with pytest.raises(ConfigError, match="'k' is unknown to the model; its signature declares"):
        given_params((), {"k": 1})


def test_default_of_another_type_is_the_packages_fault() -> None:
    with pytest.raises(PackageFormatError, match="default of param 'n' is 'x'"):
        resolved_params((ParamSpec("n", ScalarType.LONG, "x"),), {})


def test_plain_values_are_json() -> None:
    at = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    values = {"at": at, "raw": b"\0\1", "rule": {"at": [at]}, "n": 1}
    assert plain_params(values) == {
        "at": "2026-01-02T00:00:00+00:00",
        "raw": "AAE=",
        "rule": {"at": ["2026-01-02T00:00:00+00:00"]},
        "n": 1,
    }
