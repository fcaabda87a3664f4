"""What users may do with the keys of an API. Only digests are kept."""

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import structlog
from pydantic import AfterValidator, AwareDatetime, Field

from bus.resources.api_key import ApiKey, Lifetime
from bus.resources.document import Document, is_handle
from bus.resources.faults import FieldFault, InvalidResource, Model, parse
from controller.apis import not_found, utc_now
from controller.applications import refuse_foreign
from controller.auth import Principal
from controller.errors import Conflict, Forbidden, Invalid, NotFound
from controller.model import StoredKey
from controller.ports import Record, UnitOfWork

log = structlog.get_logger()

PREFIX = "apip_"
MIN_EXTERNAL_LENGTH = 36
_MASK = "**********"
_SHOWN = 5  # last characters that a mask shows
_NAME = re.compile(r"[a-z0-9][a-z0-9_\-]{1,61}[a-z0-9]")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(
            "must be 3 to 63 lower-case letters, digits, '-' and '_', "
            "with a letter or digit at both ends"
        )
    return text


def _external(text: str) -> str:
    if not MIN_EXTERNAL_LENGTH <= len(text) <= 512:
        raise ValueError(f"must be {MIN_EXTERNAL_LENGTH} to 512 characters long")
    if not _VISIBLE.fullmatch(text):
        raise ValueError("may only hold visible ASCII characters")
    return text


class KeyExpiry(Document):
    """When a key expires; `expiresAt` takes precedence over `expiresIn`."""

    expires_in: Lifetime | None = None
    expires_at: AwareDatetime | None = None


class KeyRequest(KeyExpiry):
    """What a key is to be; used to create and to update."""

    name: Annotated[str, AfterValidator(_name)] | None = None
    display_name: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    api_key: Annotated[str, AfterValidator(_external)] | None = None
    masked_api_key: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    external_ref_id: Annotated[str, Field(max_length=255)] | None = None
    issuer: Annotated[str, Field(max_length=255)] | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A key after a change."""

    row: StoredKey
    plain: str | None  # the key itself: told once, when it was made up here
    remaining: int  # how many more keys of this API its owner may have


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of REST APIs on record."""

    record: Record
    quota: int  # live keys of one API per user
    issuer: str | None  # written on keys that name none
    clock: Callable[[], datetime] = utc_now

    async def create(self, handle: str, document: dict[str, Any], who: Principal) -> Issued:
        """A new key. Raises NotFound, Invalid, Conflict, Forbidden."""
        wanted = _read(KeyRequest, document)
        now = self.clock()
        expires_at = _expiry(wanted, now)
        plain = None if wanted.api_key else _made_up()
        value = wanted.api_key or plain or ""
        name = wanted.name or _generated_name(wanted.display_name)

        def work(unit: UnitOfWork) -> Issued:
            rows = _held(unit, handle)
            refuse_foreign(unit, handle, wanted.display_name or name, who)
            before = next((row for row in rows if row.key.name == name), None)
            if before is not None and not before.revoked:
                raise Conflict(f"API key '{name}' already exists for this API")
            used = self._used(rows, who.name, now)
            if used >= self.quota:
                raise Invalid(
                    f"API key quota is used up: {self.quota} keys per user and API, "
                    "revoke one first"
                )
            key = ApiKey(
                api_id=handle,
                name=name,
                digest=_unique_digest(rows, value, name),
                application=wanted.display_name or name,
                issuer=wanted.issuer or self.issuer,
                expires_at=expires_at,
                masked=_mask(value, wanted.masked_api_key),
                source="local" if plain else "external",
                external_ref_id=wanted.external_ref_id,
                lifetime=None if wanted.expires_at else wanted.expires_in,
                created_at=now,
                created_by=who.name,
            )
            row = StoredKey(before.revision + 1 if before else 1, key, now)
            unit.put_key(row)
            unit.tell(row.event())
            return Issued(row, plain, self.quota - used - 1)

        issued = await self.record.change(work)
        _log("created", issued.row, who)
        return issued

    async def update(
        self, handle: str, name: str, document: dict[str, Any], who: Principal
    ) -> Issued:
        """The key with what `document` names changed. Raises NotFound, Invalid, Forbidden."""
        wanted = _read(KeyRequest, document)
        if wanted.name not in (None, name):
            raise Invalid(f"Name mismatch: path has '{name}' but the body has '{wanted.name}'")
        now = self.clock()
        changes: dict[str, Any] = {}
        if wanted.expires_in or wanted.expires_at:
            changes["expires_at"] = _expiry(wanted, now)
            changes["lifetime"] = None if wanted.expires_at else wanted.expires_in
        for ours, theirs in (
            ("application", wanted.display_name),
            ("external_ref_id", wanted.external_ref_id),
            ("issuer", wanted.issuer),
        ):
            if theirs is not None:
                changes[ours] = theirs

        def change(rows: Sequence[StoredKey], row: StoredKey) -> ApiKey:
            if wanted.api_key is None and wanted.masked_api_key is None:
                return row.key.model_copy(update=changes)
            if row.key.source == "local":
                raise Invalid("A key that was generated here changes by regenerate only")
            if wanted.api_key is None:
                masked = {"masked": _mask("", wanted.masked_api_key)}
                return row.key.model_copy(update=changes | masked)
            digest = _unique_digest(rows, wanted.api_key, name)
            masked = {"masked": _mask(wanted.api_key, wanted.masked_api_key)}
            return row.key.model_copy(update=changes | masked | {"digest": digest})

        return await self._change("updated", handle, name, who, now, change)

    async def regenerate(
        self, handle: str, name: str, document: dict[str, Any], who: Principal
    ) -> Issued:
        """The key with a new value; the old one ends. Raises NotFound, Invalid, Forbidden.

        Without an expiry in `document` a lifetime starts anew, and a fixed end stays.
        """
        wanted = _read(KeyExpiry, document)
        now = self.clock()
        plain = _made_up()

        def change(rows: Sequence[StoredKey], row: StoredKey) -> ApiKey:
            if row.key.source == "external":
                raise Invalid("An external key changes by update: its value is not made up here")
            expires_at, lifetime = row.key.expires_at, row.key.lifetime
            if wanted.expires_in or wanted.expires_at:
                expires_at = _expiry(wanted, now)
                lifetime = None if wanted.expires_at else wanted.expires_in
            elif lifetime is not None:
                expires_at = _expiry(KeyExpiry(expires_in=lifetime), now)
            if expires_at is not None and expires_at <= now:
                raise Invalid("The key has expired: give expiresIn or expiresAt")
            return row.key.model_copy(
                update={
                    "digest": _unique_digest(rows, plain, name),
                    "masked": _mask(plain, None),
                    "expires_at": expires_at,
                    "lifetime": lifetime,
                }
            )

        issued = await self._change("regenerated", handle, name, who, now, change)
        return Issued(issued.row, plain, issued.remaining)

    async def revoke(self, handle: str, name: str, who: Principal) -> None:
        """The key opens nothing any more; an unknown key never did. Raises NotFound, Forbidden."""
        now = self.clock()

        def work(unit: UnitOfWork) -> StoredKey | None:
            for row in _held(unit, handle):
                if row.key.name == name and not row.revoked:
                    _own(row, who)
                    gone = row.tombstone(now)
                    unit.put_key(gone)
                    unit.tell(gone.event())
                    return gone
            return None

        gone = await self.record.change(work)
        if gone is not None:
            _log("revoked", gone, who)

    async def list(self, handle: str, who: Principal) -> Sequence[StoredKey]:
        """Live keys: an admin sees all, others their own. Raises NotFound."""
        api = await self.record.api(handle) if is_handle(handle) else None
        if api is None or api.retired:
            raise not_found(handle)
        rows = await self.record.keys(handle)
        return [row for row in rows if who.is_admin or row.key.created_by == who.name]

    async def _change(
        self,
        what: str,
        handle: str,
        name: str,
        who: Principal,
        now: datetime,
        change: Callable[[Sequence[StoredKey], StoredKey], ApiKey],
    ) -> Issued:
        def work(unit: UnitOfWork) -> Issued:
            rows = _held(unit, handle)
            before = next((row for row in rows if row.key.name == name and not row.revoked), None)
            if before is None:
                raise NotFound(f"API key '{name}' not found for API '{handle}'")
            _own(before, who)
            row = StoredKey(before.revision + 1, change(rows, before), now)
            if row.key.application != before.key.application:
                refuse_foreign(unit, handle, row.key.application, who)
            unit.put_key(row)
            unit.tell(row.event())
            used = self._used(rows, row.key.created_by, now)
            return Issued(row, None, max(0, self.quota - used))

        issued = await self.record.change(work)
        _log(what, issued.row, who)
        return issued

    def _used(self, rows: Sequence[StoredKey], user: str | None, now: datetime) -> int:
        return sum(
            not row.revoked and not row.key.expired(now) and row.key.created_by == user
            for row in rows
        )


