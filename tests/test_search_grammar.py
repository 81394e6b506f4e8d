from __future__ import annotations

import math
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkscore.errors import UsageError
from sparkscore.search import (
    EXPERIMENTS,
    LOGGED_MODELS,
    MODEL_VERSIONS,
    REGISTERED_MODELS,
    RUNS,
    All,
    Any,
    Comparison,
    Condition,
    Field,
    FieldKind,
    Not,
    Operand,
    Operator,
    Order,
    Searchable,
)
from sparkscore.search_grammar import parse_filter, parse_order_by


def compared(kind: FieldKind, key: str, operator: Operator, value: Operand) -> Comparison:
    return Comparison(Field(kind, key), operator, value)


def metric(key: str, operator: Operator = Operator.GREATER, value: Operand = 1.0) -> Comparison:
    return compared(FieldKind.METRIC, key, operator, value)


def field_of(text: str, searchable: Searchable = RUNS) -> Field:
    """The field that an order names."""
    (order,) = parse_order_by([text], searchable)
    return order.field


def pointed_at(error: UsageError) -> tuple[str, int]:
    """The reason, and the index of the character in the shown text that the caret is below."""
    reason, _, caret = str(error).rsplit("\n", 2)
    return reason, caret.index("^") - len("  ")


A, B, C = metric("a"), metric("b"), metric("c")


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("", None),
        (" \n\t", None),
        ("metrics.a > 1", A),
        ("metrics.a>1", A),
        ("metrics.a\n >\t1 ", A),
        ("(metrics.a > 1)", A),
        ("((metrics.a > 1))", A),
        ("metrics.a > 1 AND metrics.b > 1 and metrics.c > 1", All((A, B, C))),
        ("metrics.a > 1 OR metrics.b > 1 Or metrics.c > 1", Any((A, B, C))),
        ("metrics.a > 1 OR metrics.b > 1 AND metrics.c > 1", Any((A, All((B, C))))),
        ("(metrics.a > 1 OR metrics.b > 1) AND metrics.c > 1", All((Any((A, B)), C))),
        ("NOT metrics.a > 1 AND metrics.b > 1", All((Not(A), B))),
        ("not (metrics.a > 1 AND metrics.b > 1)", Not(All((A, B)))),
        ("NOT NOT metrics.a > 1", Not(Not(A))),
    ],
)
def test_conditions_nest_by_the_usual_precedence(text: str, condition: Condition | None) -> None:
    assert parse_filter(text, RUNS) == condition


@pytest.mark.parametrize("operator", ["=", "!=", "<", "<=", ">", ">="])
@pytest.mark.parametrize("key", ["metrics.a", "start_time", "end_time"])
def test_numbers_are_compared_by_every_sign(key: str, operator: str) -> None:
    found = parse_filter(f"{key}{operator}2", RUNS)
    assert found == Comparison(field_of(key), Operator(operator), 2)


TEXT_KEYS = ["params.a", "tags.a", "run_name", "status", "user_id", "artifact_uri", "dataset.name"]


@pytest.mark.parametrize("operator", ["=", "!=", "LIKE", "ILIKE", "like", "iLike"])
@pytest.mark.parametrize("key", TEXT_KEYS)
def test_texts_are_compared_by_equality_and_by_patterns(key: str, operator: str) -> None:
    found = parse_filter(f"{key} {operator} 'a%'", RUNS)
    field = Field(FieldKind.DATASET, "name") if key == "dataset.name" else field_of(key)
    assert found == Comparison(field, Operator(operator.upper()), "a%")


@pytest.mark.parametrize("key", ["run_id", "params.a", "tags.a", "datasets.digest"])
@pytest.mark.parametrize("operator", ["IN", "NOT IN"])
def test_texts_are_looked_for_in_a_list(key: str, operator: str) -> None:
    found = parse_filter(f"""{key} {operator.lower()} ('x',"y, z")""", RUNS)
    assert isinstance(found, Comparison)
    assert (found.operator, found.value) == (Operator(operator), ("x", "y, z"))


