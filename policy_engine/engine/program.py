"""A hop, ready to run: which hook of which policy comes in each phase.

Policies run in their written order on the way to the upstream and in reverse on the way back.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from policy_engine.catalogue import Catalogue
from policy_engine.conditions.evaluation import Condition, Direction, condition
from policy_engine.conditions.probe import ConditionProbe
from policy_engine.engine.errors import HopNotLoaded
from policy_engine.engine.figures import Figures, PolicyFigures
from policy_engine.errors import PolicyError
from policy_engine.hooks import Phase, Place, PythonPolicy
from policy_engine.hop import BodySendMode, Hop, HopPolicy

BodyMode = Literal["none", "whole", "chunks", "either"]
Part = Literal["headers", "body", "chunk"]

_NUMBERS: Final = {name: number for number, name in enumerate(get_args(BodySendMode))}
_STREAMED: Final = _NUMBERS["STREAMED"]
_BUFFERED_PARTIAL: Final = _NUMBERS["BUFFERED_PARTIAL"]

MARK_BYTES: Final = 96
"""Length of a policy's mark: the hop's name and the policy's, see `policy_engine.engine.marks`."""


@dataclass(slots=True, eq=False)
class Step:
    """One policy of a hop."""

    policy: PythonPolicy
    position: int  # in the hop
    shadow: bool
    opens: bool  # whether requests pass when it fails
    timeout_s: float
    condition: Condition | None
    mark: bytes
    benched: bool = False  # it has killed workers: its failure mode holds without running it

    @property
    def name(self) -> str:
        """The policy's."""
        return self.policy.name


@dataclass(slots=True, eq=False)
class Turn:
    """One hook of one policy."""

    step: Step
    phase: Phase
    part: Part
    hook: Any  # the bound method
    figures: PolicyFigures
    plain: bool  # neither condition nor shadow


@dataclass(slots=True, eq=False)
class Side:
    """What happens in one direction."""

    headers: tuple[Turn, ...] = ()
    body: tuple[Turn, ...] = ()  # when the whole body is there
    chunks: tuple[Turn, ...] = ()  # for each chunk
    mode: BodyMode = "none"
    only_looks: bool = False  # whether no chunk can become another

    @property
    def idle(self) -> bool:
        """Whether nothing happens."""
        return not self.headers and self.mode == "none"


@dataclass(slots=True, eq=False)
class Program:
    """A hop whose policies are made."""

    name: str
    hop: Hop
    place: Place
    steps: tuple[Step, ...] = ()
    request: Side = field(default_factory=Side)
    response: Side = field(default_factory=Side)
    modes: Mapping[str, int] = field(default_factory=dict)  # as `ext_proc` sets them
    keeps_request_body: bool = False  # a condition speaks of it in the response's phases
    broken: str = ""  # why it cannot run at all

    def override(self, direction: Direction, *, chunked: bool) -> Mapping[str, int] | None:
        """What Envoy has to change of how it sends the body; None: nothing."""
        named = f"{direction}_body_mode"
        if not chunked or self.modes[named] == _STREAMED:
            return None
        return {**self.modes, named: _STREAMED}

    def gets_parts(self, direction: Direction) -> bool:
        """Whether Envoy sends the beginning of a body that is too long for it."""
        return self.modes[f"{direction}_body_mode"] == _BUFFERED_PARTIAL

    @property
    def waits_for_bodies(self) -> bool:
        """Whether a policy wants a whole body, or a chance to refuse what is in it."""
        return any(
            one.mode != "none" and not (one.mode == "chunks" and one.only_looks)
            for one in (self.request, self.response)
        )

    @property
    def opens(self) -> bool:
        """Whether requests pass when the hop as a whole fails."""
        return self.hop.fails_open

    @property
    def reads_metadata(self) -> bool:
        """Whether its policies ask for what filters before wrote."""
        return bool(self.hop.namespaces)


