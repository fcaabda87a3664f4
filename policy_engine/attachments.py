"""What can be wrong with the way policies are attached, told by field before anything runs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from policy_engine.attached import Attached
from policy_engine.chain import WAYS_MAX, Chain, compile_chain
from policy_engine.conditions.conditional import native_gate, parts
from policy_engine.conditions.evaluation import condition
from policy_engine.conditions.gates import CONDITIONS_MAX, understood
from policy_engine.conditions.probe import ConditionProbe
from policy_engine.errors import Fault, PolicyError, PolicyNotCompiled
from policy_engine.hooks import PythonPolicy
from policy_engine.policy import Policy, Scope


def faults(one: Attached, scope: Scope) -> tuple[Fault, ...]:
    """What is wrong with one policy, by the field beside its parameters."""
    if isinstance(one.policy, ConditionProbe):
        return (Fault("name", f"{one.policy.name} is the gateway's own and cannot be attached"),)
    found = (*_condition(one), *_failure(one), *_mode(one))
    if found or (one.condition is None and one.mode == "enforce"):
        return found
    return tuple(_meaning(one, scope))


def _condition(one: Attached) -> Iterator[Fault]:
    if one.condition is None:
        return
    try:
        understood(one.condition)
        if _asks_engine(one):
            condition(one.condition)
    except (ValueError, PolicyNotCompiled) as error:
        yield Fault("executionCondition", f"executionCondition {error}")


def _asks_engine(one: Attached) -> bool:
    if isinstance(one.policy, PythonPolicy):
        return native_gate(one) is None
    return any(part.probes for part in parts(one, "condition"))


def _failure(one: Attached) -> Iterator[Fault]:
    if not isinstance(one.policy, PythonPolicy):
        for field, given in (("failureMode", one.failure_mode), ("timeout", one.timeout_s)):
            if given is not None:
                yield Fault(
                    field,
                    f"{field} has no meaning: {one.policy.name} runs in Envoy and cannot fail "
                    "apart from it",
                )
    elif one.policy.authenticates and one.failure_mode == "open":
        yield Fault(
            "failureMode",
            f"failureMode must not be open: {one.policy.name} authenticates callers, and who "
            "cannot be checked does not pass",
        )


def _mode(one: Attached) -> Iterator[Fault]:
    policy = one.policy
    if one.mode == "enforce" or isinstance(policy, PythonPolicy) or policy.purpose == "changes":
        return
    if type(policy).shadow is Policy.shadow:
        yield Fault("mode", f"mode shadow is not possible: {policy.name} has no shadow mode")


def _meaning(one: Attached, scope: Scope) -> Iterator[Fault]:
    """What has a meaning by itself, but not with its condition or in shadow mode."""
    plain = replace(one, condition=None, mode="enforce")
    if _compiled((plain,), scope) is None:
        return  # for another reason, which its status will tell
    try:
        compile_chain((replace(one, mode="enforce"),), _again(scope))
    except PolicyNotCompiled as error:
        yield Fault("executionCondition", error.reason)
        return
    try:
        compile_chain((one,), _again(scope))
    except PolicyNotCompiled as error:
        yield Fault("mode", f"mode shadow is not possible: {error.reason}")


def misplaced(attached: Sequence[Attached], scope: Scope) -> Iterator[tuple[int, Fault]]:
    """What has no meaning on this gateway or beside the others: its position, and why.

    The path of a fault is that of the field below the policy; empty for the policy as a whole.
    """
    left = list(enumerate(attached))
    while _uncompiled([one for _, one in left], scope) is not None:
        for count in range(1, len(left) + 1):
            error = _uncompiled([one for _, one in left[:count]], scope)
            if error is not None:
                break
        else:  # no beginning of it fails, but the whole does
            return
        likes = [at for at in range(count) if left[at][1].policy.name == error.name]
        at = likes[-1] if likes else count - 1
        path = f"params.{error.parameter}" if error.parameter else ""
        yield left[at][0], Fault(path, f"{error.name}: {error.reason}")
        del left[at]


def _uncompiled(attached: Sequence[Attached], scope: Scope) -> PolicyNotCompiled | None:
    try:
        compile_chain(attached, _again(scope))
    except PolicyNotCompiled as error:
        return error
    return None


def too_many(
    above: Sequence[Attached], below: Sequence[Attached], scopes: tuple[Scope, Scope]
) -> str | None:
    """Why the conditions that a request can meet are too many; None if they are not.

    `above` are the policies of the API, `below` those of one operation.
    """
    if not any(one.condition is not None for one in (*above, *below)):
        return None
    chains = [_compiled(above, scopes[0]), _compiled(below, scopes[1])]
    known = [one for one in chains if one is not None]
    conditions = sum(
        gate is not None
        for chain in known
        for gate, _ in groupby(chain.filters, lambda one: one.when)
    )
    if conditions > CONDITIONS_MAX:
        return (
            f"a request can meet {CONDITIONS_MAX} executionConditions at most, here are "
            f"{conditions}: policies that stand side by side share one that is the same"
        )
    ways = sum(len(chain.ways) for chain in known)
    if ways > WAYS_MAX:
        return (
            f"at most {WAYS_MAX} executionConditions may decide where the requests of an "
            f"operation go, here are {ways}"
        )
    return None


def _compiled(attached: Sequence[Attached], scope: Scope) -> Chain | None:
    try:
        return compile_chain(attached, _again(scope))
    except PolicyError:
        return None


def _again(scope: Scope) -> Scope:
    """The same place, where nothing is attached yet."""
    return replace(scope, attached=(), _taken={})
