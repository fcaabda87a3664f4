"""The tables of usage totals: a star of series (what) and totals (when, how much).

No foreign keys and no dialect's own types: they are the same on every database of SQLAlchemy.
Texts are nullable because Oracle stores an empty text as NULL.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    inspect,
    text,
)

from analytics.totals import NAME_MAX, PATH_MAX

_BIG = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER counts up by itself there

METADATA = MetaData()

SERIES = Table(
    "usage_series",
    METADATA,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256 of the columns below
    Column("api", String(NAME_MAX)),
    Column("method", String(NAME_MAX)),
    Column("path", String(PATH_MAX)),
    Column("application", String(NAME_MAX)),
    Column("status_class", SmallInteger, nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("subscription", String(NAME_MAX)),
    Column("shadow", String(NAME_MAX)),
    Index("usage_series_by_api", "api"),
    Index("usage_series_by_subscription", "subscription"),
)

TOTALS = Table(
    "usage_totals",
    METADATA,
    Column("minute", Integer, primary_key=True, autoincrement=False),
    Column("span_minutes", SmallInteger, primary_key=True, autoincrement=False),
    Column("series_id", BigInteger, primary_key=True, autoincrement=False),
    # Each process adds up in rows of its own, so that processes never wait for, or undo, each
    # other; readers and the roll-up add the parts.
    Column("writer", BigInteger, primary_key=True, autoincrement=False),
    Column("requests", BigInteger, nullable=False),
    Column("request_bytes", BigInteger, nullable=False),
    Column("response_bytes", BigInteger, nullable=False),
    Column("duration_us", BigInteger, nullable=False),
    Column("upstream_us", BigInteger, nullable=False),
    Column("latency", LargeBinary, nullable=False),  # analytics.sketch
    sqlite_with_rowid=False,
)

COUNTED = Table(
    "usage_counted",
    METADATA,
    Column("event_id", String(128), primary_key=True),
    Column("minute", Integer, nullable=False, index=True),  # when it was counted
    sqlite_with_rowid=False,
)

GAPS = Table(
    "usage_gaps",
    METADATA,
    Column("event_id", String(128), primary_key=True),
    Column("node", String(NAME_MAX)),
    Column("entries", BigInteger, nullable=False),
    Column("since_ms", BigInteger, nullable=False, index=True),
    Column("until_ms", BigInteger, nullable=False),
    Column("reason", String(32), nullable=False),
)

CHORES = Table(
    "usage_chores",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("turn", BigInteger, nullable=False),  # who raises it from what was read does the chore
)


def bring_up_to_date(connection: Connection) -> None:
    """Create what is missing; older databases learn of subscriptions and of shadow mode."""
    METADATA.create_all(connection)
    known = {one["name"] for one in inspect(connection).get_columns(SERIES.name)}
    for column in (SERIES.c.subscription, SERIES.c.shadow):
        if column.name in known:
            continue
        kind = column.type.compile(connection.dialect)
        connection.execute(text(f"ALTER TABLE {SERIES.name} ADD {column.name} {kind}"))
        for index in SERIES.indexes:
            if column.name in index.columns:
                index.create(connection)
