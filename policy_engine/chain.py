"""All policies of one attachment, compiled: in written order, Python neighbours in one hop."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby

from policy_engine.errors import PolicyError, PolicyNotCompiled
from policy_engine.hooks import Phase, Place, PythonPolicy
from policy_engine.hop import Hop, HopPolicy
from policy_engine.policy import (
    Connections,
    DirectAnswer,
    Document,
    FailureMode,
    HttpFilter,
    Mode,
    OwnPath,
    Policy,
    Preflight,
    Redirect,
    Routing,
    Scope,
    Secret,
    Service,
)


@dataclass(frozen=True, slots=True)
class Attached:
    """A policy as it stands in an API's document."""

    policy: Policy
    params: Document = field(default_factory=dict)  # as written, for the engine
    condition: str | None = None  # CEL
    mode: Mode = "enforce"
    failure_mode: FailureMode | None = None  # None: the policy's own
    timeout_s: float | None = None  # None: the policy's own


@dataclass(frozen=True, slots=True)
class Chain:
    """All policies of one attachment, compiled."""

    filters: tuple[HttpFilter, ...] = ()
    answer: DirectAnswer | Redirect | None = None
    """Set: the chain ends here, lower levels do not run."""
    preflights: tuple[tuple[Preflight, tuple[HttpFilter, ...]], ...] = ()
    """Each preflight with the filters that stand before its policy."""
    route_fields: Document = field(default_factory=dict)
    routing: Routing = field(default_factory=Routing)
    services: tuple[Service, ...] = ()
    connections: Connections = field(default_factory=Connections)
    secrets: tuple[Secret, ...] = ()
    own_paths: tuple[tuple[OwnPath, tuple[HttpFilter, ...]], ...] = ()
    """Each with the filters up to and with those of its policy."""
    hops: tuple[Hop, ...] = ()  # of the Python policies among them


def compile_chain(policies: Iterable[Policy | Attached], scope: Scope) -> Chain:
    """The chain of `policies` in written order. Raises PolicyNotCompiled."""
    attached = tuple(
        one if isinstance(one, Attached) else Attached(one, _as_written(one)) for one in policies
    )
    scope.attached = tuple(one.policy.name for one in attached)
    chain = Chain()
    for run in _runs(attached):
        name = run[0].policy.name
        try:
            chain = _extended(chain, run, scope)
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


def _runs(attached: tuple[Attached, ...]) -> Iterator[tuple[Attached, ...]]:
    """Native policies one by one, Python neighbours that fail alike together."""

    def alike(one: Attached) -> FailureMode | None:
        return failure_mode(one) if isinstance(one.policy, PythonPolicy) else None

    for mode, group in groupby(attached, alike):
        if mode is None:
            yield from ((one,) for one in group)
        else:
            yield tuple(group)


def failure_mode(one: Attached) -> FailureMode:
    """What becomes of requests when the Python policy fails: authentication is always closed."""
    if not isinstance(one.policy, PythonPolicy) or one.policy.authenticates:
        return "closed"
    return one.failure_mode or one.policy.failure_mode


def hop_of(attached: Iterable[Attached], scope: Scope) -> Hop:
    """Python neighbours as the engine runs them."""
    policies: list[HopPolicy] = []
    phases: set[Phase] = set()
    namespaces: list[str] = []
    for one in attached:
        policy = one.policy
        if not isinstance(policy, PythonPolicy):
            raise PolicyNotCompiled(policy.name, "does not run in Python")
        policy.check(scope)
        phases |= policy.phases()
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
    place = Place(
        level=scope.level,
        api_id=scope.api_id,
        api_name=scope.api_name,
        api_version=scope.api_version,
        context=scope.context,
        operation_method=scope.operation_method,
        operation_path=scope.operation_path,
    )
    return Hop(place, tuple(policies), frozenset(phases), tuple(dict.fromkeys(namespaces)))


def _extended(chain: Chain, run: tuple[Attached, ...], scope: Scope) -> Chain:
    filters: tuple[HttpFilter, ...]
    hops: tuple[Hop, ...] = ()
    if isinstance(run[0].policy, PythonPolicy):
        hop = hop_of(run, scope)
        hops = (hop,) if hop.phases else ()
        filters = tuple(one.filter(scope) for one in hops)
    else:
        filters = run[0].policy.filters(scope)
    before = chain.filters
    for policy in (one.policy for one in run):
        chain = replace(
            chain,
            answer=policy.answer() or policy.redirect(scope),
            preflights=chain.preflights + tuple((one, before) for one in policy.preflights()),
            route_fields=chain.route_fields | policy.route_fields(scope),
            routing=chain.routing.then(policy.routing()),
            services=chain.services + policy.services(scope),
            connections=chain.connections.then(policy.connections()),
            secrets=chain.secrets + policy.secrets(scope),
            own_paths=chain.own_paths
            + tuple((one, before + filters) for one in policy.own_paths(scope)),
        )
    return replace(chain, filters=before + filters, hops=chain.hops + hops)
