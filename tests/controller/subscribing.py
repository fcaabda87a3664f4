"""Plans, subscriptions and applications made over REST, and what the gateway is told."""

from typing import Any

import httpx

from bus.events import Event, event_class
from controller.ports import Record

PLANS, SUBSCRIPTIONS, APPLICATIONS = "/subscription-plans", "/subscriptions", "/applications"
TOKEN = "token-of-a-customer"


async def created(client: httpx.AsyncClient, path: str, **body: object) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def subscribed(client: httpx.AsyncClient, **body: object) -> dict[str, Any]:
    given = {"apiId": "weather", "subscriptionToken": TOKEN, **body}
    return await created(client, SUBSCRIPTIONS, **given)


async def events(record: Record) -> list[Event]:
    found = [
        event_class(one.kind).model_validate_json(one.body) for one in await record.pending(99)
    ]
    return [one for one in found if not one.kind.startswith("rest-api")]


def faults(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 400, answer.text
    assert answer.json()["status"] == "error"
    return [one["field"] for one in answer.json()["errors"]]