def test_numbers_are_looked_for_in_a_list_and_between_two() -> None:
    assert parse_filter("metrics.a IN (1, 2.5)", RUNS) == metric("a", Operator.IN, (1.0, 2.5))
    low, high = Operator.GREATER_EQUAL, Operator.LESS_EQUAL
    between = All((metric("a", low, 1.0), metric("a", high, 2.0)))
    assert parse_filter("metrics.a BETWEEN 1 AND 2", RUNS) == between
    assert parse_filter("metrics.a between 1 AND 2 AND metrics.b > 1", RUNS) == All((between, B))


@pytest.mark.parametrize("key", ["params.a", "tags.a", "metrics.a", "end_time"])
def test_fields_may_be_there_or_not(key: str) -> None:
    for words, operator in (("IS NULL", Operator.IS_NULL), ("is not null", Operator.IS_NOT_NULL)):
        assert parse_filter(f"{key} {words}", RUNS) == Comparison(field_of(key), operator, None)


@pytest.mark.parametrize(
    ("text", "kind", "key"),
    [
        ("metric.a", FieldKind.METRIC, "a"),
        ("metrics.a", FieldKind.METRIC, "a"),
        ("param.a", FieldKind.PARAM, "a"),
        ("params.a", FieldKind.PARAM, "a"),
        ("parameter.a", FieldKind.PARAM, "a"),
        ("parameters.a", FieldKind.PARAM, "a"),
        ("tag.a", FieldKind.TAG, "a"),
        ("tags.a", FieldKind.TAG, "a"),
        ("Tags.a", FieldKind.TAG, "a"),
        ("run_id", FieldKind.ATTRIBUTE, "run_id"),
        ("attribute.run_id", FieldKind.ATTRIBUTE, "run_id"),
        ("attributes.run_id", FieldKind.ATTRIBUTE, "run_id"),
        ("attr.run_id", FieldKind.ATTRIBUTE, "run_id"),
        ("run.run_id", FieldKind.ATTRIBUTE, "run_id"),
        ("`run name`", FieldKind.ATTRIBUTE, "run_name"),
        ('"Run Name"', FieldKind.ATTRIBUTE, "run_name"),
        ("attributes.`Run name`", FieldKind.ATTRIBUTE, "run_name"),
        ("created", FieldKind.ATTRIBUTE, "start_time"),
        ("attributes.Created", FieldKind.ATTRIBUTE, "start_time"),
        ("tags.mlflow.source.name", FieldKind.TAG, "mlflow.source.name"),
        ("metrics.a/b-c:d_1", FieldKind.METRIC, "a/b-c:d_1"),
        ("metrics.1", FieldKind.METRIC, "1"),
        ("metrics.größe", FieldKind.METRIC, "größe"),
        ("metrics.`a b (c) = 'd'`", FieldKind.METRIC, "a b (c) = 'd'"),
        ('metrics."a b"', FieldKind.METRIC, "a b"),
        ('metrics."a`b"', FieldKind.METRIC, "a`b"),
        ("metrics.and", FieldKind.METRIC, "and"),
        ("metrics.`in`", FieldKind.METRIC, "in"),
    ],
)
def test_keys_have_prefixes_other_names_and_quotes(text: str, kind: FieldKind, key: str) -> None:
    assert field_of(text) == Field(kind, key)
    assert parse_filter(f"{text} IS NULL", RUNS) == compared(kind, key, Operator.IS_NULL, None)


@pytest.mark.parametrize("searchable", [EXPERIMENTS, REGISTERED_MODELS, MODEL_VERSIONS])
def test_records_without_a_kind_of_field_say_so(searchable: Searchable) -> None:
    with pytest.raises(UsageError, match=f"{searchable.noun} have no params") as caught:
        parse_filter("name = 'a' AND params.a = 'x'", searchable)
    assert pointed_at(caught.value)[1] == len("name = 'a' AND ")
    assert parse_filter("tags.a = 'x'", searchable) is not None