def load(hop: Hop, catalogue: Catalogue, figures: Figures) -> Program:
    """`hop` with its policies made. Raises HopNotLoaded."""
    name = hop.name
    steps = tuple(
        _step(position, one, catalogue, name) for position, one in enumerate(hop.policies)
    )
    conditions = [step.condition for step in steps if step.condition is not None]
    return Program(
        name=name,
        hop=hop,
        place=hop.place,
        steps=steps,
        request=_side(steps, "request", figures),
        response=_side(tuple(reversed(steps)), "response", figures),
        modes={
            "request_body_mode": _NUMBERS[hop.body_mode("request")],
            "response_body_mode": _NUMBERS[hop.body_mode("response")],
        },
        keeps_request_body=any(one.needs_request_body for one in conditions),
    )


def broken(hop: Hop, reason: str) -> Program:
    """`hop` that cannot run: it fails as declared."""
    return Program(name=hop.name, hop=hop, place=hop.place, broken=reason)


def _step(position: int, one: HopPolicy, catalogue: Catalogue, hop_name: str) -> Step:
    policy = _made(one, catalogue)
    try:
        when = None if one.condition is None else condition(one.condition)
    except ValueError as error:
        raise HopNotLoaded(one.name, f"executionCondition {error}") from error
    mark = f"{hop_name} {one.name}".encode()[: MARK_BYTES - 1].ljust(MARK_BYTES, b"\n")
    return Step(
        policy=policy,
        position=position,
        shadow=one.mode == "shadow",
        opens=one.failure_mode == "open",
        timeout_s=one.timeout_s,
        condition=when,
        mark=mark,
    )


def _made(one: HopPolicy, catalogue: Catalogue) -> PythonPolicy:
    if one.name == ConditionProbe.name:
        return ConditionProbe.model_validate(one.params)
    try:
        return catalogue.remake(one)
    except PolicyError as error:
        raise HopNotLoaded(one.name, str(error)) from error


def _side(steps: Iterable[Step], direction: Direction, figures: Figures) -> Side:
    headers: list[Turn] = []
    body: list[Turn] = []
    chunks: list[Turn] = []
    whole_only = chunk_hooks = body_hooks = False

    def turn(step: Step, part: Part) -> Turn:
        phase: Phase = f"{direction}_{part}"  # type: ignore[assignment]  # one of PHASES
        plain = step.condition is None and not step.shadow
        hook = getattr(step.policy, f"on_{phase}")
        return Turn(step, phase, part, hook, figures.of(step.name, phase), plain)

    for step in steps:
        phases = step.policy.phases()
        has = {part for part in ("headers", "body", "chunk") if f"{direction}_{part}" in phases}
        waits = has and _waits(step.condition, direction)
        if "headers" in has:
            (body if waits else headers).append(turn(step, "headers"))
        if "body" in has:
            body.append(turn(step, "body"))
        elif "chunk" in has:
            body.append(turn(step, "chunk"))
        if "chunk" in has:
            chunks.append(turn(step, "chunk"))
        body_hooks = body_hooks or "body" in has
        chunk_hooks = chunk_hooks or "chunk" in has
        whole_only = whole_only or bool(waits) or ("body" in has and "chunk" not in has)
        if direction == "request" and step.condition is not None:
            # it may be asked again on the way back: the body must have been seen whole
            whole_only = whole_only or step.condition.needs_request_body
    mode: BodyMode = "none"
    if whole_only:
        mode = "whole"
    elif body_hooks:
        mode = "either"
    elif chunk_hooks:
        mode = "chunks"
    only_looks = all(turn.step.policy.only_looks for turn in chunks)
    return Side(tuple(headers), tuple(body), tuple(chunks), mode, only_looks)


def _waits(when: Condition | None, direction: Direction) -> bool:
    """Whether the condition can be evaluated only when the body of this direction is there."""
    if when is None:
        return False
    return when.needs_request_body if direction == "request" else when.needs_response_body
