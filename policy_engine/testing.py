"""A kit to test Python policies: the engine itself runs them, without Envoy and without sockets.

    outcome = simulate(Shout(word="hey"), request=Asked("GET", "/a"), answer=Answer(200, b"hi"))
    assert outcome.body == b"HI"

The kit plays Envoy: it sends the messages that Envoy would, in its order, and does what the engine
says. `compose.policy_kit.with_envoy` does the same with Envoy itself.
"""
# ruff: noqa: ANN401 - upb messages have no static type

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic_core import to_jsonable_python

from policy_engine.attached import Attached
from policy_engine.catalogue import Catalogue, policies_of
from policy_engine.chain import failure_mode, hop_of
from policy_engine.engine.runtime import Runtime
from policy_engine.hooks import (
    Answer,
    Fetched,
    FetchFailed,
    Outside,
    PythonPolicy,
)
from policy_engine.loading.sources import read
from policy_engine.policy import Policy, Scope
from policy_engine.simulation import Asked, Outcome, Play
from policy_engine.system import SystemParameters

__all__ = [
    "Answer",
    "Asked",
    "Attached",
    "Fetched",
    "Outcome",
    "Servers",
    "load_policy",
    "simulate",
    "simulated",
    "written",
]

_DEADLINE_S = 60.0


class Servers:
    """An outside with these servers and no others: `"GET https://a.example/x"` -> its answer."""

    def __init__(self, answers: Mapping[str, Fetched] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[tuple[str, str, bytes]] = []  # method, URL, body

    async def fetch(self, method: str, url: str, *, body: bytes = b"", **_: Any) -> Fetched:
        """See `policy_engine.hooks.Outside`."""
        self.asked.append((method, url, body))
        try:
            return self.answers[f"{method} {url}"]
        except KeyError:
            raise FetchFailed(f"{method} {url} is not among the servers of the test") from None

    async def resolves(self, host: str, timeout_s: float) -> bool:
        """Whether one of the servers is called so."""
        del timeout_s
        return any(f"://{host}" in one for one in self.answers)


def load_policy(test: str | Path, file: str) -> type[Any]:
    """The first policy of `file` beside the test file `test`, loaded as the gateway does.

    Raises SourceUnusable, and whatever the file raises.
    """
    path = Path(test).parent / file
    return policies_of(read(path.stem, path))[0]


def written(policy: Policy, **more: Any) -> Attached:
    """`policy` as it stands in a document; `more`: condition, mode, failure_mode, timeout_s."""
    return Attached(policy, _params(policy), **more)


def simulate(
    *policies: PythonPolicy | Attached,
    request: Asked | None = None,
    body: bytes | Sequence[bytes] = b"",
    answer: Answer | Callable[[Asked], Answer] | None = None,
    answer_chunks: Sequence[bytes] | None = None,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    outside: Outside | None = None,
    system: SystemParameters | None = None,
    max_body_bytes: int = 1 << 20,
    max_answer_bytes: int = 4 << 20,
    upstreams: Sequence[str] = (),
) -> Outcome:
    """What becomes of `request` with `policies` in this order; see `simulated`."""
    return asyncio.run(
        simulated(
            *policies,
            request=request,
            body=body,
            answer=answer,
            answer_chunks=answer_chunks,
            metadata=metadata,
            outside=outside,
            system=system,
            max_body_bytes=max_body_bytes,
            max_answer_bytes=max_answer_bytes,
            upstreams=upstreams,
        )
    )


async def simulated(
    *policies: PythonPolicy | Attached,
    request: Asked | None = None,
    body: bytes | Sequence[bytes] = b"",
    answer: Answer | Callable[[Asked], Answer] | None = None,
    answer_chunks: Sequence[bytes] | None = None,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    outside: Outside | None = None,
    system: SystemParameters | None = None,
    max_body_bytes: int = 1 << 20,
    max_answer_bytes: int = 4 << 20,
    upstreams: Sequence[str] = (),
) -> Outcome:
    """`simulate` for tests that are coroutines.

    `body`: of the request, several parts where it comes in chunks. `answer`: of the upstream, 200
    without a body by default; `answer_chunks`: its body in parts. `metadata`: what filters before
    wrote. `outside`: what policies can ask; nothing by default. `upstreams`: names of the API's
    upstream definitions.

    Raises TypeError for policies that do not run in Python, PolicyNotCompiled.
    """
    attached = [one if isinstance(one, Attached) else written(one) for one in policies]
    native = [one.policy.name for one in attached if not isinstance(one.policy, PythonPolicy)]
    if native:
        raise TypeError(f"{native[0]} runs in Envoy: try it with compose.policy_kit.with_envoy")
    catalogue = Catalogue({type(one.policy) for one in attached}, system=system)
    scope = Scope("api", "tested", "Tested", "v1.0", "/", system=catalogue.system)
    scope.upstreams = tuple(upstreams)
    scope.attached = tuple(one.policy.name for one in attached)
    # the engine decides all conditions here, also those that Envoy would
    alike = (tuple(group) for _, group in groupby(attached, failure_mode))
    hops = [hop for hop in (hop_of(group, scope) for group in alike) if hop.phases]
    runtime = Runtime(
        catalogue,
        outside or Servers(),
        max_body_bytes=max_body_bytes,
        max_answer_bytes=max_answer_bytes,
    )
    runtime.learn({hop.name: hop.document() for hop in hops})
    asked = request or Asked()
    parts = [body] if isinstance(body, bytes) else list(body)
    if not any(parts) and asked.body:
        parts = [asked.body]
    try:
        async with asyncio.timeout(_DEADLINE_S):
            play = Play(runtime, hops, dict(metadata or {}))
            return await play.run(asked, [one for one in parts if one], answer, answer_chunks)
    finally:
        await runtime.close()


def _params(policy: Policy) -> dict[str, Any]:
    """As written in a document, secrets in clear."""
    plain: dict[str, Any] = to_jsonable_python(
        _revealed(policy.model_dump(by_alias=True, exclude_unset=True))
    )
    return plain


def _revealed(value: Any) -> Any:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case dict():
            return {key: _revealed(one) for key, one in value.items()}
        case list() | tuple():
            return [_revealed(one) for one in value]
        case _:
            return value
