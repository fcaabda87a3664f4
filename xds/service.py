"""The loop between the bus and the routers. It holds no rules.

What can happen, all through one inbox, one at a time:
* an event of `state.*`: the model changes, the changed APIs are compiled and pushed
* a router connects, disconnects, acknowledges or refuses: told on the bus as `router.*`
* a key or plan expires: its APIs are compiled again without it
* the code of policies changes: their APIs are compiled again
* the workers of the policy engine are awake: what has waited for them is compiled
* somebody asks for a full report
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Protocol

import structlog

from bus.events import Event, RouterReportRequested
from bus.ports import Bus
from bus.resources.rest_api import RestApi
from bus.subjects import Family, pattern
from policy_engine.identity.signing import jwks
from policy_engine.policy import Refusal
from policy_engine.refusals import local_reply_config
from policy_engine.system import SystemParameters
from xds import metrics
from xds.ads.protocol import Resource
from xds.ads.server import AdsServer, Tls
from xds.assembly import Assembly, Wanted
from xds.certificates import Certificate, check_service, development, load, upstream_authorities
from xds.compile.api import Catalogue as CompilesFrom
from xds.compile.scopes import HEALTH_SEGMENT, SCOPE, health_scope, scope_name
from xds.errors import BadCertificate
from xds.inbox import (
    Applied,
    Connected,
    Disconnected,
    Expired,
    Inbox,
    PoliciesChanged,
    Rejected,
    WorkersAwake,
)
from xds.last_good import LastGoodFolder
from xds.liveness import Liveness
from xds.model import Model
from xds.publication import SCOPE_URL, Changes
from xds.reports import Reports
from xds.settings import XdsSettings
from xds.statics import Statics
from xds.waiting import NoWorkers, Waiting, Workers
from xds.wire.messages import digest, encode

log = structlog.get_logger()

_COMPILE_CHUNK = 200  # APIs compiled before the loop lets others run
_LONGEST_TIMER_S = 86_400.0


class Catalogue(CompilesFrom, Protocol):
    """Where policies come from, and how their refusals are dressed."""

    @property
    def troubles(self) -> Mapping[str, str]:
        """What is wrong with the files that policies come from, by policy."""
        ...

    def refusals(self) -> tuple[Refusal, ...]:
        """Of all policies and of the gateway itself."""
        ...

    def changes(self) -> AsyncIterator[frozenset[str]]:
        """The names of policies that have changed, whenever some have."""
        ...


class Service:
    """The state of the loop."""

    def __init__(
        self,
        bus: Bus,
        ads: AdsServer,
        inbox: Inbox,
        assembly: Assembly,
        statics: Statics,
        catalogue: Catalogue,
        ready: Callable[[], None],
        *,
        org: str,
        gateway: str,
        waiting: Waiting,
    ) -> None:
        self._waiting = waiting
        self._bus = bus
        self._ads = ads
        self._inbox = inbox
        self._assembly = assembly
        self._statics = statics
        self._catalogue = catalogue
        self._ready = ready
        self._where = {"org": org, "gateway": gateway}
        self._reports = Reports(bus, org=org, gateway=gateway)
        self._model = Model()
        self._liveness = Liveness()
        self._versions: dict[str, str] = {}  # router -> Envoy's version
        self._unseen: int | None = None  # events of current state still to come
        self._open = False
        self._expiry: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Until cancelled."""
        health = _resource_of_health(self._catalogue.system)
        self._ads.publish([*self._statics.resources(None), health])
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(), name="xds: read state")
            group.create_task(self._listen(), name="xds: hear requests")
            group.create_task(self._watch(), name="xds: watch policies")
            group.create_task(self._waiting.run(), name="xds: wait for workers")
            group.create_task(self._reports.run(), name="xds: tell what happened")
            group.create_task(self._work(), name="xds: work")

    async def _read(self) -> None:
        async with self._bus.follow(pattern(Family.STATE, **self._where)) as feed:
            self._unseen = feed.backlog
            async for event in feed:
                self._inbox.put(event)

    async def _listen(self) -> None:
        async with self._bus.follow(
            pattern(Family.COMMAND, "router-report", **self._where)
        ) as feed:
            async for event in feed:
                self._inbox.put(event)

    async def _watch(self) -> None:
        async for names in self._catalogue.changes():
            self._inbox.put(PoliciesChanged(names))

    async def _work(self) -> None:
        while True:
            batch = await self._inbox.batch()
            touched: dict[str, None] = {}
            for item in batch:
                match item:
                    case Connected() | Disconnected() | Applied() | Rejected():
                        await self._serve(touched)
                        self._router(item)
                    case Expired():
                        touched |= dict.fromkeys(self._model.expired(datetime.now(UTC)))
                    case PoliciesChanged(names):
                        await self._serve(touched)
                        touched |= dict.fromkeys(self._policies_changed(names))
                    case WorkersAwake():
                        await self._serve(self._waiting.taken(), waits=False)
                    case RouterReportRequested():
                        for node in self._liveness.nodes:
                            self._report(node)
                        self._reports.still_refused(self._assembly.held)
                        self._reports.faults(self._catalogue.troubles)
                    case Event():
                        touched |= dict.fromkeys(self._model.apply(item))
                        if self._unseen is not None:
                            self._unseen -= 1
            await self._serve(touched)
            self._schedule_expiry()
            self._open_when_whole()

    async def _serve(self, touched: dict[str, None], *, waits: bool = True) -> None:
        """Compile and push the APIs that changed; `waits`: those that need workers wait for them.

        What routers are to have when they start waits for nobody.
        """
        now = datetime.now(UTC)
        names = [name for name in touched if name in self._model.apis]
        touched.clear()
        if waits and self._open:
            held = self._waiting.holds
            names = [one for one in names if not held(one, self._model.apis[one].api)]
        for start in range(0, len(names), _COMPILE_CHUNK):
            began = monotonic()
            chunk = names[start : start + _COMPILE_CHUNK]
            wanted = {
                name: Wanted(
                    self._model.apis[name].revision,
                    self._model.apis[name].api,
                    self._model.credentials(name, now),
                    self._model.subscriptions.live(name, now),
                )
                for name in chunk
            }
            self._push(self._assembly.update(wanted), node="")
            self._find_faults(chunk)
            metrics.compiled(len(chunk), monotonic() - began)
            await asyncio.sleep(0)

    def _push(self, changes: Changes, *, node: str) -> None:
        """Give `changes` to the routers, and tell what is already settled or refused."""
        for scope, version in changes.scopes.items():
            self._liveness.publish(scope, version)
        for api_id, (revision, scopes) in changes.expected.items():
            if revision is None:
                self._liveness.forget(api_id)
            else:
                self._liveness.expect(api_id, revision, scopes)
        upserts = list(changes.upserts.values())
        if changes.root_hosts_changed:
            upserts = [*self._statics.resources(self._assembly.root_hosts), *upserts]
        if upserts or changes.removals:
            self._ads.publish(upserts, list(changes.removals))
        for live_on, revisions in self._liveness.settle(changes.expected).items():
            self._reports.applied(live_on, revisions)
        for one in changes.refused:
            metrics.refusals.inc()
            log.warning(
                "api refused", api=one.api_id, revision=one.revision, node=node, reason=one.reason
            )
            self._reports.refused(one.api_id, one.revision, one.reason, node=node)

    def _router(self, item: Connected | Disconnected | Applied | Rejected) -> None:
        match item:
            case Connected(node, version):
                log.info("router connected", node=node, version=version)
                self._liveness.connect(node)
                self._versions[node] = version
                self._reports.connected(node, version)
            case Disconnected(node):
                log.warning("router disconnected", node=node)
                self._liveness.disconnect(node)
                self._reports.disconnected(node)
            case Applied(node, resources):
                scopes = {
                    name: version
                    for (type_url, name), version in resources.items()
                    if type_url == SCOPE_URL
                }
                self._reports.applied(node, self._liveness.acknowledge(node, scopes))
                for name, taken in scopes.items():
                    self._push(self._assembly.acknowledged(name, taken), node=node)
            case Rejected(node, type_url, name, version, reason):
                log.warning("resource refused", node=node, type=type_url, name=name, reason=reason)
                self._push(self._assembly.rejected(type_url, name, version, reason), node=node)

    def _report(self, node: str) -> None:
        """Tell everything about a router again."""
        self._reports.connected(node, self._versions.get(node, ""))
        self._reports.applied(node, self._liveness.report(node), complete=True)

    def _policies_changed(self, names: frozenset[str]) -> list[str]:
        """The APIs that use the policies, each to be judged anew; and how refusals look."""
        if self._statics.dress(local_reply_config(self._catalogue.refusals())):
            self._ads.publish(self._statics.resources(self._assembly.root_hosts))
        found = [one for one, wanted in self._model.apis.items() if names & _policies(wanted.api)]
        self._liveness.tell_again(self._assembly.reconsider(found))
        if self._reports.has_faults:
            self._reports.faults(self._catalogue.troubles)
        return found

    def _find_faults(self, api_ids: Iterable[str]) -> None:
        """Tell it when the files of the policies of these APIs are broken, or are mended."""
        troubles = self._catalogue.troubles
        self._reports.use(
            (
                (api_id, _policies(self._model.apis[api_id].api) if troubles else frozenset())
                for api_id in api_ids
            ),
            troubles,
        )

    def _open_when_whole(self) -> None:
        """Half a gateway is worse than an old one: answer routers once all state is in."""
        if self._open or not self._model.complete or self._unseen is None or self._unseen > 0:
            return
        self._open = True
        self._ads.open()
        self._ready()
        log.info(
            "serving routers", apis=sum(one.api is not None for one in self._model.apis.values())
        )

    def _schedule_expiry(self) -> None:
        """Come back when the next key or plan expires."""
        if self._expiry is not None:
            self._expiry.cancel()
        now = datetime.now(UTC)
        due = self._model.next_expiry
        if due is not None:
            delay_s = min(max(0.0, (due - now).total_seconds()), _LONGEST_TIMER_S)
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(delay_s, self._inbox.put, Expired())


