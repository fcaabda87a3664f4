"""How much of a limit each router may let pass, by how much it is asked for."""

from collections.abc import Sequence

FLOOR = 0.05
"""What a router gets of a limit at least, so that it can show that more is asked for."""


def shares(limit: float, demands: Sequence[float]) -> list[float]:
    """What each router may let pass of `limit`, in the unit of the demands.

    With enough for all, each gets its demand and as much of the rest as the others. Otherwise it
    is divided by demand, so that a request has the same chance everywhere; who would get less than
    `FLOOR` gets that, and what it does not ask for stays with the others. So what passes is never
    more than `limit` as long as demands are as given, and all of it if they ask for so much.
    """
    if not demands:
        return []
    total = sum(demands)
    floor = limit * min(FLOOR, 1 / len(demands))
    if total <= limit:
        rest = (limit - total) / len(demands)
        return [max(floor, demand + rest) for demand in demands]
    left, asked = limit, total
    small: set[int] = set()
    while True:
        found = {
            index
            for index, demand in enumerate(demands)
            if index not in small and left * demand / asked < floor
        }
        if not found or len(small) + len(found) == len(demands):
            break
        small |= found
        left = limit - sum(min(demands[index], floor) for index in small)
        asked = sum(demand for index, demand in enumerate(demands) if index not in small)
    return [
        floor if index in small else left * demand / asked for index, demand in enumerate(demands)
    ]
