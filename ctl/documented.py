"""Plans, applications and subscriptions as documents of a file: their shape.

The gateway keeps them as flat records; a document says `metadata.name` and `spec` as an API does.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bus.resources.application import Attributes
from bus.resources.document import ApiVersion, Document, is_handle
from bus.resources.subscription import Reference, SubscriptionStatus
from bus.resources.subscription_plan import PlanTerms


def _handle(text: str) -> str:
    if not is_handle(text):
        raise ValueError("must not contain whitespace, '/', '}' or control characters")
    return text


Name = Annotated[str, Field(min_length=1, max_length=255)]
Handle = Annotated[Name, AfterValidator(_handle)]


class Named(Document):
    """What a plan is called: any text."""

    name: Name


class Identified(Document):
    """What an application or a subscription is called: its id."""

    name: Handle


class SubscriptionPlanDocument(Document):
    """A plan; its name is the plan's name."""

    api_version: ApiVersion
    kind: Literal["SubscriptionPlan"]
    metadata: Named
    spec: PlanTerms = Field(default_factory=PlanTerms)


class ApplicationSpec(Document):
    """What an application is."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    owner: Name | None = None
    description: Annotated[str, Field(max_length=1024)] | None = None
    attributes: Attributes = Field(default_factory=dict)


class ApplicationDocument(Document):
    """An application; its name is the application's id."""

    api_version: ApiVersion
    kind: Literal["Application"]
    metadata: Identified
    spec: ApplicationSpec


class SubscriptionSpec(Document):
    """Who may use which API by which plan."""

    api_id: Handle
    subscription_plan: Name | None = None  # a plan's name; None: unlimited
    application_id: Reference | None = None
    subscription_token: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """Without it a new subscription has a token that nobody knows: for applications by their keys.

    One that is there keeps its own.
    """
    billing_customer_id: Reference | None = None
    billing_subscription_id: Reference | None = None
    status: SubscriptionStatus = "ACTIVE"


class SubscriptionDocument(Document):
    """A subscription; its name is the subscription's id."""

    api_version: ApiVersion
    kind: Literal["Subscription"]
    metadata: Identified
    spec: SubscriptionSpec
