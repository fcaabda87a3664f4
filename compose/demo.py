"""The sample API of `signalbox up --demo`, put through the management API as a user would."""

import asyncio
from typing import Any

import httpx
import structlog

from bus.resources.document import API_VERSION
from compose.settings import Settings

log = structlog.get_logger()

HANDLE = "hello"
_BASE = "/api/management/v1/rest-apis"
_RETRY_S = 0.1


def sample_api(backend_port: int) -> dict[str, Any]:
    """Hello: greetings, a weather forecast, slow answers and chosen statuses."""
    return {
        "apiVersion": API_VERSION,
        "kind": "RestApi",
        "metadata": {"name": HANDLE},
        "spec": {
            "displayName": "Hello",
            "version": "v1.0",
            "context": "/hello/v1",
            "upstream": {"main": {"url": f"http://127.0.0.1:{backend_port}"}},
            "operations": [
                {"method": "GET", "path": "/greetings/{name}"},
                {"method": "GET", "path": "/weather/{city}"},
                {"method": "GET", "path": "/slow"},
                {"method": "GET", "path": "/status/{code}"},
                {"method": "POST", "path": "/echo"},
            ],
        },
    }


async def publish(settings: Settings) -> None:
    """Create the sample API, or point it to where the backend is now. Returns when it is kept.

    One that the user has changed is left alone, apart from the backend's port.
    """
    controller = settings.controller
    password = controller.admin_password
    url = f"http://127.0.0.1:{controller.management_port}"
    async with httpx.AsyncClient(
        base_url=url,
        auth=(controller.admin_user, password.get_secret_value() if password else ""),
        trust_env=False,
    ) as client:
        while True:
            try:
                answer = await _put(client, sample_api(settings.gateway.demo_port))
            except httpx.TransportError as error:
                log.debug("the sample api waits for the management api", reason=str(error))
            else:
                if not answer.is_server_error:
                    break
            await asyncio.sleep(_RETRY_S)
    if answer.is_error:
        log.error("the sample api was refused", status=answer.status_code, answer=answer.text)
    else:
        log.info("the sample api is published", handle=HANDLE)


async def _put(client: httpx.AsyncClient, sample: dict[str, Any]) -> httpx.Response:
    kept = await client.get(f"{_BASE}/{HANDLE}")
    if kept.status_code == httpx.codes.NOT_FOUND:
        return await client.post(_BASE, json=sample)
    if kept.is_error:
        return kept
    document = kept.json()
    document.pop("status", None)
    upstream = document["spec"]["upstream"]["main"]
    if upstream == sample["spec"]["upstream"]["main"]:
        return kept
    if not upstream.get("url", "").startswith("http://127.0.0.1:"):
        return kept  # the user's own
    document["spec"]["upstream"]["main"] = sample["spec"]["upstream"]["main"]
    return await client.put(f"{_BASE}/{HANDLE}", json=document)
