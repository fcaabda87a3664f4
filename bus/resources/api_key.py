"""An API key as everybody but its owner sees it: the digest, never the key."""

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime

from bus.resources.document import Document

ApiKind = Literal["RestApi", "LlmProvider", "LlmProxy"]


class ApiKey(Document):
    """One key of one API. Its identity is (api_kind, api_id, name)."""

    api_kind: ApiKind = "RestApi"
    api_id: str  # handle of the API it opens
    name: str
    digest: str  # lower-case hex SHA-256 of the key
    application: str  # who calls: the key's display name, put on usage events
    issuer: str | None = None
    expires_at: AwareDatetime | None = None

    def expired(self, now: datetime) -> bool:
        """Whether the key no longer opens anything at `now`."""
        return self.expires_at is not None and self.expires_at <= now
