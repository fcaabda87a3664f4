"""What a change means to the routers: a plan's steps with routes, policies and Envoy's verdict."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctl import kinds
from ctl.client import Client
from ctl.documents import Document
from ctl.errors import NotFound, NotReachable
from ctl.plan import Action, Step, comparable
from ctl.references import missing
from ctl.shelf import Shelf, hidden

Json = dict[str, Any]

_BATCH_BYTES = 256 << 10  # of one request; the gateway takes 512 KiB unless it is told otherwise
_BATCH = 200  # documents
_TIMEOUT_S = 180.0
_MASK = "********"
_RUNS_IN = {"envoy": "Envoy", "python": "Python", "nowhere": "nowhere"}
_WOULD_BE = {"create": "created", "update": "changed", "keep": "unchanged", "delete": "pruned"}


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that would be different; None: it is not there."""

    field: str
    before: Any
    after: Any

    def line(self) -> str:
        """For people."""
        if self.before is None:
            return f"+ {self.field}: {_short(self.after)}"
        if self.after is None:
            return f"- {self.field}: {_short(self.before)}"
        return f"~ {self.field}: {_short(self.before)} -> {_short(self.after)}"


@dataclass(frozen=True, slots=True)
class Planned:
    """One document, or one resource that would be pruned."""

    label: str
    kind: str
    name: str
    would_be: str  # created, changed, unchanged, pruned, checked
    place: str = ""  # file:line
    fields: tuple[FieldChange, ...] = ()
    problems: tuple[Json, ...] = ()  # field, message, place
    effect: Json = field(default_factory=dict)  # routes, policies, verdict

    @property
    def changes(self) -> bool:
        """Whether something would be different."""
        return self.would_be in ("created", "changed", "pruned")

    def as_document(self) -> Json:
        """For programs."""
        return {
            "kind": self.kind,
            "name": self.name,
            "action": self.would_be,
            "fields": [
                {"field": one.field, "before": one.before, "after": one.after}
                for one in self.fields
            ],
            "problems": list(self.problems),
            **{key: self.effect.get(key, []) for key in ("routes", "policies")},
            "verdict": self.effect.get("verdict"),
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.label}: {self.would_be}" + (f" ({self.place})" if self.place else "")
        yield from (f"  {one.line()}" for one in self.fields)
        for problem in self.problems:
            at = f"{problem['place']}: " if problem["place"] else ""
            named = f"{problem['field']}: " if problem["field"] else ""
            yield f"  problem: {at}{named}{problem['message']}"
        if self.would_be == "unchanged" and not self.problems:
            return
        yield from self._table(
            "routes",
            [
                (one["method"], one["path"], ", ".join(one["hosts"]), one.get("matching", ""))
                for one in self.effect.get("routes", ())
            ],
        )
        yield from self._table(
            "policies",
            [
                (
                    one["at"],
                    one["name"] + (" (shadow)" if one["mode"] == "shadow" else ""),
                    one["version"],
                    _RUNS_IN[one["runs"]] + (f": {one['reason']}" if one["reason"] else ""),
                )
                for one in self.effect.get("policies", ())
            ],
        )
        verdict = self.effect.get("verdict")
        if verdict is not None and verdict["accepted"]:
            yield {
                "envoy": "  Envoy would take it",
                "nobody": "  no Envoy is there to ask: only compiled",
            }.get(verdict["by"], "  compiled")

    def _table(self, title: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
        if not rows:
            return
        yield f"  {title}"
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield f"    {cells}".rstrip()


async def planned(client: Client, steps: Sequence[Step]) -> list[Planned]:
    """Each step with what it would mean. Raises CtlError."""
    concerned = [
        one.document
        for one in steps
        if one.document is not None and one.document.kind is kinds.REST_API
    ]
    wanted = [one.document for one in steps if one.document is not None]
    plans = [one.name for one in wanted if one.kind is kinds.SUBSCRIPTION_PLAN]
    results: dict[int, Json] = {}
    for batch in _batches(concerned):
        body: Json = {"documents": [_wire(one) for one in batch]}
        if plans:
            body["subscriptionPlans"] = plans
        try:
            answer = await client.request("POST", "/plan", body=body, timeout_s=_TIMEOUT_S)
        except NotFound as error:
            raise NotReachable("the gateway is too old: it does not plan") from error
        results |= {id(one): said for one, said in zip(batch, answer["results"], strict=True)}
    for document, problem in await missing(Shelf(client), wanted):
        results.setdefault(id(document), {}).setdefault("problems", []).append(problem)
    masks = _Masks()
    return [_planned(one, results.get(id(one.document), {}), masks) for one in steps]


async def offline(wanted: Sequence[Document]) -> list[Planned]:
    """What the documents mean to a gateway with the settings of this environment.

    Raises CtlError.
    """
    from ctl.offline import effects  # noqa: PLC0415 - most of the gateway is imported

    found = await effects([_wire(one) for one in wanted if one.kind is kinds.REST_API])
    said = iter(found)
    return [
        _judged(
            Planned(one.label, one.kind.name, one.name, "checked", one.place),
            one,
            next(said) if one.kind is kinds.REST_API else {},
        )
        for one in wanted
    ]


def _planned(step: Step, said: Json, masks: "_Masks") -> Planned:
    made = Planned(
        step.label,
        step.kind.name,
        step.name,
        _WOULD_BE[step.action],
        step.document.place if step.document is not None else "",
        tuple(_field_changes(step, masks)) if step.action is Action.UPDATE else (),
    )
    return made if step.document is None else _judged(made, step.document, said)


def _judged(made: Planned, document: Document, said: Json) -> Planned:
    problems = [
        {**one, "place": document.place_of(one["field"])} for one in said.get("problems", ())
    ]
    verdict = said.get("verdict")
    if verdict is not None and not verdict["accepted"]:
        refuser = "Envoy refuses it" if verdict["by"] == "envoy" else "it cannot be compiled"
        message = f"{refuser}: {verdict['reason']}"
        problems.append({"field": "", "message": message, "place": document.place})
    return Planned(
        made.label,
        made.kind,
        made.name,
        made.would_be,
        made.place,
        made.fields,
        tuple(problems),
        {key: said[key] for key in ("routes", "policies", "verdict") if key in said},
    )


def _wire(document: Document) -> Json:
    return document.body


def _batches(documents: Sequence[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for one in documents:
        bytes_ = len(json.dumps(one.body))
        if batch and (size + bytes_ > _BATCH_BYTES or len(batch) >= _BATCH):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += bytes_
    if batch:
        yield batch


def _field_changes(step: Step, masks: "_Masks") -> Iterator[FieldChange]:
    old, new = comparable(step.kind, step.before, step.document.body if step.document else None)
    before, after = _leaves(old), _leaves(new)
    shown_before, shown_after = _leaves(masks.masked(old)), _leaves(masks.masked(new))
    for path in dict.fromkeys((*before, *after)):
        if before.get(path) != after.get(path):
            was = shown_before.get(path, _MASK) if path in before else None
            becomes = shown_after.get(path, _MASK) if path in after else None
            if was == becomes:
                becomes = f"{becomes} (changed)"
            yield FieldChange(path, was, becomes)


def _leaves(value: Any, path: str = "") -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Every value that holds no others, by its path."""
    found: dict[str, Any] = {}
    if isinstance(value, dict) and value:
        for key, one in value.items():
            found |= _leaves(one, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for index, one in enumerate(value):
            found |= _leaves(one, f"{path}[{index}]")
    elif value is not None or path:
        found[path] = "null" if value is None else value
    return found


class _Masks:
    """Hides what is secret in the parameters of policies, and tokens."""

    def __init__(self) -> None:
        self._catalogue: Any = None

    def masked(self, document: Json | None) -> Json | None:
        """`document` with masks; parameters of a policy that is not known here are hidden whole."""
        if document is None:
            return None
        shown: Json = json.loads(json.dumps(hidden(document)))
        spec = shown.get("spec")
        if isinstance(spec, dict):
            for holder in (spec, *(spec.get("operations") or ())):
                for ref in holder.get("policies") or ():
                    if isinstance(ref, dict) and ref.get("params"):
                        ref["params"] = self._params(ref)
        return shown

    def _params(self, ref: Json) -> Json:
        from bus.resources.rest_api import PolicyRef  # noqa: PLC0415
        from policy_engine.errors import PolicyError  # noqa: PLC0415

        if self._catalogue is None:
            from policy_engine.catalogue import load  # noqa: PLC0415 - takes a while

            self._catalogue = load()
        try:
            shown: Json = self._catalogue.parse(PolicyRef.model_validate(ref)).masked()
        except (PolicyError, ValueError):
            return {}
        return shown


def _short(value: Any) -> str:  # noqa: ANN401 - JSON
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}..."
