"""A PostgreSQL table that holds the newest row of each key: the latest score per entity.

The rows of a batch and the batch's number are written in one transaction, so that a batch that is
published again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sparkscore.errors import ConfigError, OutletAwayError, OutletError, listed, shown
from sparkscore.outlets.base import CommittedBatch, ScoreShape
from sparkscore.outlets.postgres_rows import column_type, copy_text

SCHEMES = ("postgresql", "postgres")
_FORM = "postgresql://USER@HOST/DATABASE?table=TABLE&key=COLUMN"
_OURS = ("table", "key")
_SECRETS = ("password", "sslpassword")
_SCORED_AT = "scored_at"
# What the user's URI says of these goes first. A server behind a cut cable is given up by the
# kernel, and one that we leave in the middle of a batch gives our locks back.
_LIBPQ_DEFAULTS = {
    "application_name": "sparkscore",
    "connect_timeout": "10",
    "tcp_user_timeout": "30000",
    "options": "-c lock_timeout=30s -c idle_in_transaction_session_timeout=120s",
}
_MAX_NAME_BYTES = 63
"""Of a longer name PostgreSQL keeps the beginning, so that its table would not have that column."""
_PROGRESS = "sparkscore_published"
_STAGED = sql.Identifier("pg_temp", "sparkscore_batch")
_CREATE_PROGRESS = (
    "CREATE TABLE {} (stream_id text, table_name text, batch bigint NOT NULL, "
    "published_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (stream_id, table_name))"
)
# Any number that other programs do not lock: two streams may create their tables at once.
_CREATION_LOCK = 7727572674
_COLUMNS = (
    "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
    "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
)
# Staged rows lie in the order of the batch, so that of two rows alike in all the later one wins.
_UPSERT = (
    "INSERT INTO {table} AS kept ({columns}) "
    "SELECT DISTINCT ON ({keys}) {columns} FROM {staged} "
    "ORDER BY {keys}, {newest} DESC NULLS LAST, ctid DESC "
    "ON CONFLICT ({keys}) DO UPDATE SET {changes} WHERE {is_newer}"
)


@dataclass(frozen=True)
class PostgresUri:
    """Where rows go to.

    Attributes:
        conninfo: What libpq is given; may hold a password.
        name: The URI without secrets.
        table: The table's name, after its schema's if one is named.
        keys: Columns of which each combination has one row; empty: those of the job.
    """

    conninfo: str
    name: str
    table: tuple[str, ...]
    keys: tuple[str, ...]


def parse_postgres_uri(uri: str) -> PostgresUri:
    """Read `postgresql://USER@HOST/DATABASE?table=TABLE&key=COLUMN`; other options are libpq's.

    Raises:
        ConfigError: It is none, names no table, or libpq does not know an option.
    """
    parts = urlsplit(uri)
    options = parse_qs(parts.query, keep_blank_values=True)
    ours = {name: options.pop(name, [""])[-1] for name in _OURS}
    told = {k: v for k, v in (options | ours).items() if v and k not in _SECRETS}
    shown_query = urlencode(told, doseq=True, quote_via=quote, safe="/,")
    name = f"postgresql://{_without_password(parts.netloc)}{parts.path}?{shown_query}"
    table = tuple(ours["table"].split("."))
    if not all(table) or len(table) > 2:  # noqa: PLR2004 - a schema, and a table in it
        raise ConfigError(f"{shown(name)} names no table to publish to; write {_FORM}")
    conninfo = parts._replace(query=urlencode(options, doseq=True, quote_via=quote)).geturl()
    try:
        known = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        # libpq's own words quote the URI, in which a password may stand.
        raise ConfigError(
            f"{shown(name)} is no URI that libpq understands, or has an option that it does not "
            f"know (of {listed(sorted(options))}); write {_FORM}, and encode odd characters"
        ) from None
    if known.get("dbname") is None:
        raise ConfigError(f"{shown(name)} names no database; write {_FORM}")
    keys = tuple(part for part in ours["key"].split(",") if part)
    return PostgresUri(conninfo, name, table, keys)


class PostgresOutlet:
    """Keeps the newest row of each key in a table, which is made where it is missing.

    Newest is the row with the latest event time, where the job names its column, and among those
    the one that was scored last; an older row never takes the place of a newer one.
    """

    def __init__(self, uri: PostgresUri) -> None:
        self._uri = uri
        self._connection: psycopg.Connection | None = None

    @property
    def name(self) -> str:
        """See Outlet."""
        return self._uri.name

    def check(self, shape: ScoreShape) -> None:
        """See Outlet; makes the tables, and publishes a batch of no rows that is taken back."""
        self._check_columns(shape)
        try:
            with self._transaction() as cursor:
                self._create(cursor, shape)
                self._check_table(cursor, shape)
            with self._transaction() as cursor:
                self._is_new(cursor, "", 0)
                self._stage(cursor, shape, iter(()))
                self._merge(cursor, shape)
                raise psycopg.Rollback
        finally:
            self.close()  # Who asks may refuse the stream for another reason, and publish nothing.

    def publish(self, batch: CommittedBatch) -> int:
        """See Outlet."""
        with self._transaction() as cursor:
            if not self._is_new(cursor, batch.stream_id, batch.number):
                return 0
            n_rows = self._stage(cursor, batch.shape, batch.rows())
            self._merge(cursor, batch.shape)
            cursor.execute(
                sql.SQL(
                    "UPDATE {} SET batch = %s, published_at = now() "
                    "WHERE stream_id = %s AND table_name = %s"
                ).format(self._progress),
                (batch.number, batch.stream_id, self._uri.table[-1]),
            )
        return n_rows

    def close(self) -> None:
        """See Outlet."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _table(self) -> sql.Identifier:
        return sql.Identifier(*self._uri.table)

    @property
    def _progress(self) -> sql.Identifier:
        """The table that says which batch was the last, beside the table itself."""
        return sql.Identifier(*self._uri.table[:-1], _PROGRESS)

    def _keys(self, shape: ScoreShape) -> tuple[str, ...]:
        return self._uri.keys or shape.keys

    def _check_columns(self, shape: ScoreShape) -> None:
        """Refuse what the rows of the score table cannot give.

        Raises:
            ConfigError: There is no key, a key or the event time is no column of them, or a column
                has too long a name.
        """
        keys, names = self._keys(shape), shape.schema.names
        if not keys:
            raise ConfigError(
                f"{shown(self.name)} keeps one row a key, and there is no key; name its columns "
                "with &key=COLUMN,COLUMN in the URI, or with --key"
            )
        for name in (*keys, *([shape.event_time] if shape.event_time else [])):
            if name not in names:
                raise ConfigError(
                    f"{shown(self.name)} tells rows by {name!r}, which the score table does not "
                    f"have (it has {listed(names)}); carry it along with --keep {name}"
                )
        long = [name for name in names if len(name.encode()) > _MAX_NAME_BYTES]
        if long:
            raise ConfigError(
                f"{shown(self.name)}: PostgreSQL's names have {_MAX_NAME_BYTES} bytes at most, and "
                f"columns of the score table have longer ones: {listed(long)}; leave them out of "
                "--keep, or rename them by a view of the source"
            )

    def _create(self, cursor: psycopg.Cursor, shape: ScoreShape) -> None:
        """Make the table and its record of batches, where they are missing."""
        columns = [
            sql.SQL("{} {}").format(sql.Identifier(f.name), sql.SQL(column_type(f.type)))
            for f in shape.schema
        ]
        create = sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(
            self._table, sql.SQL(", ").join(columns), _listed(self._keys(shape))
        )
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_CREATION_LOCK,))
        for name, statement in (
            (self._table, create),
            (self._progress, sql.SQL(_CREATE_PROGRESS).format(self._progress)),
        ):
            # Not CREATE ... IF NOT EXISTS: that asks for the right to create in any case.
            if _oid(cursor, name) is None:
                cursor.execute(statement)

    def _check_table(self, cursor: psycopg.Cursor, shape: ScoreShape) -> None:
        """Compare the table's columns with those of the rows; others may stand beside them.

        Raises:
            OutletError: A column is missing or of another type.
        """
        cursor.execute(_COLUMNS, (self._table.as_string(cursor),))
        have: dict[str, str] = dict(cursor.fetchall())
        lines = [
            f"\n  {field.name}: the table has {have.get(field.name, 'no such column')}, the stream "
            f"publishes {column_type(field.type)}"
            for field in shape.schema
            if have.get(field.name) != column_type(field.type)
        ]
        if lines:
            raise OutletError(
                f"{shown(self.name)} has other columns than the scores:{''.join(lines)}\n"
                "Alter the table, or name one that is not there: it will be made"
            )

    def _is_new(self, cursor: psycopg.Cursor, stream_id: str, number: int) -> bool:
        """Whether the stream's batch is not there yet; keeps others from publishing meanwhile."""
        key = (stream_id, self._uri.table[-1])
        cursor.execute(
            sql.SQL(
                "INSERT INTO {} (stream_id, table_name, batch) VALUES (%s, %s, -1) "
                "ON CONFLICT DO NOTHING"
            ).format(self._progress),
            key,
        )
        cursor.execute(
            sql.SQL(
                "SELECT batch FROM {} WHERE stream_id = %s AND table_name = %s FOR UPDATE"
            ).format(self._progress),
            key,
        )
        found = cursor.fetchone()
        assert found is not None
        return int(found[0]) < number

    def _stage(
        self, cursor: psycopg.Cursor, shape: ScoreShape, rows: Iterator[pa.RecordBatch]
    ) -> int:
        """Copy the rows into a table of this transaction's own, and count them."""
        columns = [
            sql.SQL("{} {}").format(sql.Identifier(f.name), sql.SQL(column_type(f.type)))
            for f in shape.schema
        ]
        cursor.execute(
            sql.SQL("CREATE TEMP TABLE sparkscore_batch ({}) ON COMMIT DROP").format(
                sql.SQL(", ").join(columns)
            )
        )
        n_rows = 0
        with cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(_STAGED)) as copy:
            for batch in rows:
                copy.write(copy_text(batch))
                n_rows += batch.num_rows
        return n_rows

    def _merge(self, cursor: psycopg.Cursor, shape: ScoreShape) -> None:
        """Let each staged row take the place of an older one of its key."""
        keys, names = self._keys(shape), shape.schema.names
        newest = [shape.event_time] if shape.event_time else []
        order = [*newest, _SCORED_AT]
        changes = [
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
            for name in names
            if name not in keys
        ]
        cursor.execute(
            sql.SQL(_UPSERT).format(
                table=self._table,
                columns=_listed(names),
                keys=_listed(keys),
                staged=_STAGED,
                newest=sql.SQL(" DESC NULLS LAST, ").join(map(sql.Identifier, order)),
                changes=sql.SQL(", ").join(changes),
                is_newer=sql.SQL("({}) <= ({})").format(
                    _times("kept", order), _times("excluded", order)
                ),
            )
        )

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor]:
        """A cursor whose work is committed at the end of the block.

        Raises:
            OutletAwayError: The server does not answer, or asks to try again.
            OutletError: It refuses.
        """
        try:
            if self._connection is None:
                self._connection = _connected(self._uri.conninfo)
            with self._connection.transaction(), self._connection.cursor() as cursor:
                yield cursor
        except psycopg.OperationalError as exc:
            # Whatever became of it, the next try asks the server anew.
            self.close()
            raise OutletAwayError(
                f"{shown(self.name)} did not answer: {_reason(exc)}; nothing of the batch was "
                "published, or all of it, and the next try finds out which"
            ) from exc
        except psycopg.Error as exc:
            self.close()
            raise OutletError(
                f"{shown(self.name)} refused: {_reason(exc)}; nothing of the batch was published"
            ) from exc


def _connected(conninfo: str) -> psycopg.Connection:
    given = conninfo_to_dict(conninfo)
    missing = {name: value for name, value in _LIBPQ_DEFAULTS.items() if name not in given}
    # Statements that are prepared are of a session, which poolers such as PgBouncer share out.
    return psycopg.connect(
        make_conninfo(conninfo, **missing), autocommit=True, prepare_threshold=None
    )


def _oid(cursor: psycopg.Cursor, table: sql.Identifier) -> int | None:
    cursor.execute("SELECT to_regclass(%s)::oid", (table.as_string(cursor),))
    found = cursor.fetchone()
    return None if found is None else found[0]


def _listed(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _times(row: str, names: Sequence[str]) -> sql.Composed:
    """The times of a row; one that is not known is older than any other."""
    form = sql.SQL("COALESCE({}, '-infinity')")
    return sql.SQL(", ").join(form.format(sql.Identifier(row, name)) for name in names)


def _without_password(netloc: str) -> str:
    user, at, host = netloc.rpartition("@")
    return f"{user.partition(':')[0]}{at}{host}"


def _reason(exc: psycopg.Error) -> str:
    """What the server says, in one line."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return "; ".join(lines) or type(exc).__name__