def _policies(api: RestApi | None) -> frozenset[str]:
    """The names of the policies that a deployed API uses."""
    if api is None or api.spec.deployment_state != "deployed":
        return frozenset()
    attached = (api.spec.policies, *(one.policies for one in api.spec.operations))
    return frozenset(ref.name for refs in attached for ref in refs)


def _resource_of_health(system: SystemParameters) -> Resource:
    body = encode(SCOPE, health_scope(jwks(system)))
    return Resource(SCOPE_URL, scope_name(HEALTH_SEGMENT), digest(body), body)


async def run(
    settings: XdsSettings,
    bus: Bus,
    catalogue: Catalogue,
    ready: Callable[[], None],
    *,
    folder: Path,
    org: str = "default",
    gateway: str = "default",
    access_log: bool = True,
    workers: Workers | None = None,
) -> None:
    """Serve routers until cancelled; `ready` is called once the whole state is through.

    `folder` keeps the socket and the development certificate. `access_log`: routers have a
    cluster for it (see `xds.bootstrap`). `workers`: of the policy engine.
    Raises BadCertificate, InsecureAddress.
    """
    check_service(settings)
    inbox = Inbox()
    statics = Statics(
        settings,
        certificate=_certificate(settings, folder),
        authorities=upstream_authorities(settings.upstream_ca_file),
        local_reply=local_reply_config(catalogue.refusals()),
        access_log=access_log,
        client_authorities=catalogue.system.client_authorities,
        client_revocations=catalogue.system.client_revocations,
    )
    address = (settings.xds_address, settings.xds_port) if settings.xds_port else None
    certificate, key = settings.xds_tls_certificate_file, settings.xds_tls_key_file
    tls = Tls(certificate, key, settings.xds_client_ca_file) if certificate and key else None
    async with AdsServer(
        inbox, socket=settings.xds_socket or folder / "xds.sock", address=address, tls=tls
    ) as ads:
        assembly = Assembly(catalogue, settings, LastGoodFolder(folder / "last-good"))
        service = Service(
            bus,
            ads,
            inbox,
            assembly,
            statics,
            catalogue,
            ready,
            org=org,
            gateway=gateway,
            waiting=Waiting(workers or NoWorkers(), inbox, catalogue, settings.engine_wake_max_s),
        )
        await service.run()


def _certificate(settings: XdsSettings, folder: Path) -> Certificate | None:
    if not settings.https_port:
        return None
    if settings.tls_certificate_file is None and settings.tls_key_file is None:
        return development(folder)
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        raise BadCertificate("tls_certificate_file and tls_key_file must be given together")
    return load(settings.tls_certificate_file, settings.tls_key_file)
