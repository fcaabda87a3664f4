"""The hops of an API: what the engine is asked to run for it. The router computes the same."""

from collections.abc import Iterator, Sequence

from bus.resources.rest_api import Operation, PolicyRef, RestApi
from policy_engine.catalogue import Catalogue
from policy_engine.chain import compile_chain
from policy_engine.errors import UnknownPolicy
from policy_engine.hop import Hop
from policy_engine.policy import Level, Scope


def hops_of(api: RestApi, catalogue: Catalogue) -> tuple[Hop, ...]:
    """Every hop of `api`, each once. Raises PolicyError when the API cannot be compiled."""
    if api.spec.deployment_state != "deployed":
        return ()
    found = {hop.name: hop for _, hops in hops_by_operation(api, catalogue) for hop in hops}
    return tuple(found.values())


def hops_by_operation(
    api: RestApi, catalogue: Catalogue
) -> Iterator[tuple[Operation | None, tuple[Hop, ...]]]:
    """The hops of the API's level (None) and of each operation. Raises PolicyError."""
    spec = api.spec
    below = frozenset(ref.name for one in spec.operations for ref in one.policies)

    def hops(
        refs: Sequence[PolicyRef], level: Level, operation: Operation | None = None
    ) -> tuple[Hop, ...]:
        if not any(_concerns_the_engine(ref, catalogue) for ref in refs):
            return ()
        scope = Scope(
            level=level,
            api_id=api.id,
            api_name=spec.display_name,
            api_version=spec.version,
            context=spec.resolved_context,
            system=catalogue.system,
            upstreams=tuple(one.name for one in spec.upstream_definitions),
            below=below if level == "api" else frozenset(),
            operation_method=None if operation is None else operation.matcher.method,
            operation_path=None if operation is None else _pattern(operation),
        )
        return compile_chain((catalogue.attach(ref) for ref in refs), scope).hops

    yield None, hops(spec.policies, "api")
    for operation in spec.operations:
        yield operation, hops(operation.policies, "operation", operation)


def _concerns_the_engine(ref: PolicyRef, catalogue: Catalogue) -> bool:
    """Whether the policy may need a hop: it is Python, or has a condition."""
    if ref.execution_condition is not None:
        return True
    try:
        return catalogue.resolve(ref.name, ref.version).runs == "python"
    except UnknownPolicy:
        return True  # the compiler says so


def _pattern(operation: Operation) -> str:
    return "/" + "/".join(operation.matcher.path.segments)
