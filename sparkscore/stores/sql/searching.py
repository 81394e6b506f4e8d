"""Searches as SQL: what fits as subqueries that indices answer, and pages by sort keys.

A first sort key that records may lack is searched in up to three steps (those with a value, those
with NaN, those without), so that its index gives the order and no page has to sort everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Double,
    FromClause,
    Row,
    Select,
    Table,
    and_,
    case,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    tuple_,
)

from sparkscore.records import LifecycleStage
from sparkscore.search import (
    All,
    Comparison,
    Condition,
    FieldKind,
    Not,
    Operator,
    Order,
    Query,
    Searchable,
    View,
)
from sparkscore.search import Any as AnyOf
from sparkscore.stores.search_pages import (
    Rank,
    Scalar,
    SortKey,
    check_limit,
    last_seen,
    token_of,
    whole_order,
)
from sparkscore.stores.sql.tables import N_INDEXED_CHARS

_Clause = ColumnElement[bool]
_WITHOUT_VALUE = (Operator.IS_NULL, Operator.IS_NOT_NULL)
_NEGATIVE = (Operator.NOT_EQUAL, Operator.NOT_IN)
# So many owners make a list that costs more than asking each row of a page.
_N_MANY = 5000


@dataclass(frozen=True)
class SearchedTable:
    """Where one kind of record lies.

    Attributes:
        table: Its rows.
        identity: The columns that tell rows apart, as the tables of pairs and points repeat them.
        attributes: The searchable ones.
        numbers: What the numbered ones of them are ordered by.
        nullable: Those of them that a record may lack.
        pairs: Tables of keys and values, by what they hold.
        points: The latest points of metrics, or all points with datasets.
        datasets: Parts of datasets to a selection of (identity, value), such as of names.
    """

    searchable: Searchable
    table: Table
    identity: tuple[str, ...]
    attributes: Mapping[str, ColumnElement[Any]]
    nullable: frozenset[str] = frozenset()
    numbers: Mapping[str, ColumnElement[int]] = field(default_factory=dict)
    pairs: Mapping[FieldKind, Table] = field(default_factory=dict)
    points: Callable[[Order], FromClause] | None = None
    latest_points: Callable[[Order], FromClause] | None = None
    datasets: Mapping[str, tuple[FromClause, ColumnElement[Any], ColumnElement[Any]]] = field(
        default_factory=dict
    )


@dataclass(frozen=True)
class _Key:
    """One sort key as SQL.

    Attributes:
        source: What has to be joined for it; None: the table itself has it.
        on: The condition of that join.
        rank: None where no record lacks it.
        values: What holds for records with this rank.
    """

    value: ColumnElement[Any]
    is_up: bool
    rank: ColumnElement[int] | None = None
    source: FromClause | None = None
    on: _Clause | None = None
    values: Mapping[Rank, _Clause] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundRows:
    """The rows of one page, in order, and the token of the next one."""

    rows: Sequence[Row[Any]]
    next_token: str | None


def in_stage(column: ColumnElement[str], view: View) -> list[_Clause]:
    """What makes a search look at records of the stages in view only."""
    stages = {View.ACTIVE_ONLY: LifecycleStage.ACTIVE, View.DELETED_ONLY: LifecycleStage.DELETED}
    return [column == stages[view]] if view in stages else []


def search_rows(
    connection: Connection,
    searched: SearchedTable,
    query: Query,
    *where: _Clause,
    scope: object = None,
) -> FoundRows:
    """One page of the rows that fit.

    Args:
        connection: In a transaction.
        searched: What is searched.
        query: What to look for; its view is the caller's.
        where: Which rows are in question.
        scope: The same as a value, for the token.

    Raises:
        UsageError: The token is of another query, or of none.
    """
    check_limit(query)
    after = last_seen(searched.searchable, query, scope)
    keys = [_key(searched, order, i) for i, order in enumerate(_order(searched, query))]
    clauses = [*where]
    if query.where is not None:
        clauses.append(_Translation(searched, connection).clause(query.where))
    wanted = query.limit + 1
    rows: list[Row[Any]] = []
    for step in _steps(searched, keys, after):
        statement = step.where(*clauses).limit(wanted - len(rows))
        rows.extend(connection.execute(statement).all())
        if len(rows) == wanted:
            break
    if len(rows) < wanted:
        return FoundRows(rows, None)
    page = rows[: query.limit]
    last = [_sort_key(page[-1], i, key) for i, key in enumerate(keys)]
    return FoundRows(page, token_of(searched.searchable, query, scope, last))


def _order(searched: SearchedTable, query: Query) -> tuple[Order, ...]:
    return whole_order(searched.searchable, query.order)


def _steps(
    searched: SearchedTable, keys: Sequence[_Key], after: Sequence[SortKey] | None
) -> list[Select[Any]]:
    """The statements that give the rows in order, one after another."""
    first, *rest = keys
    if first.rank is None:
        statement = _ordered(searched, keys)
        if after is not None:
            statement = statement.where(_behind(keys, after))
        return [statement]
    steps = []
    for rank, holds in first.values.items():
        if after is not None and rank < after[0].rank:
            continue
        statement = _ordered(searched, keys, rank).where(holds)
        if after is not None and rank is after[0].rank:
            in_step = keys if rank is Rank.VALUE else rest
            last = after if rank is Rank.VALUE else after[1:]
            statement = statement.where(_behind(in_step, last, has_first=rank is Rank.VALUE))
        steps.append(statement)
    return steps


def _ordered(
    searched: SearchedTable, keys: Sequence[_Key], step: Rank | None = None
) -> Select[Any]:
    """All rows with their sort keys, in order; with a step only those of its rank come first."""
    source: FromClause = searched.table
    columns: list[ColumnElement[Any]] = []
    order: list[ColumnElement[Any]] = []
    for i, key in enumerate(keys):
        is_step = i == 0 and step is not None
        if key.source is not None:
            assert key.on is not None
            is_outer = not is_step or step is Rank.MISSING
            source = source.join(key.source, key.on, isouter=is_outer)
        rank: ColumnElement[int] = literal(0) if key.rank is None else key.rank
        columns += [rank.label(f"rank_{i}"), key.value.label(f"value_{i}")]
        if key.rank is not None and not is_step:
            order.append(key.rank)
        if not is_step or step is Rank.VALUE:
            order.append(key.value.asc() if key.is_up else key.value.desc())
    return select(searched.table, *columns).select_from(source).order_by(*order)


def _behind(keys: Sequence[_Key], after: Sequence[SortKey], *, has_first: bool = False) -> _Clause:
    """Whether a row comes after the one with these sort keys.

    Args:
        keys: In order.
        after: The same keys of a row.
        has_first: Whether all rows have a value for the first one.
    """
    parts: list[tuple[ColumnElement[Any], Any, bool]] = []
    for i, (key, last) in enumerate(zip(keys, after, strict=True)):
        if key.rank is not None and not (i == 0 and has_first):
            parts.append((key.rank, int(last.rank), True))
        if last.rank is Rank.VALUE:
            assert last.value is not None
            parts.append((key.value, _bound(last.value), key.is_up))
    ways: list[_Clause] = []
    same: list[_Clause] = []
    for column, value, is_up in parts:
        ways.append(and_(*same, column > value if is_up else column < value))
        same.append(column == value)
    column, value, is_up = parts[0]
    # Said once more for the index.
    return and_(column >= value if is_up else column <= value, or_(*ways))


def _bound(value: Scalar) -> Any:  # noqa: ANN401 - SQLAlchemy's operands are of any type
    """A value as a parameter of its own type; of the column's, a database would round it."""
    if isinstance(value, str):
        return value
    return literal(value, BigInteger() if isinstance(value, int) else Double())


