"""All policies of one attachment, compiled: in written order, Python neighbours in one hop.

What has a condition stands behind a gate: filters run only where it holds, and where requests go
is decided by the route that Envoy looks for again behind it (`Step.way`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from policy_engine.attached import Attached
from policy_engine.conditions.conditional import (
    Part,
    behind_gates,
    conditional_filters,
    marking,
    native_gate,
    parts,
    speaks_to_envoy,
)
from policy_engine.conditions.evaluation import condition
from policy_engine.errors import PolicyError, PolicyNotCompiled
from policy_engine.hooks import Phase, Place, PythonPolicy
from policy_engine.hop import Hop, HopPolicy
from policy_engine.policy import (
    Connections,
    DirectAnswer,
    Document,
    FailureMode,
    Gate,
    HttpFilter,
    OwnPath,
    Policy,
    Preflight,
    Redirect,
    Routing,
    Scope,
    Secret,
    Service,
)

WAYS_MAX = 4
"""How many conditions may decide where one request goes: each doubles the routes."""

_BODIES: dict[Phase, Phase] = {
    "request_body": "request_chunk",
    "response_body": "response_chunk",
}
_WAY = ".way"  # how the names of filters end that decide where requests go
_NOT_FOUND = DirectAnswer(
    404,
    '{"error":"Not Found","message":"No API operation matches this request"}',
    (("content-type", "application/json"),),
)


@dataclass(frozen=True, slots=True)
class Step:
    """What one policy says of where requests go."""

    way: str | None  # filter state that is set where the policy's condition held; None: always
    routing: Routing
    route_fields: Document
    connections: Connections

    def then(self, later: "Step") -> "Step":
        """Both, `later` with the last word."""
        return Step(
            self.way,
            self.routing.then(later.routing),
            self.route_fields | later.route_fields,
            self.connections.then(later.connections),
        )

    @property
    def empty(self) -> bool:
        """Whether it says nothing but what becomes of single requests: path, upstream."""
        quiet = replace(self.routing, moves_path=False, choosable=False) == Routing()
        return quiet and not self.route_fields and self.connections == Connections()


@dataclass(frozen=True, slots=True)
class Chain:
    """All policies of one attachment, compiled."""

    filters: tuple[HttpFilter, ...] = ()
    answer: DirectAnswer | Redirect | None = None
    """Set: the chain ends here, lower levels do not run."""
    answering: tuple[HttpFilter, ...] = ()
    """What gives `answer` as a filter, for routes that have to go on to an upstream."""
    preflights: tuple[tuple[Preflight, tuple[HttpFilter, ...]], ...] = ()
    """Each preflight with the filters that stand before its policy, without those that count."""
    steps: tuple[Step, ...] = ()
    services: tuple[Service, ...] = ()
    secrets: tuple[Secret, ...] = ()
    own_paths: tuple[tuple[OwnPath, tuple[HttpFilter, ...]], ...] = ()
    """Each with the filters up to and with those of its policy."""
    hops: tuple[Hop, ...] = ()  # of the Python policies among them
    silenced: frozenset[str] = frozenset()
    """Response headers that only the gateway may say, lower-case."""

    @property
    def ways(self) -> tuple[str, ...]:
        """The conditions that decide where requests go, each once."""
        return tuple(dict.fromkeys(one.way for one in self.steps if one.way is not None))

    def taken(self, ways: Iterable[str] = ()) -> Step:
        """Where requests go for which the conditions of `ways` held; later policies win."""
        held = frozenset(ways)
        taken = Step(None, Routing(), {}, Connections())
        for one in self.steps:
            if one.way is None or one.way in held:
                taken = taken.then(one)
        moves = any(one.routing.moves_path for one in self.steps)
        return replace(taken, routing=replace(taken.routing, moves_path=moves))

    @property
    def choosable(self) -> bool:
        """Whether one of its policies may choose the upstream, request by request."""
        return any(one.routing.choosable for one in self.steps)

    @property
    def routing(self) -> Routing:
        """Where requests go as long as no condition holds."""
        return self.taken().routing

    @property
    def route_fields(self) -> Document:
        """Fields of Envoy's `RouteAction` as long as no condition holds."""
        return self.taken().route_fields

    @property
    def connections(self) -> Connections:
        """What is asked of connections as long as no condition holds."""
        return self.taken().connections


def compile_chain(policies: Iterable[Policy | Attached], scope: Scope) -> Chain:
    """The chain of `policies` in written order. Raises PolicyNotCompiled."""
    attached = tuple(
        one if isinstance(one, Attached) else Attached(one, _as_written(one)) for one in policies
    )
    scope.attached = tuple(one.policy.name for one in attached)
    chain = Chain()
    for run in _runs(attached, scope):
        name = run.attached[-1].policy.name
        try:
            chain = _with_hop(chain, run, scope) if run.python else _with_native(chain, run, scope)
        except PolicyError:
            raise
        except Exception as error:  # an installed policy may raise anything
            reason = f"the policy itself failed: {type(error).__name__}: {error}"
            raise PolicyNotCompiled(name, reason) from error
        if chain.answer is not None:
            break
    return chain