@pytest.mark.parametrize(
    "searchable", [EXPERIMENTS, RUNS, REGISTERED_MODELS, MODEL_VERSIONS, LOGGED_MODELS]
)
def test_every_attribute_and_its_other_names_are_keys(searchable: Searchable) -> None:
    for name in searchable.attributes:
        assert field_of(name, searchable) == Field(FieldKind.ATTRIBUTE, name)
    for other, name in searchable.aliases.items():
        assert field_of(f"`{other}`", searchable) == Field(FieldKind.ATTRIBUTE, name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("-1", -1.0),
        ("+1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("1.5E-3", 0.0015),
        ("inf", math.inf),
        ("-Infinity", -math.inf),
        ("1e999", math.inf),
        ("9" * 5000, math.inf),
    ],
)
def test_numbers_are_written_as_in_python(text: str, value: float) -> None:
    assert parse_filter(f"metrics.a = {text}", RUNS) == metric("a", Operator.EQUAL, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        (str(2**63), float(2**63)),
        ("1700000000001", 1700000000001),
        ("1.5", 1.5),
        ("9" * 350, math.inf),
        ("-" + "9" * 99_000, -math.inf),
    ],
)
def test_times_are_whole_numbers_as_far_as_these_go(text: str, value: float) -> None:
    found = parse_filter(f"start_time < {text}", RUNS)
    assert isinstance(found, Comparison)
    assert (found.value, type(found.value)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("''", ""),
        ("'it is \"so\"'", 'it is "so"'),
        ('"it\'s"', "it's"),
        (r"'a\'", "a\\"),
        ("'a\nb'", "a\nb"),
        ("' AND metrics.a > 1 -- '", " AND metrics.a > 1 -- "),
    ],
)
def test_texts_are_what_stands_between_their_quotes(text: str, value: str) -> None:
    found = parse_filter(f"tags.a = {text}", RUNS)
    assert found == compared(FieldKind.TAG, "a", Operator.EQUAL, value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        # The caret belongs below the ^, which is not part of the filter.
        ("^start_tme > 1", "'start_tme' (did you mean 'start_time'?)"),
        ("metrics.a > 1 AND ^nme = 'x'", "Invalid attribute key 'nme'"),
        ("^metrik.a > 1", "Invalid entity type 'metrik' (did you mean 'metric'?)"),
        ("^datasets.nam = 'x'", "'nam' (did you mean 'name'?)"),
        ("^metrics.`` > 1", "the key of a metric is empty"),
        ("^metrics. > 1", "the key of a metric is empty"),
        ("^`metrics.a` > 1", "Invalid attribute key 'metrics.a'"),
        ("metrics.a > ^'1'", "Expected numeric value type for metric 'a'"),
        ("metrics.a IN (1, ^'2')", "Expected numeric value type for metric 'a'"),
        ("start_time > ^'1'", "Expected numeric value type for attribute 'start_time'"),
        ("params.a = ^1", "Expected a quoted string value for param 'a'"),
        ("params.a IN ('1', ^2)", "Expected a quoted string value for param 'a'"),
        ("params.a ^> '1'", "param 'a' is compared by >, but texts are compared by"),
        ("metrics.a ^LIKE '1'", "metric 'a' is compared by LIKE, but numbers are compared by"),
        ("params.a BETWEEN ^'1' AND '2'", "param 'a' is compared by >="),
        ("metrics.a^ ", "expected BETWEEN or"),
        ("metrics.a >^ ", "expected a number or a text in quotes"),
        ("metrics.a > ^b", "expected a number or a text in quotes"),
        ("metrics.a > ^1.2.3", "expected a number or a text in quotes"),
        ("metrics.a > ^--1", "expected a number or a text in quotes"),
        ("metrics.a = ^nan", "expected a number or a text in quotes"),
        ("params.a = ^'it", "expected a number or a text in quotes"),
        ("metrics.a ^== 1", None),
        ("metrics.a > 1 ^metrics.b > 1", "expected AND or OR or the end"),
        ("metrics.a > 1^; DROP TABLE runs", "expected AND or OR or the end"),
        ("metrics.a > 1^)", "expected the end"),
        ("(metrics.a > 1^", "expected )"),
        ("metrics.a > 1 AND^  ", "expected ( or NOT or a key such as metrics.rmse"),
        ("^AND metrics.a > 1", None),
        ("metrics.a IN (^)", "expected a number or a text in quotes"),
        ("metrics.a IN (1^", "expected ) or ,"),
        ("metrics.a IN ^1", "expected ("),
        ("metrics.a BETWEEN 1^", "expected AND"),
        ("metrics.a IS ^1", "expected NOT or NULL"),
        ("metrics.a NOT ^LIKE 'a'", "expected IN"),
        ("^#", "expected ( or NOT or a key such as metrics.rmse"),
        ("metrics.a\n>\t^'1'", "Expected numeric value type"),
    ],
)
def test_an_error_points_at_its_place(text: str, reason: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse_filter(text.replace("^", ""), RUNS)
    found, place = pointed_at(caught.value)
    assert found.startswith("Invalid clause(s) in filter string: ")
    if reason is not None:
        assert (place, reason in found) == (text.index("^"), True), found


def test_an_error_far_inside_shows_only_what_is_around() -> None:
    before = "metrics.a > 1 AND " * 40
    with pytest.raises(UsageError) as caught:
        parse_filter(f"{before}nme = 'x' AND {before}metrics.a > 1", RUNS)
    _, shown, caret = str(caught.value).rsplit("\n", 2)
    assert shown[caret.index("^") :].startswith("nme = 'x'")
    assert shown.startswith("  …")
    assert shown.endswith("…")
    assert len(shown) < 130


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("metrics.a", Order(Field(FieldKind.METRIC, "a"))),
        ("metrics.a ASC", Order(Field(FieldKind.METRIC, "a"))),
        (" metrics.`a b`\tdesc ", Order(Field(FieldKind.METRIC, "a b"), ascending=False)),
        ("created DESC", Order(Field(FieldKind.ATTRIBUTE, "start_time"), ascending=False)),
        ("metrics.desc asc", Order(Field(FieldKind.METRIC, "desc"))),
    ],
)
def test_orders_are_a_key_and_a_direction(text: str, order: Order) -> None:
    assert parse_order_by([text], RUNS) == (order,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("^", "expected a key such as metrics.rmse"),
        ("metrics.a ^down", "expected ASC or DESC or the end"),
        ("metrics.a desc ^desc", "expected the end"),
        ("metrics.a^, metrics.b", "expected ASC or DESC or the end"),
        ("metrics.a ^> 1", "expected ASC or DESC or the end"),
        ("^strt_time DESC", "'strt_time' (did you mean 'start_time'?)"),
        ("^datasets.name", "records are not ordered by their datasets"),
    ],
)
def test_a_wrong_order_is_named_as_such(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_order_by(["metrics.a", text.replace("^", "")], RUNS)
    found, place = pointed_at(caught.value)
    assert found.startswith("Invalid order_by clause: ")
    assert (place, reason in found) == (text.index("^"), True), found


def test_a_field_orders_once() -> None:
    with pytest.raises(UsageError, match="order_by contains duplicate fields: 'created DESC'"):
        parse_order_by(["start_time", "created DESC"], RUNS)


def test_texts_that_no_record_has_are_refused() -> None:
    for char in ("\0", "\ud800", "\udfff"):
        with pytest.raises(UsageError, match=r"the filter .* holds a NUL or half a surrogate pair"):
            parse_filter(f"params.a = '{char}'", RUNS)
        with pytest.raises(UsageError, match=r"the order_by .* holds a NUL or half"):
            parse_order_by([f"params.`{char}`"], RUNS)


def test_limits_are_where_they_are_said_to_be() -> None:
    def check(fits: str, does_not: str, reason: str) -> None:
        assert parse_filter(fits, RUNS) is not None
        with pytest.raises(UsageError, match=reason):
            parse_filter(does_not, RUNS)

    def filled(n_chars: int) -> str:
        return "metrics.a > 1".ljust(n_chars)

    check(filled(100_000), filled(100_001), "filter of runs has 100001 characters; at most 100000")
    one = "metrics.a > 1"
    check(" OR ".join([one] * 200), " OR ".join([one] * 201), "it has 201 comparisons; at most 200")
    check("NOT " * 49 + one, "NOT " * 50 + one, "it nests 51 deep; at most 50")
    check(f"params.a LIKE '{'%' * 4998}'", f"params.a LIKE '{'%' * 4999}'", "at most 5000 char")
    values = ", ".join(["1"] * 10_000)
    check(f"metrics.a IN ({values})", f"metrics.a IN ({values}, 1)", "10001 values; at most 10000")
    assert parse_filter("(" * 1000 + one + ")" * 1000, RUNS) == A
    with pytest.raises(UsageError, match="the order_by of runs has 100001 characters"):
        parse_order_by(["a" * 100_001], RUNS)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "(" * 40_000 + "metrics.a > 1" + ")" * 40_000 + "(",
        "NOT " * 24_990 + "metrics.a > 1",
        "metrics.a > 1 OR " * 5_800 + "metrics.a > 1",
        "metrics.a IN (" + "1," * 49_000,
        "metrics.a > " + "1" * 99_000 + "x",
        "a." * 50_000,
        "params.a = '" + "x" * 99_000,
        "`" * 99_999,
        "'" * 99_999,
        " " * 99_999 + "#",
    ],
    ids=range(11),
)
def test_the_longest_nonsense_is_refused_in_bounded_time(text: str) -> None:
    started = perf_counter()
    with pytest.raises(UsageError):
        parse_filter(text, RUNS)
    assert perf_counter() - started < 10