def _sort_key(row: Row[Any], i: int, key: _Key) -> SortKey:
    rank = Rank(getattr(row, f"rank_{i}"))
    if rank is not Rank.VALUE:
        return SortKey(rank, None)
    value = getattr(row, f"value_{i}")
    return SortKey(rank, value if key.value.type.python_type is not float else float(value))


def _key(searched: SearchedTable, order: Order, i: int) -> _Key:
    kind, name = order.field.kind, order.field.key
    values: dict[Rank, _Clause]
    if kind is FieldKind.ATTRIBUTE:
        column = searched.numbers.get(name, searched.attributes[name])
        if name not in searched.nullable:
            return _Key(column, order.ascending)
        is_there = column.is_not(None)
        rank = case((is_there, int(Rank.VALUE)), else_=int(Rank.MISSING))
        values = {Rank.VALUE: is_there, Rank.MISSING: column.is_(None)}
        return _Key(column, order.ascending, rank, values=values)
    if kind is not FieldKind.METRIC:
        source = searched.pairs[kind].alias(f"sort_{i}")
        on = and_(_same(searched, source), source.c.key == name)
        is_there = source.c.key.is_not(None)
        rank = case((is_there, int(Rank.VALUE)), else_=int(Rank.MISSING))
        # All values are in that range, which makes SQLite begin with their index.
        values = {Rank.VALUE: source.c.value >= "", Rank.MISSING: source.c.key.is_(None)}
        return _Key(source.c.value, order.ascending, rank, source, on, values)
    assert searched.latest_points is not None
    points = searched.latest_points(order).alias(f"sort_{i}")
    on = and_(_same(searched, points), points.c.key == name)
    missing = points.c.key.is_(None)
    rank = case(
        (missing, int(Rank.MISSING)),
        (points.c.is_nan, int(Rank.NAN)),
        else_=int(Rank.VALUE),
    )
    values = {
        Rank.VALUE: points.c.is_nan == false(),
        # The value that NaN is kept beside, which makes SQLite begin with the index here too.
        Rank.NAN: and_(points.c.is_nan == true(), points.c.value == 0.0),
        Rank.MISSING: missing,
    }
    return _Key(points.c.value, order.ascending, rank, points, on, values)


