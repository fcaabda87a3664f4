"""Which policies there are, and what a reference to one means.

Policies of the package are found in `policy_engine.policies`; others are entry points of group
`signalbox.policies`, each naming a `Policy` class or a module that holds some. What cannot be
loaded is recorded with its traceback and refused by name; everything else keeps working.
"""

import importlib
import inspect
import pkgutil
import re
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

import structlog

from bus.resources.document import duration_s
from bus.resources.faults import FieldFault, InvalidResource, parse
from bus.resources.rest_api import PolicyRef
from policy_engine import policies as included
from policy_engine.chain import Attached
from policy_engine.errors import Fault, InvalidParameters, UnknownPolicy
from policy_engine.policy import Document, Policy, Refusal, Version, Where
from policy_engine.system import SystemParameters

ENTRY_POINTS = "signalbox.policies"
_MAJOR = re.compile(r"v(\d+)")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BrokenPolicy:
    """Something installed as a policy that cannot be used."""

    name: str  # of the entry point
    source: str  # what the entry point points to
    reason: str  # one line
    traceback: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A policy as the documentation shows it."""

    name: str
    version: Version
    description: str
    runs: Where
    parameters: Document  # JSON schema
    example: Document
    statuses: tuple[int, ...]  # of the answers it gives by itself when it refuses


class Catalogue:
    """The policies that are loaded, by name and version."""

    def __init__(
        self,
        policies: Iterable[type[Policy]],
        broken: Iterable[BrokenPolicy] = (),
        system: SystemParameters | None = None,
    ) -> None:
        by_name: dict[str, dict[Version, type[Policy]]] = {}
        for policy in policies:
            by_name.setdefault(policy.name, {})[policy.version] = policy
        self._by_name = {name: dict(sorted(by_name[name].items())) for name in sorted(by_name)}
        self.broken = tuple(broken)
        self.system = system or SystemParameters()

    def __iter__(self) -> Iterator[type[Policy]]:
        """By name, older versions first."""
        return (policy for versions in self._by_name.values() for policy in versions.values())

    def resolve(self, name: str, version: str = "") -> type[Policy]:
        """The newest version of major `version` (`v1`), or of all when it is empty.

        Raises UnknownPolicy.
        """
        major = _MAJOR.fullmatch(version)
        if version and major is None:
            raise UnknownPolicy(name, version)
        found = [
            policy
            for one, policy in self._by_name.get(name, {}).items()
            if major is None or one.major == int(major[1])
        ]
        if not found:
            raise UnknownPolicy(name, version, self._why_missing(name))
        return found[-1]

    def parse(self, ref: PolicyRef) -> Policy:
        """The policy that `ref` names, with its parameters.

        Raises UnknownPolicy and InvalidParameters.
        """
        policy = self.resolve(ref.name, ref.version)
        try:
            return parse(policy, ref.params)
        except InvalidResource as error:
            faults = tuple(_fault(fault) for fault in error.faults)
            raise InvalidParameters(ref.name, faults) from None
        except Exception as error:  # a validator of an installed policy may raise anything
            log.exception("policy_validation_failed", policy=ref.name)
            fault = Fault("", f"the policy itself failed: {_one_line(error)}")
            raise InvalidParameters(ref.name, (fault,)) from error

    def attach(self, ref: PolicyRef) -> Attached:
        """The policy that `ref` names, as it stands there. Raises as `parse` does."""
        return Attached(
            policy=self.parse(ref),
            params=ref.params,
            condition=ref.execution_condition,
            mode=ref.mode,
            failure_mode=ref.failure_mode,
            timeout_s=None if ref.timeout is None else duration_s(ref.timeout),
        )

    def _why_missing(self, name: str) -> str:
        return next((one.reason for one in self.broken if one.name == name), "")

    def refusals(self) -> tuple[Refusal, ...]:
        """How the refusals of all policies are dressed; of the same details the first stays.

        Those that match whole details stand before those that match how they start.
        """
        refusals = {
            (one.details, one.prefix): one for policy in self for one in reversed(policy.refusals)
        }
        return tuple(sorted(refusals.values(), key=lambda one: one.prefix))

    def listing(self) -> tuple[Listing, ...]:
        """What the documentation shows: every policy, in every version."""
        return tuple(_listing(policy) for policy in self)


def load(
    points: Iterable[EntryPoint] | None = None, *, system: SystemParameters | None = None
) -> Catalogue:
    """The included policies and those installed beside them (`points`, for tests).

    An installed policy replaces an included one of the same name and version. Never raises: what
    is broken is in `Catalogue.broken`.
    """
    found: list[type[Policy]] = []
    broken: list[BrokenPolicy] = []
    for module in pkgutil.iter_modules(included.__path__):
        found += _policies_in(importlib.import_module(f"{included.__name__}.{module.name}"))
    for point in sorted(
        entry_points(group=ENTRY_POINTS) if points is None else points, key=lambda one: one.name
    ):
        try:
            found += _installed(point)
        except (Exception, SystemExit) as error:  # installed code may raise anything
            reason = _one_line(error)
            broken.append(BrokenPolicy(point.name, point.value, reason, traceback.format_exc()))
            log.exception("policy_not_loaded", name=point.name, source=point.value)
    return Catalogue(found, broken, system)


def _installed(point: EntryPoint) -> list[type[Policy]]:
    loaded = point.load()
    found = _policies_in(loaded) if isinstance(loaded, ModuleType) else [_checked(loaded)]
    if not found:
        raise TypeError(f"{point.value} holds no policy")
    return found


def _policies_in(module: ModuleType) -> list[type[Policy]]:
    return [
        _checked(one)
        for _, one in inspect.getmembers(module, inspect.isclass)
        if issubclass(one, Policy) and one.__module__ == module.__name__
    ]


def _checked(candidate: object) -> type[Policy]:
    """`candidate` if it is a whole policy. Raises TypeError."""
    if not (inspect.isclass(candidate) and issubclass(candidate, Policy)):
        raise TypeError(f"{candidate!r} is not a Policy class")
    missing = [one for one in ("name", "version", "example") if not hasattr(candidate, one)]
    if inspect.isabstract(candidate):
        missing += sorted(candidate.__abstractmethods__)
    if missing:
        raise TypeError(f"policy {candidate.__name__} lacks {', '.join(missing)}")
    if not isinstance(candidate.version, Version):
        raise TypeError(f"the version of policy {candidate.name} is not a Version")
    return candidate


def _fault(fault: FieldFault) -> Fault:
    """With the parameter's own name in the message, as users know it."""
    name = fault.field.rpartition(".")[2]
    message = fault.message
    if message.endswith(" is required") and name:
        message = f"{name} is required"
    elif message == "Unknown field":
        message = f"Unknown parameter {name!r}"
    return Fault(fault.field, message)


def _listing(policy: type[Policy]) -> Listing:
    return Listing(
        name=policy.name,
        version=policy.version,
        description=inspect.getdoc(policy) or "",
        runs=policy.runs,
        parameters=policy.model_json_schema(by_alias=True),
        example=policy.example,
        statuses=tuple(sorted({refusal.status for refusal in policy.refusals})),
    )


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
