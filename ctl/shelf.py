"""Resources of a gateway as documents, whatever shape its API gives them.

An API is a document there as well. Plans, applications and subscriptions are records (see
`ctl.kinds.Record`): what a document does not say is cleared, so that a file says all there is.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bus.resources.document import API_VERSION
from ctl.client import Client, part
from ctl.errors import NotFound, Refused
from ctl.kinds import KINDS, SUBSCRIPTION_PLAN, Kind, Record
from ctl.records import new_token

Json = dict[str, Any]
HIDDEN = "********"
PLAN = "subscriptionPlan"
"""How documents call the plan of a subscription."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """All resources of one gateway."""

    client: Client

    async def get(self, kind: Kind, name: str) -> Json:
        """One resource. Raises NotFound."""
        record = kind.record
        if record is None:
            return await self.client.get(kind.collection, name)
        return _document(kind, record, await self._record(kind, name), await self._plans(record))

    async def find(self, kind: Kind, name: str) -> Json | None:
        """One resource, None when there is none."""
        try:
            return await self.get(kind, name)
        except NotFound:
            return None

    async def listed(self, kind: Kind, query: Mapping[str, str | None] | None = None) -> list[Json]:
        """All resources of a kind that meet the conditions of `query`."""
        found = await self.client.listed(kind.collection, kind.list_key, query)
        if kind.record is None:
            return found
        plans = await self._plans(kind.record)
        return [_document(kind, kind.record, one, plans) for one in found]

    async def create(self, kind: Kind, body: Json) -> int:
        """The revision of the new resource."""
        if kind.record is None:
            return _revision(await self.client.create(kind.collection, body))
        sent = await self._sent(kind.record, body)
        if kind.record.hidden_field:
            sent.setdefault(kind.record.hidden_field, new_token())
        sent[kind.record.name_field] = body["metadata"]["name"]
        return int((await self.client.create(kind.collection, sent))["revision"])

    async def replace(self, kind: Kind, name: str, body: Json, if_revision: int | None) -> int:
        """The revision of the changed resource."""
        if kind.record is None:
            return _revision(await self.client.replace(kind.collection, name, body, if_revision))
        found = await self._record(kind, name)
        sent = await self._sent(kind.record, body)
        return int((await self.client.replace(kind.collection, found["id"], sent))["revision"])

    async def delete(self, kind: Kind, name: str, if_revision: int | None) -> int | None:
        """The revision that says that it is gone, where there is one. Raises NotFound."""
        if kind.record is None:
            answer = await self.client.delete(kind.collection, name, if_revision)
            return int(answer["revision"])
        found = await self._record(kind, name)
        await self.client.request("DELETE", f"/{kind.collection}/{part(found['id'])}")
        return None

    async def with_secret(self, kind: Kind, before: Json, wanted: Json) -> Json:
        """`before` with the secret of `wanted` if that is its own, as something else if not.

        The gateway tells nobody a secret, but whether it knows a digest.
        """
        secret = kind.record.hidden_field if kind.record else ""
        given = wanted["spec"].get(secret) if secret else None
        if given is None:
            return before
        digest = hashlib.sha256(str(given).encode()).hexdigest()
        query = {"apiId": before["spec"]["apiId"], f"{secret}Digest": digest}
        known = await self.client.listed(kind.collection, kind.list_key, query)
        same = any(one["id"] == before["metadata"]["name"] for one in known)
        return {**before, "spec": {**before["spec"], secret: given if same else HIDDEN}}

    async def _record(self, kind: Kind, name: str) -> Json:
        if kind.record is None or kind.record.name_field == "id":
            return await self.client.get(kind.collection, name)
        for one in await self.client.listed(kind.collection, kind.list_key):
            if one[kind.record.name_field] == name:
                return one
        raise NotFound(f"{kind.label(name)} not found")

    async def _plans(self, record: Record) -> dict[str, str]:
        """The names of plans by their ids, if the record has one."""
        if not record.plan_field:
            return {}
        plans = SUBSCRIPTION_PLAN
        found = await self.client.listed(plans.collection, plans.list_key)
        return {one["id"]: one["planName"] for one in found}

    async def _sent(self, record: Record, body: Json) -> Json:
        """What a request says of a document. Raises Refused for a plan that does not exist."""
        spec = body.get("spec") or {}
        sent = {name: spec.get(name) for name in record.fields}
        if record.plan_field and spec.get(PLAN) is not None:
            ids = {name: one for one, name in (await self._plans(record)).items()}
            if spec[PLAN] not in ids:
                fault = (record.plan_field, f"there is no plan {spec[PLAN]!r}")
                raise Refused("a plan is missing", faults=[fault])
            sent[record.plan_field] = ids[spec[PLAN]]
        if record.hidden_field and spec.get(record.hidden_field) is not None:
            sent[record.hidden_field] = spec[record.hidden_field]
        return sent


def field_of(kind: Kind, field: str) -> str:
    """Where a document says what a fault of the gateway calls `field`."""
    record = kind.record
    if record is None or not field:
        return field
    if field == record.name_field:
        return "metadata.name"
    return f"spec.{PLAN if field == record.plan_field else field}"


def hidden(document: Json | None) -> Json | None:
    """`document` with a mask for the secret that may stand in it."""
    spec = document.get("spec") if document else None
    secrets = {kind.record.hidden_field for kind in KINDS if kind.record is not None}
    if document is None or not isinstance(spec, dict) or not secrets & spec.keys():
        return document
    masked = {key: HIDDEN if key in secrets else one for key, one in spec.items()}
    return {**document, "spec": masked}


def _revision(resource: Json) -> int:
    return int(resource["status"]["revision"])


def _document(kind: Kind, record: Record, found: Json, plans: Mapping[str, str]) -> Json:
    spec = {name: found[name] for name in record.fields if name in found}
    if record.plan_field in spec:
        plan = spec[record.plan_field]
        spec = {PLAN if name == record.plan_field else name: one for name, one in spec.items()} | {
            PLAN: plans.get(plan, plan)
        }
    return {
        "apiVersion": API_VERSION,
        "kind": kind.name,
        "metadata": {"name": found[record.name_field]},
        "spec": spec,
        "status": {name: found[name] for name in ("id", "createdAt", "updatedAt", "revision")},
    }
