"""Whether a document may become a RestApi: its fields, what they refer to, its policies."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from bus.resources.faults import FieldFault, InvalidResource, parse
from bus.resources.rest_api import Operation, PolicyRef, RestApi, RestApiSpec
from bus.resources.upstream import Upstream
from controller.errors import Invalid
from controller.ports import PolicyCatalogue
from policy_engine.attached import Attached, as_attached
from policy_engine.attachments import faults, misplaced, too_many
from policy_engine.errors import InvalidParameters, PolicyError
from policy_engine.policy import Scope

FAILED = "Configuration validation failed"


def accepted(document: Mapping[str, Any]) -> dict[str, Any]:
    """`document` as it is kept: without the read-only status and without empty (null) fields.

    Null in a policy's parameters means what the policy says it means, and stays.
    """
    kept = {key: value for key, value in document.items() if key != "status"}
    pruned = _without_nulls(kept)
    assert isinstance(pruned, dict)
    return pruned


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {
            key: below if key == "params" else _without_nulls(below)
            for key, below in value.items()
            if below is not None
        }
    if isinstance(value, list):
        return [_without_nulls(below) for below in value]
    return value


def rest_api(document: Mapping[str, Any], catalogue: PolicyCatalogue) -> RestApi:
    """The API that `document` describes. Raises Invalid with all faults found."""
    # a part that is missing as a whole lacks each of its fields
    whole = {**document}
    for part in ("metadata", "spec"):
        whole.setdefault(part, {})
    try:
        api = parse(RestApi, whole)
    except InvalidResource as error:
        raise Invalid(FAILED, error.faults) from error
    faults = [
        *_definitions(api.spec),
        *_references(api.spec),
        *_operations(api.spec.operations),
        *_policies(api, catalogue),
    ]
    if faults:
        raise Invalid(FAILED, faults)
    return api


def _definitions(spec: RestApiSpec) -> Iterator[FieldFault]:
    seen: set[str] = set()
    for index, definition in enumerate(spec.upstream_definitions):
        if definition.name in seen:
            yield FieldFault(
                f"spec.upstreamDefinitions[{index}].name",
                f"Duplicate upstream definition name '{definition.name}'",
            )
        seen.add(definition.name)


def _references(spec: RestApiSpec) -> Iterator[FieldFault]:
    upstreams: tuple[tuple[str, Upstream | None], ...] = (
        ("main", spec.upstream.main),
        ("sandbox", spec.upstream.sandbox),
    )
    for which, upstream in upstreams:
        if upstream is None or upstream.ref is None:
            continue
        if spec.definition(upstream.ref) is None:
            yield FieldFault(
                f"spec.upstream.{which}.ref",
                f"Referenced upstream definition '{upstream.ref}' not found",
            )


def _operations(operations: Iterable[Operation]) -> Iterator[FieldFault]:
    seen: dict[Hashable, int] = {}
    for index, operation in enumerate(operations):
        matcher = operation.matcher
        first = seen.setdefault(matcher.shape, index)
        if first != index:
            yield FieldFault(
                f"spec.operations[{index}]",
                f"Duplicate operation {matcher.method} {matcher.path.value}: "
                f"spec.operations[{first}] matches the same requests",
            )


def _policies(api: RestApi, catalogue: PolicyCatalogue) -> Iterator[FieldFault]:
    spec = api.spec
    scope = Scope(
        level="api",
        api_id=api.id,
        api_name=spec.display_name,
        api_version=spec.version,
        context=spec.resolved_context,
        system=catalogue.system,
        below=frozenset(ref.name for one in spec.operations for ref in one.policies),
    )
    above, wrong = _chain("spec.policies", spec.policies, spec, scope, catalogue)
    yield from wrong
    reason = too_many(above, (), (scope, scope))
    if reason is not None:
        yield FieldFault("spec.policies", reason)
    for index, operation in enumerate(spec.operations):
        field = f"spec.operations[{index}].policies"
        below = replace(
            scope,
            level="operation",
            below=frozenset(),
            operation_method=operation.matcher.method,
            operation_path="/" + "/".join(operation.matcher.path.segments),
        )
        own, wrong = _chain(field, operation.policies, spec, below, catalogue)
        yield from wrong
        if own and reason is None:
            more = too_many(above, own, (scope, below))
            if more is not None:
                yield FieldFault(field, more)


def _chain(
    field: str,
    policies: Iterable[PolicyRef],
    spec: RestApiSpec,
    scope: Scope,
    catalogue: PolicyCatalogue,
) -> tuple[list[Attached], list[FieldFault]]:
    """The policies that are as they should be, and what is wrong with the others."""
    attached: list[Attached] = []
    positions: list[int] = []
    found: list[FieldFault] = []
    for index, ref in enumerate(policies):
        at = f"{field}[{index}]"
        try:
            one = as_attached(catalogue.parse(ref), ref)
        except InvalidParameters as error:
            for fault in error.faults:
                path = f"{at}.params.{fault.path}" if fault.path else f"{at}.params"
                found.append(FieldFault(path, fault.message))
            continue
        except PolicyError as error:
            found.append(FieldFault(f"{at}.version", str(error)))
            continue
        wrong = [FieldFault(f"{at}.{fault.path}", fault.message) for fault in faults(one, scope)]
        for path, name in one.policy.upstream_refs().items():
            if spec.definition(name) is None:
                wrong.append(
                    FieldFault(
                        f"{at}.params.{path}",
                        f"{path}: Referenced upstream definition '{name}' not found",
                    )
                )
        found += wrong
        if not wrong:
            attached.append(one)
            positions.append(index)
    if spec.deployment_state == "deployed":  # or else no router sees it
        for position, fault in misplaced(attached, scope):
            at = f"{field}[{positions[position]}]"
            found.append(FieldFault(f"{at}.{fault.path}" if fault.path else at, fault.message))
    return attached, found
