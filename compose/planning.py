"""What documents would become, before they are applied: routes, policies, Envoy's verdict.

Here is where the use-cases of the controller, the compiler of xds and the binary of Envoy meet.
Nothing is stored, published or pushed, and no configuration is shown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response

from bus.resources.rest_api import PolicyRef, RestApi
from compose.envoy_trial import EnvoyTrial, TrialFailed
from compose.errors import WrongVersion
from compose.servers import ENVOY, binary
from compose.settings import Settings
from controller.errors import Invalid
from controller.errors import Refused as RefusedByController
from controller.rest.answers import answer, refusal
from controller.rest.requests import body
from controller.validation import accepted, rest_api
from policy_engine.catalogue import Catalogue
from policy_engine.conditions.conditional import parts
from policy_engine.errors import PolicyError
from policy_engine.hooks import PythonPolicy
from policy_engine.refusals import local_reply_config
from xds.compile.api import CompiledApi, compile_api
from xds.errors import NotCompiled
from xds.settings import XdsSettings
from xds.standalone import scopes, standalone
from xds.wire.errors import WireError
from xds.wire.messages import encode

Json = dict[str, Any]

_MANY = 500  # documents in one request
_DOCUMENTS: Json = {"type": "array", "maxItems": _MANY, "items": {"type": "object"}}
_SCHEMA: Json = {
    "type": "object",
    "required": ["documents"],
    "properties": {
        "documents": _DOCUMENTS,
        "subscriptionPlans": {
            "description": "Names of plans that would be there before the documents",
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": 255},
        },
    },
}
_REQUEST = {"application/json": {"schema": _SCHEMA}}
_SCOPE = "envoy.config.route.v3.ScopedRouteConfiguration"


def planner_of(settings: Settings, catalogue: Catalogue) -> "Planner":
    """The one of a gateway with these settings."""
    try:
        trial = EnvoyTrial(binary(ENVOY, settings))
    except WrongVersion:  # a machine without a router
        return Planner(catalogue, settings.xds, None)
    return Planner(catalogue, settings.xds, trial)


@dataclass(frozen=True, slots=True)
class Planner:
    """Says what APIs would be to the routers of this gateway."""

    catalogue: Catalogue
    settings: XdsSettings
    trial: EnvoyTrial | None  # None: there is no Envoy here

    async def effects(self, apis: Sequence[RestApi]) -> list[Json]:
        """For each API its routes, its policies, and the verdict on it. Raises TrialFailed."""
        made: list[CompiledApi | str] = [self._compiled(api) for api in apis]
        good = [one for one in made if isinstance(one, CompiledApi) and one.sites]
        refused = {} if self.trial is None else await self._refused(self.trial, good)
        return [
            self._effect(api, one, refused.get(api.id) if isinstance(one, CompiledApi) else one)
            for api, one in zip(apis, made, strict=True)
        ]

    def _effect(self, api: RestApi, made: CompiledApi | str, reason: str | None) -> Json:
        by = "compiler" if isinstance(made, str) else "envoy" if self.trial else "nobody"
        return {
            "id": api.id,
            "routes": list(_routes(made)) if isinstance(made, CompiledApi) else [],
            "policies": list(self._policies(api)),
            "verdict": {"by": by, "accepted": reason is None, "reason": reason},
        }

    def _compiled(self, api: RestApi) -> CompiledApi | str:
        """The API without its keys, or why it cannot be said to Envoy."""
        try:
            made = compile_api(api.rendered(), 1, (), self.catalogue, self.settings)
            for document in scopes((made,), self.settings.matcher_tree_threshold):
                encode(_SCOPE, document)
        except NotCompiled as error:
            return error.reason
        except WireError as error:
            return str(error)
        return made

    async def _refused(self, trial: EnvoyTrial, apis: Sequence[CompiledApi]) -> dict[str, str]:
        """Those that Envoy refuses, with its reason: halves are tried until it is one alone."""
        if not apis:
            return {}
        local_reply = local_reply_config(self.catalogue.refusals())
        reason = await trial.verdict(standalone(apis, self.settings, local_reply))
        if reason is None:
            return {}
        if len(apis) == 1:
            return {apis[0].api_id: reason}
        middle = len(apis) // 2
        found = await self._refused(trial, apis[:middle])
        found |= await self._refused(trial, apis[middle:])
        # they are only refused together: that is said of each
        return found or {one.api_id: reason for one in apis}

    def _policies(self, api: RestApi) -> Iterator[Json]:
        spec = api.spec
        levels: list[tuple[str, Sequence[PolicyRef]]] = [("api", spec.policies)]
        for one in spec.operations:
            at = f"{one.matcher.method} {one.matcher.path.value}"
            levels.append((at, one.policies))
        for at, refs in levels:
            for ref in refs:
                yield {"at": at, "name": ref.name} | self._place(ref)

    def _place(self, ref: PolicyRef) -> Json:
        """Where a policy runs, and why there."""
        try:
            one = self.catalogue.attach(ref)
            version, mode = str(one.policy.version), ref.mode
            if isinstance(one.policy, PythonPolicy):
                runs, reason = "python", one.policy.why_python
            elif any(part.probes for part in parts(one, "plan")):
                runs, reason = "envoy", "its condition is decided in Python: Envoy cannot say it"
            else:
                runs, reason = "envoy", ""
        except PolicyError as error:
            return {
                "version": ref.version,
                "mode": ref.mode,
                "runs": "nowhere",
                "reason": str(error),
            }
        return {"version": version, "mode": mode, "runs": runs, "reason": reason}


def _routes(api: CompiledApi) -> Iterator[Json]:
    """Each operation once, with its hosts."""
    found: dict[tuple[str, str, str], dict[str, None]] = {}
    for site in api.sites:
        for route in site.routes:
            key = route.key
            hosts = found.setdefault((key.method, key.path, key.discriminator), {})
            hosts.update(dict.fromkeys(site.hosts))
    for (method, path, matching), hosts in found.items():
        told: Json = {"method": method, "path": path, "hosts": list(hosts)}
        yield told | ({"matching": matching} if matching else {})


def plan_router(planner: Planner) -> APIRouter:
    """`POST /plan`: what the documents in the body would become; nothing is applied."""
    router = APIRouter(tags=["Plan"])

    @router.post(
        "/plan",
        summary="What documents would become; nothing is applied",
        openapi_extra={"requestBody": {"required": True, "content": _REQUEST}},
    )
    async def plan(request: Request) -> Response:
        given = await body(request)
        documents, plans = given.get("documents"), given.get("subscriptionPlans") or []
        if not isinstance(documents, list) or not all(isinstance(one, dict) for one in documents):
            return answer(refusal("documents must be a list of RestApi documents"), 400)
        if len(documents) > _MANY:
            return answer(refusal(f"documents must be at most {_MANY}"), 400)
        if not isinstance(plans, list) or not all(_is_plan_name(one) for one in plans):
            return answer(refusal("subscriptionPlans must be a list of names of plans"), 400)
        rehearsed = await request.app.state.apis.rehearse(documents, plans)
        try:
            return answer({"status": "success", "results": await _results(planner, rehearsed)})
        except TrialFailed as error:
            return answer(refusal(str(error)), HTTPStatus.SERVICE_UNAVAILABLE)

    return router


def _is_plan_name(one: object) -> bool:
    return isinstance(one, str) and 0 < len(one) <= 255


async def effects_of(planner: Planner, documents: Sequence[Json]) -> list[Json]:
    """What `POST /plan` says, as far as it can be known without a record. Raises TrialFailed."""
    checked: list[RestApi | RefusedByController] = []
    for one in documents:
        try:
            checked.append(rest_api(accepted(one), planner.catalogue))
        except RefusedByController as error:
            checked.append(error)
    return await _results(planner, checked)


async def _results(
    planner: Planner, checked: Sequence[RestApi | RefusedByController]
) -> list[Json]:
    effects = iter(await planner.effects([one for one in checked if isinstance(one, RestApi)]))
    return [
        next(effects) | {"problems": []} if isinstance(one, RestApi) else _problems(one)
        for one in checked
    ]


def _problems(error: RefusedByController) -> Json:
    faults = error.faults if isinstance(error, Invalid) else ()
    problems = [{"field": one.field, "message": one.message} for one in faults]
    return {"problems": problems or [{"field": "", "message": str(error)}]}
