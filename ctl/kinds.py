"""The kinds of resources, as a table: how the API, files and the command line name them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ctl.errors import Misused

if TYPE_CHECKING:
    from pydantic import BaseModel

Json = dict[str, Any]
Column = Callable[[Json], str]


def _rest_api_model() -> "type[BaseModel]":
    from bus.resources.rest_api import RestApi  # noqa: PLC0415 - only files are checked with it

    return RestApi


def _plan_model() -> "type[BaseModel]":
    from ctl.documented import SubscriptionPlanDocument  # noqa: PLC0415

    return SubscriptionPlanDocument


def _application_model() -> "type[BaseModel]":
    from ctl.documented import ApplicationDocument  # noqa: PLC0415

    return ApplicationDocument


def _subscription_model() -> "type[BaseModel]":
    from ctl.documented import SubscriptionDocument  # noqa: PLC0415

    return SubscriptionDocument


@dataclass(frozen=True, slots=True)
class Record:
    """How the gateway keeps what is no API: flat, without labels, in force at once."""

    name_field: str  # what `metadata.name` is
    fields: tuple[str, ...]  # those of `spec`, as the gateway calls them
    plan_field: str = ""  # the one that is a plan: its id there, its name in documents
    hidden_field: str = ""  # the field of `spec` that the gateway never tells


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of resource."""

    name: str  # in files
    collection: str  # in the API's paths
    list_key: str  # where a list answer keeps its items
    singular: str  # in messages: `api/petstore`
    aliases: tuple[str, ...]  # on the command line, beside the names above
    model: "Callable[[], type[BaseModel]]"
    columns: tuple[tuple[str, Column], ...]  # of its table, after NAME
    turn: int  # kinds of a lower one are applied first, and deleted last
    record: Record | None = None  # None: it has labels, and routers confirm its revisions

    def label(self, name: str) -> str:
        """How messages call a resource."""
        return f"{self.singular}/{name}"


def field(*path: str) -> Column:
    """The value at `path` as a cell; `-` when there is none."""

    def cell(resource: Json) -> str:
        value: Any = resource
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return "-" if value is None or value == "" else str(value)

    return cell


def live(resource: Json) -> str:
    """On how many routers the current revision is live, such as `2/3`."""
    routers = resource.get("status", {}).get("routers") or {}
    return f"{routers['live']}/{routers['total']}" if "total" in routers else "-"


def age(*path: str) -> Column:
    """How long ago the time at `path` was, in its largest unit."""
    when = field(*path)

    def cell(resource: Json) -> str:
        try:
            then = datetime.fromisoformat(when(resource))
        except ValueError:
            return "-"
        return span((datetime.now(UTC) - then).total_seconds())

    return cell


def span(seconds: float) -> str:
    """`seconds` in the largest unit that has at least one, such as `3m`; never negative."""
    left = max(0, int(seconds))
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if left >= length_s:
            return f"{left // length_s}{unit}"
    return f"{left}s"


REST_API = Kind(
    name="RestApi",
    collection="rest-apis",
    list_key="apis",
    singular="api",
    aliases=("apis", "rest-api", "restapis"),
    model=_rest_api_model,
    columns=(
        ("DISPLAY NAME", field("spec", "displayName")),
        ("VERSION", field("spec", "version")),
        ("CONTEXT", field("spec", "context")),
        ("STATE", field("status", "state")),
        ("REVISION", field("status", "revision")),
        ("LIVE", live),
        ("CHANGED", age("status", "updatedAt")),
        ("REASON", field("status", "reason")),
    ),
    turn=2,
)

SUBSCRIPTION_PLAN = Kind(
    name="SubscriptionPlan",
    collection="subscription-plans",
    list_key="subscriptionPlans",
    singular="plan",
    aliases=("plans", "subscription-plan", "subscriptionplans"),
    model=_plan_model,
    columns=(
        ("COUNT", field("spec", "throttleLimitCount")),
        ("PER", field("spec", "throttleLimitUnit")),
        ("ZONE", field("spec", "timeZone")),
        ("STOPS", field("spec", "stopOnQuotaReach")),
        ("STATUS", field("spec", "status")),
        ("EXPIRES", field("spec", "expiryTime")),
        ("REVISION", field("status", "revision")),
        ("CHANGED", age("status", "updatedAt")),
    ),
    turn=0,
    record=Record(
        "planName",
        (
            "billingPlan",
            "stopOnQuotaReach",
            "throttleLimitCount",
            "throttleLimitUnit",
            "timeZone",
            "expiryTime",
            "status",
        ),
    ),
)

APPLICATION = Kind(
    name="Application",
    collection="applications",
    list_key="applications",
    singular="application",
    aliases=("applications",),
    model=_application_model,
    columns=(
        ("DISPLAY NAME", field("spec", "name")),
        ("OWNER", field("spec", "owner")),
        ("DESCRIPTION", field("spec", "description")),
        ("REVISION", field("status", "revision")),
        ("CHANGED", age("status", "updatedAt")),
    ),
    turn=1,
    record=Record("id", ("name", "owner", "description", "attributes")),
)

SUBSCRIPTION = Kind(
    name="Subscription",
    collection="subscriptions",
    list_key="subscriptions",
    singular="subscription",
    aliases=("subscriptions",),
    model=_subscription_model,
    columns=(
        ("API", field("spec", "apiId")),
        ("PLAN", field("spec", "subscriptionPlan")),
        ("APPLICATION", field("spec", "applicationId")),
        ("STATUS", field("spec", "status")),
        ("CUSTOMER", field("spec", "billingCustomerId")),
        ("REVISION", field("status", "revision")),
        ("CHANGED", age("status", "updatedAt")),
    ),
    turn=3,
    record=Record(
        "id",
        (
            "apiId",
            "subscriptionPlanId",
            "applicationId",
            "billingCustomerId",
            "billingSubscriptionId",
            "status",
        ),
        plan_field="subscriptionPlanId",
        hidden_field="subscriptionToken",
    ),
)

KINDS: tuple[Kind, ...] = (REST_API, SUBSCRIPTION_PLAN, APPLICATION, SUBSCRIPTION)


def by_file_name(name: str) -> Kind | None:
    """The kind that a document's `kind` names."""
    return next((kind for kind in KINDS if kind.name == name), None)


def by_word(word: str) -> Kind:
    """The kind that a word on the command line names. Raises Misused."""
    wanted = word.lower()
    for kind in KINDS:
        if wanted in (kind.name.lower(), kind.collection, kind.singular, *kind.aliases):
            return kind
    raise Misused(f"unknown kind {word!r}; kinds are: {names()}")


def names() -> str:
    """All kinds, with how to say them, for messages."""
    return ", ".join(f"{kind.name} ({kind.singular}, {kind.collection})" for kind in KINDS)


def words() -> list[str]:
    """What completion offers for a kind."""
    return [word for kind in KINDS for word in (kind.aliases[0], kind.collection)]
