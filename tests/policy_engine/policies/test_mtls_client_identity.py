import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.x509 import DNSName, RFC822Name, UniformResourceIdentifier
from pydantic import ValidationError

from policy_engine.catalogue import load
from policy_engine.chain import compile_chain
from policy_engine.errors import InvalidParameters, PolicyNotCompiled
from policy_engine.parameters.headers import APPLICATION_HEADER
from policy_engine.policy import typed
from policy_engine.shadow import RBAC_NAMESPACE, reports
from policy_engine.system import SystemParameters
from tests.policy_engine.attached import CATALOGUE, LOCAL_REPLY, policy
from tests.policy_engine.gateway import Api
from tests.servers.certificates import Authority, Identity, name, presenting, server_identity
from tests.servers.http_backend import HttpBackend, http_backend
from tests.xds.routing import api, router
from xds.certificates import Certificate
from xds.listener import CLIENT_SECRET, GATEWAY_SECRET, client_authorities_secret, gateway_secret

AUTHORITY = Authority(name(CN="clients"))
SERVER = server_identity()
ORDERS = AUTHORITY.issue(
    name(O="Example", CN="orders"),
    DNSName("a.clients.example"),
    DNSName("orders.clients.example"),
    UniformResourceIdentifier("spiffe://example.com/orders"),
    RFC822Name("orders@example.com"),
)
BARE = AUTHORITY.issue(name(CN='100% "x"; é'))
NOBODY = AUTHORITY.issue(name())
STRANGER = Authority(name(CN="clients")).issue(name(O="Example", CN="orders"))
EXPIRED = AUTHORITY.issue(name(CN="late"), expired=True)
REQUIRED = {"error": "Unauthorized", "message": "A valid client certificate is required"}
FORBIDDEN = {"error": "Forbidden", "message": "This client certificate is not allowed"}
CUT_OFF = 0
_FILE_LOG = "envoy.extensions.access_loggers.file.v3.FileAccessLog"


@dataclass(frozen=True)
class Door:
    """An HTTPS listener that asks for certificates."""

    url: str
    backend: HttpBackend

    async def status(self, who: Identity | None, path: str = "/shop/x", **headers: str) -> int:
        """What the caller is answered; `CUT_OFF` when the connection is ended."""
        verify = presenting(who)
        async with httpx.AsyncClient(base_url=self.url, verify=verify, timeout=30) as client:
            try:
                answer = await client.get(path, headers=headers)
            except (
                httpx.TransportError,
                ssl.SSLError,
            ):  # anyio passes some alerts as they are
                return CUT_OFF
        if answer.status_code in (401, 403):
            assert answer.json() == (REQUIRED if answer.status_code == 401 else FORBIDDEN)
        return answer.status_code


def asking(tmp_path: Path) -> SystemParameters:
    file = tmp_path / "authorities.pem"
    file.write_text(AUTHORITY.pem)
    return SystemParameters(client_authorities_file=file)


@asynccontextmanager
async def door(
    tmp_path: Path,
    params: Mapping[str, Any] | None,
    *,
    revocations: str = "",
    mode: str = "enforce",
    log: dict[str, Any] | None = None,
) -> AsyncIterator[Door]:
    one = {"name": "mtls-client-identity", "mode": mode, "params": params}
    attached = [] if params is None else [one]
    secrets = (
        gateway_secret(Certificate(SERVER.pem, SERVER.key_pem)),
        client_authorities_secret(AUTHORITY.pem, revocations),
    )
    async with http_backend() as backend:
        written = f"""
        name: shop
        context: /shop
        upstream: {{main: {{url: "{backend.url}"}}}}
        operations:
          - {{method: GET, path: /open}}
          - {{method: GET, path: /x, policies: {attached}}}
        """
        async with router(
            api(written),
            catalogue=load((), system=asking(tmp_path)),
            local_reply=LOCAL_REPLY,
            https=dict(zip((GATEWAY_SECRET, CLIENT_SECRET), secrets, strict=True)),
            access_log=log,
        ) as running:
            yield Door(str(running.client.base_url), backend)


async def test_only_callers_with_a_valid_certificate_pass(tmp_path: Path) -> None:
    async with door(tmp_path, {}) as gate:
        assert await gate.status(ORDERS) == 200
        assert gate.backend.last.all(APPLICATION_HEADER) == ["CN=orders,O=Example"]
        assert await gate.status(None) == 401
        assert await gate.status(STRANGER) == CUT_OFF
        assert await gate.status(EXPIRED) == CUT_OFF
        assert len(gate.backend.requests) == 1


