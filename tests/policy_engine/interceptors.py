"""Interceptor services, and what they were asked."""

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from tests.policy_engine.python_gateway import PythonGateway, ref
from tests.servers.http_backend import Answer, HttpBackend, Received

FAILED = {"error": "Internal Server Error", "message": "The interceptor service failed"}
Reply = dict[str, Any]


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def replying(request: Reply | None = None, response: Reply | None = None) -> Callable[..., Answer]:
    """A service with these replies."""

    def answer(asked: Received) -> Answer:
        assert asked.method == "POST"
        assert asked.header("content-type") == "application/json"
        reply = {"/v1/handle-request": request, "/v1/handle-response": response}[asked.path]
        return Answer(body=json.dumps(reply or {}).encode())

    return answer


def asked(service: HttpBackend) -> list[Reply]:
    return [json.loads(one.body) for one in service.requests]


def intercepted(service: HttpBackend, **params: Any) -> Any:
    return ref("interceptor-service", endpoint=f"{service.url}/v1/", **params)


def received(running: PythonGateway) -> Received:
    return running.backend.last
