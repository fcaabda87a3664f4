"""Tables of the record and how an older database becomes today's.

Names of things are compared byte for byte whatever the collation of the database: what must be
unique is a digest. Times are microseconds since 1970 UTC, because databases differ in what they
keep of a time zone.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
    update,
)

from controller.errors import SchemaTooNew

METADATA = MetaData()
_BODY = Text(16_000_000)  # the length only makes MySQL choose a type that is large enough
_SERIAL = BigInteger().with_variant(Integer, "sqlite")

SCHEMA_VERSION = Table(
    "controller_schema",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("version", Integer, nullable=False),
)

APIS = Table(
    "rest_apis",
    METADATA,
    Column("handle", String(253), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("body", _BODY, nullable=False),
    Column("display_name", String(100), nullable=False),
    Column("version", String(64), nullable=False),
    Column("context", String(512), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    Column("deployed_at_us", BigInteger),
    Column("retired", Boolean(create_constraint=False), nullable=False),
    # digest of display name and version while live, of the handle when retired
    Column("unique_name", String(64), nullable=False, unique=True),
    Column("held", BigInteger, nullable=False),  # written to keep other writers from the row
)

KEYS = Table(
    "api_keys",
    METADATA,
    Column("api_kind", String(32), primary_key=True),
    Column("api_handle", String(253), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("body", _BODY, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    Column("revoked", Boolean(create_constraint=False), nullable=False),
)

OUTBOX = Table(
    "outbox",
    METADATA,
    Column("number", _SERIAL, primary_key=True, autoincrement=True),
    Column("event_id", String(36), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("body", _BODY, nullable=False),
    sqlite_autoincrement=True,  # a number is never used twice
)

Index("rest_apis_created", APIS.c.created_at_us)

Migration = Callable[[Connection], None]
MIGRATIONS: Mapping[int, Migration] = MappingProxyType({})
"""Version reached -> what brings a database of the version before it there; forward only."""

VERSION = 1


def bring_up_to_date(
    connection: Connection,
    where: str,
    *,
    version: int = VERSION,
    migrations: Mapping[int, Migration] = MIGRATIONS,
) -> None:
    """Create the tables in an empty database, or migrate them. Raises SchemaTooNew."""
    if not inspect(connection).has_table(SCHEMA_VERSION.name):
        METADATA.create_all(connection)
        connection.execute(insert(SCHEMA_VERSION).values(id=1, version=version))
        return
    found: int = connection.execute(select(SCHEMA_VERSION.c.version)).scalar_one()
    if found > version:
        raise SchemaTooNew(where, found, version)
    for step in range(found + 1, version + 1):
        migrations[step](connection)
    # also when there was nothing to do: who may not write is to learn it now
    connection.execute(update(SCHEMA_VERSION).values(version=version))
