"""An API key as everybody but its owner sees it: the digest, never the key."""

from calendar import monthrange
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from bus.resources.document import Document

ApiKind = Literal["RestApi", "LlmProvider", "LlmProxy"]


class Lifetime(Document):
    """How long a key opens anything, counted from when it is generated."""

    unit: Literal["seconds", "minutes", "hours", "days", "weeks", "months"]
    duration: Annotated[int, Field(ge=1, le=1_000_000_000)]

    def end(self, start: datetime) -> datetime:
        """When a key generated at `start` expires; a month is a calendar month.

        Raises ValueError when that is beyond the year 9999.
        """
        try:
            if self.unit != "months":
                return start + timedelta(**{self.unit: self.duration})
            years, month = divmod(start.month - 1 + self.duration, 12)
            year = start.year + years
            day = min(start.day, monthrange(year, month + 1)[1])
            return start.replace(year=year, month=month + 1, day=day)
        except (OverflowError, ValueError, IndexError) as error:
            raise ValueError("expires too far in the future") from error


class ApiKey(Document):
    """One key of one API. Its identity is (api_kind, api_id, name)."""

    api_kind: ApiKind = "RestApi"
    api_id: str  # handle of the API it opens
    name: str
    digest: str  # lower-case hex SHA-256 of the key
    application: str  # who calls: the key's display name, put on usage events
    issuer: str | None = None
    expires_at: AwareDatetime | None = None
    masked: str = ""  # what a listing shows of the key
    source: Literal["local", "external"] = "local"  # who made the key up
    external_ref_id: str | None = None
    lifetime: Lifetime | None = None  # expires_at counts this from the last (re)generation
    created_at: AwareDatetime | None = None
    created_by: str | None = None  # user name

    def expired(self, now: datetime) -> bool:
        """Whether the key no longer opens anything at `now`."""
        return self.expires_at is not None and self.expires_at <= now