def _same(searched: SearchedTable, other: FromClause) -> _Clause:
    return and_(*(searched.table.c[name] == other.c[name] for name in searched.identity))


def _owners(searched: SearchedTable, table: FromClause) -> list[ColumnElement[Any]]:
    return [table.c[name] for name in searched.identity]


class _Translation:
    """Conditions on the rows of a table."""

    def __init__(self, searched: SearchedTable, connection: Connection) -> None:
        self._searched = searched
        self._connection = connection

    def clause(self, where: Condition) -> _Clause:
        """The condition as SQL; true or false for every row, and never NULL."""
        if isinstance(where, All):
            return and_(*map(self.clause, where.parts))
        if isinstance(where, AnyOf):
            return or_(*map(self.clause, where.parts))
        if isinstance(where, Not):
            return not_(self.clause(where.part))
        return self._comparison(where)

    def _comparison(self, where: Comparison) -> _Clause:
        kind, name = where.field.kind, where.field.key
        if kind is FieldKind.ATTRIBUTE:
            return self._attribute(where)
        searched = self._searched
        if kind is FieldKind.DATASET:
            source, owner, value = searched.datasets[name]
            found = select(owner).select_from(source).where(value.is_not(None))
            return self._among(found, where, value)
        if kind is not FieldKind.METRIC:
            table = searched.pairs[kind]
            found = select(*_owners(searched, table)).where(table.c.key == name)
            return self._among(found, where, table.c.value)
        assert searched.points is not None
        points = searched.points(Order(where.field))
        found = select(*_owners(searched, points)).where(points.c.key == name)
        if where.operator in _WITHOUT_VALUE:
            return self._among(found, where, points.c.value)
        holds = and_(points.c.is_nan == false(), self._holds(points.c.value, where))
        if where.operator in _NEGATIVE:
            holds = or_(points.c.is_nan == true(), holds)
            return self._is_owner(found.where(holds))
        return self._in(found.where(holds))

    def _attribute(self, where: Comparison) -> _Clause:
        column = self._searched.attributes[where.field.key]
        if where.operator is Operator.IS_NULL:
            return column.is_(None)
        is_there = column.is_not(None)
        if where.operator is Operator.IS_NOT_NULL:
            return is_there
        holds = self._holds(column, where)
        return and_(is_there, holds) if where.field.key in self._searched.nullable else holds

    def _among(self, found: Select[Any], where: Comparison, value: ColumnElement[Any]) -> _Clause:
        """Whether a row is among the owners of such a value."""
        if where.operator is Operator.IS_NULL:
            return not_(self._in(found))
        if where.operator is Operator.IS_NOT_NULL:
            return self._is_owner(found)
        found = found.where(self._holds(value, where))
        return self._is_owner(found) if where.operator in _NEGATIVE else self._in(found)

    def _is_owner(self, found: Select[Any]) -> _Clause:
        """Whether a row is among the owners, of whom there may be many.

        PostgreSQL knows how many from its statistics. SQLite would list them all before it looks at
        the first row; so they are counted as far as it matters, which an index does in no time.
        """
        if self._is_postgres:
            return self._in(found)
        counted = select(func.count()).select_from(found.limit(_N_MANY).subquery())
        if self._connection.scalar(counted) != _N_MANY:
            return self._in(found)
        columns = (self._searched.table.c[name] for name in self._searched.identity)
        owned = (owner == own for owner, own in zip(found.selected_columns, columns, strict=True))
        return found.where(*owned).correlate(self._searched.table).exists()

    def _in(self, found: Select[Any]) -> _Clause:
        columns = [self._searched.table.c[name] for name in self._searched.identity]
        return (columns[0] if len(columns) == 1 else tuple_(*columns)).in_(found)

    def _holds(self, column: ColumnElement[Any], where: Comparison) -> _Clause:
        operator, value = where.operator, where.value
        if isinstance(value, tuple):
            return self._is_among(column, operator, value)
        if operator in (Operator.LIKE, Operator.ILIKE):
            return self._like(column, str(value), ignore_case=operator is Operator.ILIKE)
        if operator is Operator.EQUAL and isinstance(value, str) and self._is_postgres:
            return self._is_among(column, Operator.IN, (value,))
        assert value is not None
        bound = _bound(value)
        ways: dict[Operator, _Clause] = {
            Operator.EQUAL: column == bound,
            Operator.NOT_EQUAL: column != bound,
            Operator.LESS: column < bound,
            Operator.LESS_EQUAL: column <= bound,
            Operator.GREATER: column > bound,
            Operator.GREATER_EQUAL: column >= bound,
        }
        return ways[operator]

    def _is_among(
        self, column: ColumnElement[Any], operator: Operator, values: Sequence[Scalar]
    ) -> _Clause:
        bound = [_bound(value) for value in values]
        if operator is Operator.NOT_IN:
            return column.not_in(bound)
        starts = [value[:N_INDEXED_CHARS] for value in values if isinstance(value, str)]
        if not starts or not self._is_postgres:
            return column.in_(bound)
        # By its beginning too, which is what the index holds.
        return and_(func.left(column, N_INDEXED_CHARS).in_(starts), column.in_(bound))

    @property
    def _is_postgres(self) -> bool:
        return self._connection.dialect.name == "postgresql"

    def _like(self, column: ColumnElement[Any], pattern: str, *, ignore_case: bool) -> _Clause:
        if self._is_postgres:
            # Without an escape, which would be the backslash.
            way = column.ilike if ignore_case else column.like
            return way(pattern, escape="")
        if ignore_case:
            return column.op("LIKE", is_comparison=True)(pattern)
        # SQLite's LIKE knows no case, and its GLOB other signs.
        signs = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
        return column.op("GLOB", is_comparison=True)("".join(signs.get(c, c) for c in pattern))
