"""Which policies there are, and what a reference to one means.

Policies of the package are found in `policy_engine.policies`; others are entry points of group
`signalbox.policies`, each naming a `Policy` class or a module that holds some, or files of a
watched folder (`policy_engine.loading.watched`). What cannot be loaded is recorded with its
traceback and refused by name; everything else keeps working.
"""

import asyncio
import importlib
import inspect
import pkgutil
import re
import traceback
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Protocol

import structlog

from bus.resources.document import duration_s
from bus.resources.faults import FieldFault, InvalidResource, parse
from bus.resources.rest_api import PolicyRef
from policy_engine import policies as included
from policy_engine.attached import Attached
from policy_engine.conditions.probe import ConditionProbe
from policy_engine.errors import Fault, InvalidParameters, UnknownPolicy
from policy_engine.hooks import PythonPolicy
from policy_engine.hop import HopPolicy
from policy_engine.loading.sources import Source, import_source
from policy_engine.policy import Document, Policy, Refusal, Version, Where
from policy_engine.system import SystemParameters

ENTRY_POINTS = "signalbox.policies"
_MAJOR = re.compile(r"v(\d+)")
_OF_CHAINS: dict[str, dict[Version, type[Policy]]] = {
    ConditionProbe.name: {ConditionProbe.version: ConditionProbe}
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BrokenPolicy:
    """Something installed as a policy that cannot be used."""

    name: str  # of the entry point, or what a file's name says
    source: str  # what the entry point points to, or the file
    reason: str  # one line
    traceback: str
    policies: tuple[str, ...] = ()  # what it brought when it was good last
    serving: bool = False  # whether those are still at work
    gone: bool = False  # the file is: its policies are for those only that have them already


class Sources(Protocol):
    """Where policies can be had in the very code that a hop names."""

    def exactly(self, name: str, version: str, digest: str) -> type[Policy]:
        """The policy as it is in the source `digest`. Raises UnknownPolicy."""
        ...


@dataclass(frozen=True, slots=True)
class Listing:
    """A policy as the documentation shows it."""

    name: str
    version: Version
    description: str
    runs: Where
    why: str  # it runs in Python; empty in Envoy
    parameters: Document  # JSON schema
    example: Document
    statuses: tuple[int, ...]  # of the answers it gives by itself when it refuses
    refusals: tuple[tuple[int, Document | str], ...]  # status and body, each once
    shadow: bool  # whether it can only report what it would refuse


class Catalogue:
    """The policies that are loaded, by name and version."""

    def __init__(
        self,
        policies: Iterable[type[Policy]],
        broken: Iterable[BrokenPolicy] = (),
        system: SystemParameters | None = None,
    ) -> None:
        self._installed = tuple(policies)
        self._broken_installed = tuple(broken)
        self._by_name = _by_name(self._installed)
        self._listeners: list[asyncio.Queue[frozenset[str]]] = []
        self.broken = self._broken_installed
        self.troubles = _troubles(self.broken)
        """What is wrong with the file that a policy comes from, with its traceback, by policy."""
        self.system = system or SystemParameters()
        self.sources: Sources | None = None

    def take(self, policies: Iterable[type[Policy]], broken: Iterable[BrokenPolicy]) -> None:
        """Let these be beside what is installed; they replace those that were taken before."""
        before, troubles = self._by_name, self.troubles
        self._by_name = _by_name((*self._installed, *policies))
        self.broken = (*self._broken_installed, *broken)
        self.troubles = now = _troubles(self.broken)
        changed = {
            name
            for name in {*before, *self._by_name}
            if before.get(name) != self._by_name.get(name)
        }
        changed |= {name for name in {*troubles, *now} if troubles.get(name) != now.get(name)}
        if changed:
            log.info("policies changed", policies=sorted(changed))
            for listener in self._listeners:
                listener.put_nowait(frozenset(changed))

    async def changes(self) -> AsyncIterator[frozenset[str]]:
        """The names of policies that have changed, whenever some have."""
        listener: asyncio.Queue[frozenset[str]] = asyncio.Queue()
        self._listeners.append(listener)
        try:
            while True:
                yield await listener.get()
        finally:
            self._listeners.remove(listener)

    def __iter__(self) -> Iterator[type[Policy]]:
        """By name, older versions first."""
        return (policy for versions in self._by_name.values() for policy in versions.values())

    def _versions(self, name: str) -> dict[Version, type[Policy]]:
        """With what nobody attaches, but what chains are compiled to."""
        return self._by_name.get(name) or _OF_CHAINS.get(name, {})

    def resolve(self, name: str, version: str = "") -> type[Policy]:
        """The newest version of major `version` (`v1`), or of all when it is empty.

        Raises UnknownPolicy.
        """
        major = _MAJOR.fullmatch(version)
        if version and major is None:
            raise UnknownPolicy(name, version)
        found = [
            policy
            for one, policy in self._versions(name).items()
            if major is None or one.major == int(major[1])
        ]
        if not found:
            raise UnknownPolicy(name, version, self._why_missing(name))
        return found[-1]

    def parse(self, ref: PolicyRef) -> Policy:
        """The policy that `ref` names, with its parameters, for a document that is new.

        Raises UnknownPolicy and InvalidParameters.
        """
        for one in self.broken:
            if one.gone and ref.name in one.policies:
                raise UnknownPolicy(ref.name, ref.version, one.reason)
        return _made(self.resolve(ref.name, ref.version), ref.params)

    def attach(self, ref: PolicyRef) -> Attached:
        """The policy that `ref` names, as it stands there.

        One whose file is broken or gone is there in its last good shape. Raises as `parse` does.
        """
        return Attached(
            policy=_made(self.resolve(ref.name, ref.version), ref.params),
            params=ref.params,
            condition=ref.execution_condition,
            mode=ref.mode,
            failure_mode=ref.failure_mode,
            timeout_s=None if ref.timeout is None else duration_s(ref.timeout),
        )

    def remake(self, one: HopPolicy) -> PythonPolicy:
        """The policy of a hop, in the version and the code that it names.

        Code that is not loaded yet is imported: this may block for a moment. Raises UnknownPolicy
        and InvalidParameters.
        """
        if one.source and self.sources is not None:
            policy = self.sources.exactly(one.name, one.version, one.source)
        else:
            found = self._versions(one.name).items()
            known = {str(version): policy for version, policy in found}
            if one.version not in known or known[one.version].source != one.source:
                raise UnknownPolicy(one.name, one.version, self._why_missing(one.name))
            policy = known[one.version]
        made = _made(policy, one.params)
        if not isinstance(made, PythonPolicy):
            raise UnknownPolicy(one.name, one.version, "it does not run in Python")
        return made

    def _why_missing(self, name: str) -> str:
        return next(
            (one.reason for one in self.broken if name == one.name or name in one.policies), ""
        )

    def refusals(self) -> tuple[Refusal, ...]:
        """How the refusals of all policies are dressed; of the same details the first stays.

        Those that match whole details stand before those that match how they start.
        """
        refusals = {
            (one.details, one.prefix): one
            for policy in self
            for one in reversed(policy.dressed(self.system))
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
            reason = one_line(error)
            broken.append(BrokenPolicy(point.name, point.value, reason, traceback.format_exc()))
            log.exception("policy_not_loaded", name=point.name, source=point.value)
    return Catalogue(found, broken, system)


def _installed(point: EntryPoint) -> list[type[Policy]]:
    loaded = point.load()
    found = _policies_in(loaded) if isinstance(loaded, ModuleType) else [_checked(loaded)]
    if not found:
        raise TypeError(f"{point.value} holds no policy")
    return found


def policies_of(source: Source) -> tuple[type[Policy], ...]:
    """The policies of a file or package. Raises whatever its code raises, TypeError without any."""
    found = _policies_in(import_source(source))
    if not found:
        raise TypeError(f"{source.origin.name} holds no policy")
    for policy in found:
        policy.source = source.digest
    return tuple(found)


def _policies_in(module: ModuleType) -> list[type[Policy]]:
    """Those that are defined in the module, or below it and imported there."""
    return [
        _checked(one)
        for _, one in inspect.getmembers(module, inspect.isclass)
        if issubclass(one, Policy)
        and f"{one.__module__}.".startswith(f"{module.__name__}.")
        and not one.__name__.startswith("_")
    ]


def _by_name(policies: Iterable[type[Policy]]) -> dict[str, dict[Version, type[Policy]]]:
    """By name, then by version, older ones first; of two of one version the last stays."""
    found: dict[str, dict[Version, type[Policy]]] = {}
    for policy in policies:
        found.setdefault(policy.name, {})[policy.version] = policy
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


def _made(policy: type[Policy], params: dict[str, Any]) -> Policy:
    try:
        return parse(policy, params)
    except InvalidResource as error:
        faults = tuple(_fault(fault) for fault in error.faults)
        raise InvalidParameters(policy.name, faults) from None
    except Exception as error:  # a validator of an installed policy may raise anything
        log.exception("policy_validation_failed", policy=policy.name)
        fault = Fault("", f"the policy itself failed: {one_line(error)}")
        raise InvalidParameters(policy.name, (fault,)) from error


def _troubles(broken: Iterable[BrokenPolicy]) -> dict[str, str]:
    return {name: _trouble(one) for one in broken for name in (*one.policies, one.name)}


def _trouble(one: BrokenPolicy) -> str:
    happens = "its last good version goes on" if one.serving else "it is not loaded"
    told = f"{one.source}: {one.reason}; {happens}"
    more = one.traceback.strip()
    return told if more in ("", one.reason) else f"{told}\n{more}"


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
        why=policy.why_python if issubclass(policy, PythonPolicy) else "",
        parameters=policy.model_json_schema(by_alias=True),
        example=policy.example,
        statuses=tuple(sorted({refusal.status for refusal in policy.refusals})),
        refusals=_refusals(policy),
        shadow=issubclass(policy, PythonPolicy)
        or policy.purpose == "changes"
        or policy.shadow is not Policy.shadow,
    )


def _refusals(policy: type[Policy]) -> tuple[tuple[int, Document | str], ...]:
    found: list[tuple[int, Document | str]] = []
    for one in policy.refusals:
        if (one.status, one.body) not in found:
            found.append((one.status, one.body))
    return tuple(sorted(found, key=lambda one: one[0]))


def as_document(catalogue: Catalogue) -> Document:
    """The catalogue as JSON: `policies` as documented, and what is `broken`."""
    return {
        "policies": [
            {
                **asdict(one),
                "version": str(one.version),
                "statuses": list(one.statuses),
                "refusals": [{"status": status, "body": body} for status, body in one.refusals],
            }
            for one in catalogue.listing()
        ],
        "broken": [{**asdict(one), "policies": list(one.policies)} for one in catalogue.broken],
    }


def one_line(error: BaseException) -> str:
    """What an exception says, for a log or a list."""
    return " ".join(f"{type(error).__name__}: {error}".split())
