"""Hooks in their order: what they say, what it means, and what becomes of those that fail."""

import re
from collections.abc import Awaitable, Generator, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import orjson

from policy_engine import refusals
from policy_engine.conditions.evaluation import ConditionFailed
from policy_engine.engine.errors import Benched, Nonsense, TooSlow
from policy_engine.engine.exchange import LiveExchange
from policy_engine.engine.messages import Kind, SavedHeaders
from policy_engine.engine.program import Part, Program, Turn
from policy_engine.engine.runtime import Runtime
from policy_engine.hooks import Answer, UnknownUpstream

ENGINE: Final = "engine"
"""Who answers when it is no policy, in the response code details."""

_JSON: Final = (("content-type", "application/json"),)


def _refusal(status: int, error: str, message: str) -> Answer:
    return Answer(status, orjson.dumps({"error": error, "message": message}), _JSON)


UNAVAILABLE: Final = _refusal(503, *refusals.UNAVAILABLE)
UPGRADE_REFUSED: Final = _refusal(
    403, "Forbidden", "Upgrades such as WebSocket have no body that the policies here could see"
)
TOO_LONG_REQUEST: Final = _refusal(413, "Content Too Large", "The request body is too large")
TOO_LONG_ANSWER: Final = _refusal(502, *refusals.TOO_LONG_ANSWER)

UNKNOWN_UPSTREAM: Final = _refusal(502, *refusals.UNKNOWN_UPSTREAM)

_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(slots=True)
class Given:
    """An answer instead of the upstream's."""

    answer: Answer
    by: str  # the policy
    position: int  # of the policy in its hop: those before it see the answer
    failed: bool = False  # the policy has failed, and is closed
    in_body: bool = False  # the headers' hooks have run before it


Awaited = tuple[Awaitable[Any], float]
Outcome = tuple[Given | None, bytes | None]


