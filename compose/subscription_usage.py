"""What the controller asks of analytics: how much of its plan a subscription has used."""

from datetime import datetime
from typing import TYPE_CHECKING

from analytics.errors import TotalsUnavailable
from analytics.subscription_usage import served
from controller.errors import UsageUnavailable
from controller.quota import Served

if TYPE_CHECKING:
    from analytics.ports import TotalsStore


class UsageFromTotals:
    """See `controller.quota.SubscriptionUsage`."""

    def __init__(self, store: "TotalsStore") -> None:
        self._store = store

    async def of_subscription(
        self, subscription_id: str, since: datetime, until: datetime
    ) -> Served:
        """See SubscriptionUsage."""
        try:
            found = await served(self._store, subscription_id, since, until)
        except TotalsUnavailable as error:
            raise UsageUnavailable(error.reason) from error
        return Served(found.passed, found.refused)
