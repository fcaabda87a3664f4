"""A subscription as everybody but its owner sees it: the token's digest, never the token."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from bus.resources.document import Document

SubscriptionStatus = Literal["ACTIVE", "INACTIVE", "REVOKED"]
Reference = Annotated[str, Field(min_length=1, max_length=255)]


class Subscription(Document):
    """One subscription to one API."""

    id: str  # given by the gateway
    api_id: str  # handle of the API it is to
    digest: str  # lower-case hex SHA-256 of the token
    application_id: Reference | None = None  # for whom: an Application's id, or another system's
    subscription_plan_id: Reference | None = None  # None: unlimited
    billing_customer_id: Reference | None = None
    billing_subscription_id: Reference | None = None
    status: SubscriptionStatus = "ACTIVE"  # INACTIVE: suspended; REVOKED: for good
    created_at: AwareDatetime | None = None