def _as_written(policy: Policy) -> Document:
    return policy.model_dump(mode="json", by_alias=True, exclude_unset=True)


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbours that compile together: Python policies, or one part of a native one."""

    attached: tuple[Attached, ...]
    python: bool = False
    gate: Gate | None = None
    parts: tuple[Part, ...] = ()  # of the native policy


def _runs(attached: tuple[Attached, ...], scope: Scope) -> Iterator[_Run]:
    """Native policies one by one, Python neighbours that fail alike together."""

    def alike(item: Attached | _Run) -> FailureMode | None:
        return failure_mode(item) if isinstance(item, Attached) else None

    for mode, group in groupby(_unfolded(attached, scope), alike):
        if mode is None:
            yield from (one for one in group if isinstance(one, _Run))
        else:
            yield from _hops(tuple(one for one in group if isinstance(one, Attached)))


def _unfolded(attached: tuple[Attached, ...], scope: Scope) -> Iterator[Attached | _Run]:
    """Python policies, those that look at conditions for native ones among them."""
    for number, one in enumerate(attached):
        if isinstance(one.policy, PythonPolicy):
            yield one
            continue
        made = parts(one, f"condition.{scope.level}.{number}")
        before = [part for part in made if part.phase != "response"]
        yield from (probe for part in before for probe in part.probes)
        yield _Run((one,), parts=made)
        yield from (probe for part in made if part not in before for probe in part.probes)


def _hops(neighbours: tuple[Attached, ...]) -> Iterator[_Run]:
    """One hop, behind a gate if all have the same; apart only what Envoy alone can decide."""
    found = [native_gate(one) for one in neighbours]
    if len(set(found)) == 1 or any(speaks_to_envoy(one) for one in neighbours):
        for gate, group in groupby(zip(found, neighbours, strict=True), lambda pair: pair[0]):
            members = tuple(one for _, one in group)
            if gate is not None:
                members = tuple(replace(one, condition=None) for one in members)
            yield _Run(members, python=True, gate=gate)
    else:
        yield _Run(neighbours, python=True)


def needs_engine(one: Attached) -> bool:
    """Whether requests call the engine because of the policy. Raises PolicyNotCompiled."""
    if isinstance(one.policy, PythonPolicy):
        return bool(one.policy.phases() | _phases_of_condition(one))
    return any(part.probes for part in parts(one, ""))


def failure_mode(one: Attached) -> FailureMode:
    """What becomes of requests when the Python policy fails: authentication is always closed."""
    if not isinstance(one.policy, PythonPolicy) or one.policy.authenticates:
        return "closed"
    return one.failure_mode or one.policy.failure_mode


def hop_of(attached: Iterable[Attached], scope: Scope) -> Hop:
    """Python neighbours as the engine runs them."""
    policies: list[HopPolicy] = []
    phases: set[Phase] = set()
    never: set[Phase] = set()  # chunks, because one of the policies needs the whole
    namespaces: list[str] = []
    known = tuple(attached)
    for one in known:
        policy = one.policy
        if not isinstance(policy, PythonPolicy):
            raise PolicyNotCompiled(policy.name, "does not run in Python")
        policy.check(scope)
        own, asked = policy.phases(), _phases_of_condition(one)
        phases |= own | asked
        never |= {
            chunk
            for body, chunk in _BODIES.items()
            if body in asked or (body in own and chunk not in own)
        }
        namespaces += policy.namespaces
        policies.append(
            HopPolicy(
                name=policy.name,
                version=str(policy.version),
                params=one.params,
                condition=one.condition,
                mode=one.mode,
                failure_mode=failure_mode(one),
                timeout_s=(
                    policy.patience_s(scope.system) if one.timeout_s is None else one.timeout_s
                ),
                source=type(policy).source,
            )
        )
    chooses = any(one.policy.routing().choosable for one in known)
    place = Place(
        level=scope.level,
        api_id=scope.api_id,
        api_name=scope.api_name,
        api_version=scope.api_version,
        context=scope.context,
        operation_method=scope.operation_method,
        operation_path=scope.operation_path,
        upstreams=scope.upstreams if chooses else (),
    )
    return Hop(place, tuple(policies), frozenset(phases - never), tuple(dict.fromkeys(namespaces)))


def _phases_of_condition(one: Attached) -> frozenset[Phase]:
    """The bodies that must be there to evaluate the condition where the policy takes part."""
    policy = one.policy
    if one.condition is None or not isinstance(policy, PythonPolicy):
        return frozenset()
    try:
        when = condition(one.condition)
    except ValueError as error:
        raise PolicyNotCompiled(policy.name, f"executionCondition {error}") from None
    needed: set[Phase] = set()
    if when.needs_request_body:
        needed.add("request_body")
    if when.needs_response_body and any(one.startswith("response") for one in policy.phases()):
        needed.add("response_body")
    return frozenset(needed)


def _with_hop(chain: Chain, run: _Run, scope: Scope) -> Chain:
    hop = hop_of(run.attached, scope)
    filters: tuple[HttpFilter, ...] = ()
    if hop.phases:
        filters = (replace(hop.filter(scope), when=run.gate),)
        chain = replace(chain, hops=(*chain.hops, hop))
    before = chain.filters
    for one in run.attached:
        conditional = run.gate is not None or one.condition is not None
        if conditional and not _step(one.policy, scope, None).empty:
            raise PolicyNotCompiled(one.policy.name, "it cannot have an executionCondition")
        chain = _with_policy(chain, one.policy, scope, before, filters, way=None)
    return replace(chain, filters=before + filters)


def _with_native(chain: Chain, run: _Run, scope: Scope) -> Chain:
    (one,) = run.attached
    policy, before = one.policy, chain.filters
    always = run.parts == (Part(None, None),)
    if one.mode == "shadow":
        made = policy.shadow(scope)
    else:
        made = policy.filters(scope) if always else conditional_filters(policy, scope)
    if policy.counts:
        made = tuple(replace(each, counts=True) for each in made)
    filters = made if always else behind_gates(run.parts, made, policy)
    met = uncounted(before)
    if one.mode == "shadow":
        return replace(
            chain,
            filters=before + filters,
            services=chain.services + policy.services(scope),
            secrets=chain.secrets + policy.secrets(scope),
        )
    way: str | None = None
    if not run.parts:
        return chain
    if not always and not _step(policy, scope, None).empty:
        way = None if filters else _way_before(chain, run.parts)
        if way is None:
            way = f"signalbox.way.{scope.level}.{len(chain.steps)}"
            for_route = HttpFilter(scope.unique(f"{policy.name}{_WAY}"), marking(way))
            filters += behind_gates(run.parts, (for_route,), policy)
    if always:
        answer = policy.answer() or policy.redirect(scope)
        answering = conditional_filters(policy, scope) if answer is not None else ()
        chain = replace(chain, answer=answer, answering=answering)
        preflights = tuple((each, met) for each in policy.preflights())
    else:
        preflights = tuple((each, met + filters) for each in _asked_for(policy))
    chain = replace(chain, preflights=chain.preflights + preflights)
    chain = _with_policy(chain, policy, scope, before, filters, way=way)
    return replace(chain, filters=before + filters)


def uncounted(
    filters: tuple[HttpFilter, ...], behind: tuple[HttpFilter, ...] = ()
) -> tuple[HttpFilter, ...]:
    """Those that preflights meet which the gateway answers: they are no requests to the API.

    What counts stays where they meet something else behind it, or `behind` all: who verifies
    callers must not be asked more often by preflights than by requests.
    """
    met: list[HttpFilter] = []
    guarded = any(not one.counts for one in behind)
    for one in reversed(filters):
        guarded = guarded or not one.counts
        if guarded:
            met.append(one)
    return tuple(reversed(met))


def _way_before(chain: Chain, parts: tuple[Part, ...]) -> str | None:
    """The way of the policy before, if nothing but the same condition is between."""
    if not chain.filters or not chain.filters[-1].name.endswith(_WAY):
        return None
    same = [part.gate for part in parts] == [chain.filters[-1].when]
    return chain.steps[-1].way if same else None


def _with_policy(
    chain: Chain,
    policy: Policy,
    scope: Scope,
    before: tuple[HttpFilter, ...],
    filters: tuple[HttpFilter, ...],
    *,
    way: str | None,
) -> Chain:
    return replace(
        chain,
        steps=(*chain.steps, _step(policy, scope, way)),
        services=chain.services + policy.services(scope),
        secrets=chain.secrets + policy.secrets(scope),
        own_paths=chain.own_paths
        + tuple((one, before + filters) for one in policy.own_paths(scope)),
        silenced=chain.silenced | policy.silenced,
    )


def _step(policy: Policy, scope: Scope, way: str | None) -> Step:
    return Step(way, policy.routing(), policy.route_fields(scope), policy.connections())


def _asked_for(policy: Policy) -> tuple[Preflight, ...]:
    """The one preflight of a policy with a condition: its filters answer if the condition holds."""
    preflights = policy.preflights()
    if not preflights:
        return ()
    widest = preflights[-1]
    return (Preflight(f"{policy.name}-asked", widest.match_headers, _NOT_FOUND, lets_pass=True),)
