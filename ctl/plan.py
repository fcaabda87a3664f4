"""What an `apply` would do: each document against what the gateway has, and what to prune."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bus.resources import faults
from bus.resources.document import API_VERSION
from ctl import kinds, selection
from ctl.client import Client
from ctl.documents import Document, as_kept
from ctl.output import as_yaml
from ctl.shelf import HIDDEN, Shelf, hidden
from ctl.turns import each

Json = dict[str, Any]
MANY = 20
"""From so many documents on, one list is asked for instead of each resource."""


class Action(StrEnum):
    """What a step does."""

    CREATE = "create"
    UPDATE = "update"
    KEEP = "keep"
    DELETE = "delete"

    @property
    def done(self) -> str:
        """The action in the past tense."""
        return {"create": "created", "update": "updated", "keep": "unchanged"}.get(self, "deleted")


@dataclass(frozen=True, slots=True)
class Step:
    """One resource, and what is to become of it."""

    action: Action
    kind: kinds.Kind
    name: str
    before: Json | None = None  # as the gateway has it
    document: Document | None = None  # as the files have it; None: to be deleted

    @property
    def label(self) -> str:
        """How messages call the resource."""
        return self.kind.label(self.name)

    @property
    def revision(self) -> int | None:
        """The revision that the gateway has."""
        return revision_of(self.before) if self.before else None


def revision_of(resource: Json) -> int:
    """The revision of a resource as the gateway shows it."""
    return int(resource["status"]["revision"])


async def steps(
    client: Client, documents: Sequence[Document], advance: Callable[[], None]
) -> list[Step]:
    """A step for each document, in their order. `advance` is called after each."""
    shelf = Shelf(client)
    listed = await _listed(shelf, documents) if len(documents) > MANY else None

    async def compare(document: Document) -> Step:
        if listed is None:
            before = await shelf.find(document.kind, document.name)
        else:
            before = listed.get((document.kind.name, document.name))
        if before is not None:
            before = await shelf.with_secret(document.kind, before, document.body)
        advance()
        return Step(_action(document, before), document.kind, document.name, before, document)

    return await each(documents, compare)


async def _listed(shelf: Shelf, documents: Sequence[Document]) -> dict[tuple[str, str], Json]:
    """All resources of the documents' kinds, by kind and name."""
    return {
        (kind.name, str(resource["metadata"]["name"])): resource
        for kind in {document.kind.name: document.kind for document in documents}.values()
        for resource in await shelf.listed(kind)
    }


async def superfluous(
    client: Client,
    documents: Iterable[Document],
    terms: tuple[selection.Term, ...],
    applied_set: str | None,
) -> list[Step]:
    """A deletion for each resource of the set, and of the selector, that `documents` lack.

    Kinds without labels are never pruned.
    """
    wanted = {(document.kind.name, document.name) for document in documents}
    found: list[Step] = []
    for kind in (one for one in kinds.KINDS if one.record is None):
        found.extend(
            Step(Action.DELETE, kind, name, before=resource)
            for resource in await client.listed(kind.collection, kind.list_key)
            if (kind.name, name := str(resource["metadata"]["name"])) not in wanted
            and selection.selected(resource, terms)
            and (applied_set is None or selection.applied_set(resource) == applied_set)
        )
    return sorted(found, key=lambda step: (step.kind.name, step.name))


def difference(step: Step) -> list[str]:
    """The step as a unified diff, without line ends; empty when it changes nothing."""
    if step.action is Action.KEEP:
        return []
    after = step.document.body if step.document else None
    old, new = (hidden(one) for one in comparable(step.kind, step.before, after))
    was = f"gateway: {step.label}"
    if step.revision is not None:
        was += f" revision {step.revision}"
    becomes = step.document.place if step.document else "deleted"
    lines = list(
        difflib.unified_diff(
            as_yaml(old).splitlines() if old is not None else [],
            as_yaml(new).splitlines() if new is not None else [],
            was if old is not None else "gateway: nothing",
            becomes,
            lineterm="",
        )
    )
    return lines or [f"--- {was}", f"+++ {becomes}", f"+  a secret of it changes ({HIDDEN})"]


def comparable(
    kind: kinds.Kind, before: Json | None, after: Json | None
) -> tuple[Json | None, Json | None]:
    """Both without what says nothing: defaults, the gateway's status, the version of the format."""
    try:
        return _modelled(kind, before), _modelled(kind, after)
    except faults.InvalidResource:  # templates stand where numbers will be
        return _bare(before), _bare(after)


def _action(document: Document, before: Json | None) -> Action:
    if before is None:
        return Action.CREATE
    old, new = comparable(document.kind, before, document.body)
    return Action.KEEP if old == new else Action.UPDATE


def _modelled(kind: kinds.Kind, body: Json | None) -> Json | None:
    if body is None:
        return None
    model = faults.parse(kind.model(), as_kept(body))
    return _current(model.model_dump(mode="json", by_alias=True, exclude_defaults=True))


def _bare(body: Json | None) -> Json | None:
    return None if body is None else _current(as_kept(body))


def _current(body: Json) -> Json:
    """`body` in today's format, and with its version in the context as the gateway shows it."""
    spec = body.get("spec")
    if isinstance(spec, dict) and isinstance(spec.get("context"), str):
        context = spec["context"].replace("$version", str(spec.get("version")))
        body = {**body, "spec": {**spec, "context": context}}
    return {**body, "apiVersion": API_VERSION}
