"""Tables of the record and how an older database becomes today's.

Names of things are compared byte for byte whatever the collation of the database: what must be
unique is a digest. Times are microseconds since 1970 UTC, because databases differ in what they
keep of a time zone.
"""

import hashlib
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
    text,
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
    Column("context_digest", String(64)),  # of the context in lower case, while deployed
)

CONTEXTS = Table(
    "contexts",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("held", BigInteger, nullable=False),  # as in `rest_apis`
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

RESOURCES = Table(
    "resources",
    METADATA,
    Column("kind", String(32), primary_key=True),
    Column("id", String(255), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("body", _BODY, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    Column("retired", Boolean(create_constraint=False), nullable=False),
    # digest of kind and what is unique while live, of kind and id when retired
    Column("unique_name", String(64), nullable=False, unique=True),
    # what it refers to, as digests; the row is found by them
    Column("api_digest", String(64)),
    Column("plan_digest", String(64)),
    Column("application_digest", String(64)),
    Column("held", BigInteger, nullable=False),  # as in `rest_apis`
    Index("resources_api", "api_digest"),
    Index("resources_plan", "plan_digest"),
    Index("resources_application", "application_digest"),
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
_BY_CONTEXT = Index("rest_apis_context", APIS.c.context_digest)


def _contexts(connection: Connection) -> None:
    """Version 2: who is served on a context is found without looking at every API."""
    connection.execute(text("ALTER TABLE rest_apis ADD context_digest VARCHAR(64)"))
    rows = connection.execute(
        select(APIS.c.handle, APIS.c.context).where(
            APIS.c.retired.is_(False), APIS.c.state == "deployed"
        )
    ).all()
    for row in rows:
        digest = hashlib.sha256(row.context.lower().encode()).hexdigest()
        one = update(APIS).where(APIS.c.handle == row.handle)
        connection.execute(one.values(context_digest=digest))
    _BY_CONTEXT.create(connection)
    CONTEXTS.create(connection)


def _resources(connection: Connection) -> None:
    """Version 3: plans, subscriptions and applications."""
    RESOURCES.create(connection)


Migration = Callable[[Connection], None]
MIGRATIONS: Mapping[int, Migration] = MappingProxyType({2: _contexts, 3: _resources})
"""Version reached -> what brings a database of the version before it there; forward only."""

VERSION = 3


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