VALID = (
    "metrics.rmse < 1.5e-3 AND (params.depth IN ('3', \"4\") OR NOT tags.team = 'x')",
    "attributes.start_time BETWEEN -1 AND 1700000000000 OR `Run name` ILIKE '%a_%'",
    "datasets.name != 'd' and metrics.`a b` >= +.5 and tags.\"c d\" is not null",
    "run_id NOT IN ('a', 'b') AND created <= 12 AND param.p LIKE 'x%' AND end_time IS NULL",
)
PIECES = st.one_of(
    st.sampled_from(
        [
            "AND",
            "or ",
            "NOT ",
            "IN",
            "(",
            ")",
            ",",
            "'",
            '"',
            "`",
            ".",
            "=",
            "!=",
            "<",
            " ",
            "\n",
            "metrics.",
            "tags.a",
            "datasets.",
            "LIKE",
            "NULL",
            "BETWEEN",
            "1",
            "-",
            "e",
            "inf",
            "\0",
        ]
    ),
    st.text(max_size=3),
)
MUTATIONS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6), PIECES), min_size=1, max_size=4)


@settings(deadline=2000, database=None, derandomize=True, max_examples=400)
@given(st.sampled_from(VALID), MUTATIONS)
def test_a_filter_that_was_changed_is_a_tree_or_an_error_with_its_place(
    text: str, mutations: list[tuple[float, int, str]]
) -> None:
    assert parse_filter(text, RUNS) is not None
    for at, n_cut, piece in mutations:
        place = int(at * len(text))
        text = text[:place] + piece + text[place + n_cut :]
    try:
        found = parse_filter(text, RUNS)
    except UsageError as exc:
        if "surrogate pair" in str(exc):
            return
        shown, caret = str(exc).rsplit("\n", 2)[1:]
        assert caret.strip() == "^"
        assert len(caret) <= len(shown) + 1
    else:
        assert (found is None) is (not text.strip())