async def test_in_shadow_mode_all_pass_and_who_would_not_is_reported(tmp_path: Path) -> None:
    told = tmp_path / "access.log"
    config = {
        "path": str(told),
        "log_format": {"json_format": {"rbac": f"%DYNAMIC_METADATA({RBAC_NAMESPACE})%"}},
    }
    log = {"name": "file", "typed_config": typed(_FILE_LOG, config)}
    named = {"subjects": ["CN=orders,O=Example"]}
    async with door(tmp_path, named, mode="shadow", log=log) as gate:
        for who in (ORDERS, BARE, None):
            assert await gate.status(who) == 200
            assert gate.backend.last.all(APPLICATION_HEADER) == []
        async with asyncio.timeout(30):
            while len(told.read_text().splitlines()) < 3:
                await asyncio.sleep(0.02)
    found = [
        [name for name, _ in reports({RBAC_NAMESPACE: json.loads(line)["rbac"]})]
        for line in told.read_text().splitlines()
    ]
    assert found == [[], ["mtls-client-identity"], ["mtls-client-identity"]]


async def test_other_operations_do_not_ask(tmp_path: Path) -> None:
    async with door(tmp_path, {}) as gate:
        assert await gate.status(None, "/shop/open") == 200
        assert await gate.status(ORDERS, "/shop/open") == 200
        assert gate.backend.last.header(APPLICATION_HEADER) is None


@pytest.mark.parametrize(
    "params",
    [
        {"dnsNames": ["ORDERS.clients.example"]},
        {"dnsNames": ["x.example", "*.clients.example"]},
        {"uris": ["spiffe://example.com/orders"]},
        {"uris": ["spiffe://example.com/*"]},
        {"emails": ["*@example.com"]},
        {"subjects": ["CN=orders,O=Example"]},
        {"subjects": ["CN=orders,*"]},
        {"subjects": ["*,O=Example"]},
        {"fingerprints": [ORDERS.fingerprint]},
        {
            "fingerprints": [
                ":".join(ORDERS.fingerprint.upper()[i : i + 2] for i in range(0, 64, 2))
            ]
        },
        {"dnsNames": ["x.example"], "subjects": ["CN=orders,O=Example"]},
    ],
)
async def test_who_is_named_passes_and_others_do_not(
    tmp_path: Path, params: dict[str, Any]
) -> None:
    async with door(tmp_path, params) as gate:
        assert await gate.status(ORDERS) == 200
        assert await gate.status(BARE) == 403
        assert await gate.status(NOBODY) == 403
        assert await gate.status(None) == 401


@pytest.mark.parametrize(
    "params",
    [
        {"dnsNames": ["clients.example", "orders.clients.exampl", "*.orders.clients.example"]},
        {"uris": ["spiffe://example.com/Orders", "spiffe://example.com/orders/*"]},
        {"emails": ["*@ample.com"]},
        {"subjects": ["CN=orders", "O=Example,CN=orders", "cn=orders,o=example"]},
        {"fingerprints": [BARE.fingerprint]},
    ],
)
async def test_names_are_compared_as_a_whole(tmp_path: Path, params: dict[str, Any]) -> None:
    async with door(tmp_path, params) as gate:
        assert await gate.status(ORDERS) == 403


@pytest.mark.parametrize(
    ("identity", "told"),
    [
        ("subject", "CN=orders,O=Example"),
        ("dnsName", "a.clients.example,orders.clients.example"),
        ("uri", "spiffe://example.com/orders"),
        ("email", "orders@example.com"),
        pytest.param("fingerprint", ORDERS.fingerprint, id="fingerprint"),  # the same in each run
    ],
)
async def test_the_application_is_what_the_certificate_says(
    tmp_path: Path, identity: str, told: str
) -> None:
    async with door(tmp_path, {"identity": identity}) as gate:
        forged = {APPLICATION_HEADER: "admin"}
        assert await gate.status(ORDERS, **forged) == 200
        assert gate.backend.last.all(APPLICATION_HEADER) == [told]
        assert await gate.status(NOBODY, **forged) == 200
        assert gate.backend.last.all(APPLICATION_HEADER) == [NOBODY.fingerprint]