class Running:
    """The policies of one hop, for one request."""

    __slots__ = ("exchange", "program", "request_body", "response_body", "runtime", "shadow")

    def __init__(self, runtime: Runtime, program: Program, exchange: LiveExchange) -> None:
        self.runtime = runtime
        self.program = program
        self.exchange = exchange
        self.shadow: dict[str, str] = {}  # policy -> why it would have refused
        self.request_body = b""  # for conditions
        self.response_body = b""  # for conditions

    def turns(  # noqa: PLR0912, PLR0915 - one loop: each call costs every request
        self, turns: Iterable[Turn], body: bytes, *, last: bool
    ) -> Generator[Awaited, Any, Outcome]:
        """Run the hooks; what one of them answers, or the body if it has changed."""
        exchange, marks = self.exchange, self.runtime.marks
        changed: bytes | None = None
        for turn in turns:
            step, part = turn.step, turn.part
            view = exchange
            saved: _Saved | None = None
            if step.shadow:
                view = exchange.copy()
            elif step.opens:
                saved = self._saved()
            marks.set(step.mark)
            started = perf_counter()
            try:
                if step.benched:
                    raise Benched("it has ended its worker, and rests")  # noqa: TRY301
                if step.condition is not None and not self._holds(turn, body):
                    turn.figures.skipped += 1
                    continue
                if part == "headers":
                    verdict = turn.hook(view)
                elif part == "body":
                    verdict = turn.hook(view, body)
                else:
                    verdict = turn.hook(view, body, last=last)
                if verdict is not None:
                    if hasattr(verdict, "__await__"):
                        marks.clear()
                        verdict = yield verdict, step.timeout_s
                    if verdict is not None:
                        _check(verdict, part)
                took_s = perf_counter() - started
                if took_s > step.timeout_s:
                    raise TooSlow(step.timeout_s)  # noqa: TRY301
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - a policy may raise anything
                given = self._failed(turn, error, saved)
                if given is not None:
                    return given, None
                continue
            finally:
                marks.clear()
            turn.figures.durations.add(took_s)
            if verdict is None:
                continue
            if step.shadow:
                if type(verdict) is not bytes:
                    self._would_have(turn, verdict)
            elif type(verdict) is bytes:
                body = changed = verdict
                if not body and not last:
                    break  # held back: nothing for those that come after
            else:
                turn.figures.answered += 1
                return Given(verdict, step.name, step.position, in_body=part != "headers"), None
        return None, changed

    def way_back(
        self, given: Given, kind: Kind
    ) -> Generator[Awaited, Any, tuple[int, list[tuple[str, str]], bytes, str]]:
        """Status, headers and body of an answer when the policies before have seen it, and whose.

        On the way to the upstream, and where only headers have come back, the policies before have
        not seen an answer yet; amid the body their edits of the headers stay.
        """
        exchange, side = self.exchange, self.program.response
        headers_seen = kind.startswith("response") and given.in_body
        while True:
            answer, position = given.answer, given.position
            response = exchange.answered_by(answer, keep_edits=headers_seen)
            body = answer.body
            again: Given | None = None
            if not headers_seen:
                again, _ = yield from self.turns(_before(side.headers, position), b"", last=True)
            if again is None:
                headers_seen = True
                self.response_body = body
                again, made = yield from self.turns(_before(side.body, position), body, last=True)
                body = body if made is None else made
            if again is None:
                pairs = [(name, value) for name, value in response.headers.items()]
                return response.status, pairs, body, given.by
            given = again

    # -- one turn ---------------------------------------------------------------------------------

    def _holds(self, turn: Turn, body: bytes) -> bool:
        """Whether the policy's condition holds.

        Where it has no truth, a policy that guards runs, and any other does not: as in Envoy.
        """
        step, exchange = turn.step, self.exchange
        assert step.condition is not None
        try:
            if turn.phase.startswith("request"):
                return step.condition.holds(exchange, "request", body or self.request_body)
            answer = body or self.response_body
            return step.condition.holds(exchange, "response", self.request_body, answer)
        except ConditionFailed as error:
            runs = step.policy.purpose == "guards"
            self._count(turn, error, "runs" if runs else "skipped")
            return runs

    def _saved(self) -> "_Saved":
        exchange = self.exchange
        response = exchange.response
        return (
            exchange.request.headers.saved(),
            None if response is None else response.headers.saved(),
            dict(exchange.published),
            exchange.upstream,
        )

    def _failed(self, turn: Turn, error: BaseException, saved: "_Saved | None") -> Given | None:
        """What becomes of the request: it goes on without the policy's edits, or not at all."""
        step = turn.step
        if isinstance(error, UnknownUpstream):
            saved = None  # it is not meant for where it would go
        mode = "shadow" if step.shadow else "closed" if saved is None else "open"
        self._count(turn, error, mode)
        if step.shadow:
            return None
        if saved is None:
            unknown = isinstance(error, UnknownUpstream)
            return Given(
                UNKNOWN_UPSTREAM if unknown else UNAVAILABLE,
                step.name,
                step.position,
                failed=True,
                in_body=turn.part != "headers",
            )
        exchange = self.exchange
        exchange.request.headers.restore(saved[0])
        if exchange.response is not None and saved[1] is not None:
            exchange.response.headers.restore(saved[1])
        exchange.published = saved[2]
        exchange.upstream = saved[3]
        return None

    def _count(self, turn: Turn, error: BaseException, mode: str) -> None:
        place, name = self.program.place, turn.step.name
        kind = self.runtime.failures.note(place, name, turn.phase, mode, error)
        turn.figures.errors[kind] = turn.figures.errors.get(kind, 0) + 1
        if kind == "memory":
            self.runtime.greedy = turn.step.mark

    def _would_have(self, turn: Turn, answer: Answer) -> None:
        """The policy is in shadow mode: its answer is only told."""
        turn.figures.would_have += 1
        self.shadow[turn.step.name] = answer.reason or f"status {answer.status}"


_Saved = tuple[SavedHeaders, SavedHeaders | None, dict[str, Any], str | None]


def _before(turns: Iterable[Turn], position: int) -> list[Turn]:
    return [turn for turn in turns if turn.step.position < position]


def _check(verdict: object, part: Part) -> None:
    """Raises Nonsense when no hook of this part may say this."""
    if type(verdict) is bytes:
        if part == "headers":
            raise Nonsense("bytes, where there is no body to replace")
        return
    if not isinstance(verdict, Answer):
        raise Nonsense(f"{type(verdict).__name__}, which is no verdict")
    if type(verdict.status) is not int or not 200 <= verdict.status <= 599:
        raise Nonsense(f"an answer with status {verdict.status!r}")
    if type(verdict.body) is not bytes:
        raise Nonsense(f"an answer whose body is {type(verdict.body).__name__}, not bytes")
    for pair in verdict.headers:
        if not _is_header(pair):
            raise Nonsense(f"an answer with the header {pair!r}")


def _is_header(pair: object) -> bool:
    return (
        isinstance(pair, tuple)
        and len(pair) == 2
        and all(isinstance(one, str) for one in pair)
        and _NAME.fullmatch(pair[0]) is not None
        and _UNPRINTABLE.search(pair[1]) is None
    )
