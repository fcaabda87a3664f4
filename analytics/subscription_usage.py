"""What was served by one subscription, from the totals."""

from dataclasses import dataclass
from datetime import datetime

from analytics.outcome import REFUSED
from analytics.ports import Selection, TotalsStore


@dataclass(frozen=True, slots=True)
class Served:
    """What became of the requests of a subscription."""

    passed: int  # reached, or should have reached, the upstream
    refused: int  # by a policy or the gateway's own rules


async def served(
    store: TotalsStore, subscription_id: str, since: datetime, until: datetime
) -> Served:
    """The requests that started in this time, in whole minutes. Raises TotalsUnavailable."""
    passed = refused = 0
    wanted = Selection(
        int(since.timestamp()) // 60, int(until.timestamp()) // 60, subscription=subscription_id
    )
    async for row in store.rows(wanted):
        if row.series.outcome in REFUSED:
            refused += row.total.requests
        else:
            passed += row.total.requests
    return Served(passed, refused)