async def test_what_callers_say_of_certificates_is_removed(tmp_path: Path) -> None:
    forged = {"x-forwarded-client-cert": 'Hash=0;Subject="CN=admin"'}
    async with door(tmp_path, {}) as gate:
        for path in ("/shop/x", "/shop/open"):
            assert await gate.status(ORDERS, path, **forged) == 200
            assert gate.backend.last.header("x-forwarded-client-cert") is None
    async with door(tmp_path, {"forwardCertificate": True}) as gate:
        assert await gate.status(ORDERS, **forged) == 200
        assert gate.backend.last.all("x-forwarded-client-cert") == [
            f'Hash={ORDERS.fingerprint};Subject="CN=orders,O=Example";'
            'URI="spiffe://example.com/orders";DNS="a.clients.example,orders.clients.example"'
        ]
        assert await gate.status(BARE) == 200
        (told,) = gate.backend.last.all("x-forwarded-client-cert")
        assert r'Subject="CN=100% \"x\"\; \C3\A9"' in told


async def test_a_revoked_certificate_opens_nothing(tmp_path: Path) -> None:
    async with door(tmp_path, {}, revocations=AUTHORITY.revocations(BARE)) as gate:
        assert await gate.status(ORDERS) == 200
        assert await gate.status(BARE) == CUT_OFF


async def test_sessions_are_not_resumed(tmp_path: Path) -> None:
    async with door(tmp_path, {}) as gate:
        host, port = gate.url.removeprefix("https://").strip("/").split(":")
        context = presenting(ORDERS)

        def call(session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None, bool]:
            with (
                socket.create_connection((host, int(port)), timeout=30) as plain,
                context.wrap_socket(plain, session=session) as secure,
            ):
                secure.sendall(b"GET /shop/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                return secure.recv(15), secure.session, bool(secure.session_reused)

        session: ssl.SSLSession | None = None
        for _ in range(2):
            head, session, resumed = await asyncio.to_thread(call, session)
            assert head == b"HTTP/1.1 200 OK"
            assert not resumed


async def test_over_http_nobody_has_a_certificate(tmp_path: Path) -> None:
    async with http_backend() as backend:
        attached = {"name": "mtls-client-identity", "params": {}}
        written = f"""
        context: /shop
        upstream: {{main: {{url: "{backend.url}"}}}}
        policies: [{attached}]
        operations: [{{method: GET, path: /x}}]
        """
        catalogue = load((), system=asking(tmp_path))
        async with router(api(written), catalogue=catalogue, local_reply=LOCAL_REPLY) as running:
            answer = await running.get("/shop/x", headers={"x-forwarded-proto": "https"})
            assert (answer.status_code, answer.json()) == (401, REQUIRED)


async def test_the_example_is_served(tmp_path: Path) -> None:
    billing = AUTHORITY.issue(name(O="Example", CN="billing"), DNSName("b.example"))
    async with door(tmp_path, CATALOGUE.resolve("mtls-client-identity").example) as gate:
        assert await gate.status(billing) == 200
        assert gate.backend.last.all(APPLICATION_HEADER) == ["b.example"]
        assert await gate.status(ORDERS) == 403


def test_a_gateway_that_asks_nobody_is_told() -> None:
    made = policy("mtls-client-identity")
    with pytest.raises(PolicyNotCompiled, match=r"set client_authorities_file in \[policies\]"):
        compile_chain((made,), Api(system=SystemParameters()).scope("api"))


def test_files_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    leaf, crl = tmp_path / "leaf.pem", tmp_path / "crl.pem"
    leaf.write_text(ORDERS.pem)
    crl.write_text(AUTHORITY.revocations())
    for settings, told in (
        ({"client_authorities_file": tmp_path / "none.pem"}, "none.pem cannot be read"),
        ({"client_authorities_file": crl}, "holds no PEM certificate"),
        ({"client_authorities_file": leaf}, "CN=orders,O=Example is not an authority"),
        ({"client_revocations_file": crl}, "needs client_authorities_file"),
    ):
        with pytest.raises(ValidationError, match=told):
            SystemParameters(**settings)
    authority = asking(tmp_path).client_authorities_file
    with pytest.raises(ValidationError, match="no PEM certificate revocation list"):
        SystemParameters(client_authorities_file=authority, client_revocations_file=leaf)


@pytest.mark.parametrize(
    ("params", "path", "told"),
    [
        ({"dnsNames": ["a.*.example"]}, "dnsNames[0]", "one '*' may stand at the beginning"),
        ({"uris": ["*"]}, "uris[0]", "one '*' may stand at the beginning"),
        ({"subjects": [""]}, "subjects[0]", ""),
        ({"fingerprints": ["ab:cd"]}, "fingerprints[0]", "should match pattern"),
        ({"identity": "cn"}, "identity", ""),
        ({"sans": []}, "sans", "Unknown parameter 'sans'"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, Any], path: str, told: str) -> None:
    with pytest.raises(InvalidParameters) as caught:
        policy("mtls-client-identity", **params)
    (fault,) = caught.value.faults
    assert fault.path == path
    assert told in fault.message