def _read(model: type[Model], document: dict[str, Any]) -> Model:
    try:
        return parse(model, {key: value for key, value in document.items() if value is not None})
    except InvalidResource as error:
        raise Invalid("API key validation failed", error.faults) from error


def _held(unit: UnitOfWork, handle: str) -> tuple[StoredKey, ...]:
    api = unit.hold(handle) if is_handle(handle) else None
    if api is None or api.retired:
        raise not_found(handle)
    return unit.keys(handle)


def _own(row: StoredKey, who: Principal) -> None:
    if not who.is_admin and row.key.created_by != who.name:
        raise Forbidden("Only the owner of an API key and admins may change it")


def _expiry(wanted: KeyExpiry, now: datetime) -> datetime | None:
    if wanted.expires_at is not None:
        if wanted.expires_at <= now:
            fault = FieldFault("expiresAt", "must be in the future")
            raise Invalid("API key validation failed", [fault])
        return wanted.expires_at
    if wanted.expires_in is None:
        return None
    try:
        return wanted.expires_in.end(now)
    except ValueError as error:
        fault = FieldFault("expiresIn.duration", str(error))
        raise Invalid("API key validation failed", [fault]) from error


def _made_up() -> str:
    return PREFIX + secrets.token_hex(32)


def _generated_name(display_name: str | None) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", (display_name or "key").lower()).strip("-")[:50] or "key"
    return f"{words}-{secrets.token_hex(4)}"


def _unique_digest(rows: Sequence[StoredKey], value: str, name: str) -> str:
    digest = hashlib.sha256(value.encode()).hexdigest()
    if any(row.key.digest == digest and row.key.name != name and not row.revoked for row in rows):
        raise Conflict("An API key of this value already exists for this API")
    return digest


def _mask(value: str, given: str | None) -> str:
    if given is None:
        return _MASK + value[-_SHOWN:]
    if value and value in given:
        fault = FieldFault("maskedApiKey", "must not hold the key")
        raise Invalid("API key validation failed", [fault])
    return given


def _log(what: str, row: StoredKey, who: Principal) -> None:
    log.info(
        "api key changed",
        change=what,
        api=row.key.api_id,
        key=row.key.name,
        revision=row.revision,
        user=who.name,
    )
