"""Policies with a condition: which filters run when, and what only the engine can decide."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from policy_engine.attached import Attached
from policy_engine.conditions import gates
from policy_engine.conditions.gates import Condition, published, understood
from policy_engine.conditions.names import Phase
from policy_engine.conditions.probe import ConditionProbe
from policy_engine.conditions.translation import NotNative
from policy_engine.errors import PolicyNotCompiled
from policy_engine.lua import constants, lua
from policy_engine.policy import (
    DirectAnswer,
    Document,
    Gate,
    HttpFilter,
    Policy,
    Scope,
    typed,
)

_TYPE = "type.googleapis.com/envoy.extensions.filters.http"
_HEADER_MUTATION = f"{_TYPE}.header_mutation.v3.HeaderMutation"
_LUA = f"{_TYPE}.lua.v3.Lua"
_COMPRESSOR = f"{_TYPE}.compressor.v3.Compressor"
_FILTER_STATE = "envoy.extensions.filters.http.set_filter_state.v3.Config"
_ANSWER = """\
function envoy_on_request(handle)
  local headers = {[":status"] = STATUS}
  for at, name in ipairs(NAMES) do headers[name] = VALUES[at] end
  handle:respond(headers, BODY)
end
"""


@dataclass(frozen=True, slots=True)
class Part:
    """What of a policy runs under one gate."""

    gate: Gate | None  # None: always
    phase: Phase | None  # of the policy's work; None: all of it
    probes: tuple[Attached, ...] = ()  # what the engine has to look at for the gate


def parts(one: Attached, key: str) -> tuple[Part, ...]:
    """The parts of a policy that runs in Envoy, in request order; none if it never runs.

    `key` is what the engine publishes, where it must. Raises PolicyNotCompiled.
    """
    if one.condition is None:
        return (Part(None, None),)
    condition = _understood(one.policy, one.condition)
    on_error = one.policy.purpose == "guards"
    try:
        return tuple(_native(condition, on_error=on_error))
    except NotNative:
        return tuple(_asked(condition, key, on_error=on_error))


def native_gate(one: Attached) -> Gate | None:
    """The gate of a Python policy that need not be asked when its condition does not hold.

    None where the engine has to decide: whatever speaks of phases, answers or bodies.
    """
    if one.condition is None:
        return None
    condition = _understood(one.policy, one.condition)
    if condition.of_phase or condition.of_response:
        return None
    try:
        gate = condition.gate(None, on_error=one.policy.purpose == "guards")
    except NotNative:
        return None
    return gate if isinstance(gate, Gate) else None


def speaks_to_envoy(one: Attached) -> bool:
    """Whether the condition uses names that the engine does not know."""
    if one.condition is None:
        return False
    return _understood(one.policy, one.condition).in_envoys_words()


def _understood(policy: Policy, text: str) -> Condition:
    try:
        return understood(text)
    except ValueError as error:
        raise PolicyNotCompiled(policy.name, f"executionCondition {error}") from None


def _native(condition: Condition, *, on_error: bool) -> Iterator[Part]:
    if not condition.of_phase:
        gate = condition.gate(None, on_error=on_error)
        if gate is not False:
            yield Part(None if gate is True else gate, None)
        return
    phases: tuple[Phase, ...] = ("request", "response")
    decided = [(phase, condition.gate(phase, on_error=on_error)) for phase in phases]
    for phase, gate in decided:
        if gate is not False:
            yield Part(None if gate is True else gate, phase)


def _asked(condition: Condition, key: str, *, on_error: bool) -> Iterator[Part]:
    """By the engine: for policies that guard it is asked whether they need not run."""
    text = f"!({condition.text})" if on_error else condition.text
    phases: tuple[Phase | None, ...] = (None,)
    if condition.of_phase:
        phases = ("request", "response")
    elif condition.of_response:
        phases = ("response",)
    for phase in phases:
        direction: Phase = phase or "request"
        probe = ConditionProbe(key=f"{key}.{direction}", direction=direction)
        params = probe.model_dump(by_alias=True)
        gate = published(probe.key, direction, unless=on_error)
        yield Part(gate, phase, (Attached(probe, params, condition=text),))


def conditional_filters(policy: Policy, scope: Scope) -> tuple[HttpFilter, ...]:
    """What the policy is where it does not always act. Raises PolicyNotCompiled."""
    made = policy.conditional(scope)
    if made is None:
        answer = policy.answer()
        made = policy.filters(scope)
        if answer is not None:
            made += (HttpFilter(scope.unique(f"{policy.name}.answer"), answering(answer)),)
        elif policy.redirect(scope) is not None or policy.preflights():
            raise PolicyNotCompiled(policy.name, "it cannot have an executionCondition")
    if any(one.per_route is not None for one in made):
        raise PolicyNotCompiled(policy.name, "it cannot have an executionCondition")
    return made


def behind_gates(
    parts: Iterable[Part], filters: Iterable[HttpFilter], policy: Policy
) -> tuple[HttpFilter, ...]:
    """For each part those of `filters` that work in its phase, behind its gate.

    Raises PolicyNotCompiled where the condition speaks of answers and the policy does not see them.
    """
    known, made = tuple(parts), tuple(filters)
    on_answers_only = bool(known) and all(_waits(part) for part in known)
    sees = policy.purpose == "changes" and any(_sees_answers(one.config) for one in made)
    if made and on_answers_only and not sees:
        raise PolicyNotCompiled(
            policy.name,
            "executionCondition speaks of the answer, but the policy decides about requests",
        )
    return tuple(one for part in known for one in _behind(part, made))


def _waits(part: Part) -> bool:
    if part.phase is None:
        return part.gate is not None and gates.waits_for_answer(part.gate)
    return part.phase == "response"


def _behind(part: Part, filters: Iterable[HttpFilter]) -> Iterator[HttpFilter]:
    for one in filters:
        config: Document | None = one.config
        if part.phase == "response" and not _sees_answers(one.config):
            config = None
        elif part.phase == "request":
            config = _of_requests(one.config)
        if config is not None:
            yield replace(one, config=config, when=part.gate)


def _sees_answers(config: Document) -> bool:
    match config["@type"]:
        case kind if kind == _HEADER_MUTATION:
            return "response_mutations" in config.get("mutations", {})
        case kind if kind == _LUA:
            return "envoy_on_response" in config["default_source_code"]["inline_string"]
    return False


def _of_requests(config: Document) -> Document | None:
    """`config` without its work on answers; None if nothing is left."""
    kind = config["@type"]
    if kind == _COMPRESSOR:
        return None
    if not _sees_answers(config):
        return config
    if kind == _HEADER_MUTATION:
        mutations = config["mutations"]
        kept = {key: value for key, value in mutations.items() if key != "response_mutations"}
        return config | {"mutations": kept} if kept else None
    source = config["default_source_code"]["inline_string"]
    if "envoy_on_request" not in source:
        return None
    text = f"{source}\nenvoy_on_response = nil\n"
    return config | lua(text)


def marking(key: str) -> Document:
    """A filter that makes Envoy look for the route again, among those for `key`."""
    return typed(
        _FILTER_STATE,
        {
            "on_request_headers": [
                {
                    "object_key": key,
                    "factory_key": "envoy.string",
                    "format_string": {"text_format_source": {"inline_string": "1"}},
                }
            ],
            "clear_route_cache": True,
        },
    )


def answering(answer: DirectAnswer) -> Document:
    """A filter that gives `answer`, whose headers hold no format strings but literals."""
    source = constants(
        STATUS=str(answer.status),
        NAMES=[name for name, _ in answer.headers],
        VALUES=[value.replace("%%", "%") for _, value in answer.headers],
        BODY=answer.body,
    )
    return lua(source + _ANSWER)
