import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest

from policy_engine.catalogue import load
from policy_engine.errors import InvalidParameters
from tests.policy_engine.attached import CATALOGUE, LOCAL_REPLY, policy
from tests.servers.http_backend import Answer, HttpBackend, Received, http_backend
from tests.xds.routing import Router, api, router
from xds.compile.api import compile_api
from xds.errors import NotCompiled
from xds.settings import XdsSettings

KEY = {"accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
PARAMS = {"region": "eu-west-1", "service": "execute-api", **KEY}


def signature(request: Received, region: str, service: str, secret: str) -> tuple[str, list[str]]:
    """The signature that belongs to `request` by the words of AWS, and the headers it is over."""
    authorization = request.header("authorization") or ""
    fields = dict(
        part.split("=", 1) for part in authorization.removeprefix("AWS4-HMAC-SHA256 ").split(", ")
    )
    names = fields["SignedHeaders"].split(";")
    path, _, query = request.path.partition("?")
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(query, keep_blank_values=True)
    )
    canonical = "\n".join(
        (
            request.method,
            path if service == "s3" else quote(path, safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{','.join(request.all(name)).strip()}" for name in names),
            "",
            ";".join(names),
            request.header("x-amz-content-sha256") or "",
        )
    )
    time = request.header("x-amz-date") or ""
    scope = f"{time[:8]}/{region}/{service}/aws4_request"
    told = sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{told}"
    key = f"AWS4{secret}".encode()
    for part in (*scope.split("/"), to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    assert fields["Signature"] == key.hex()
    return fields["Credential"], names


def spec(url: str, params: dict[str, Any], more: str = "") -> str:
    signed = {"name": "aws-authentication", "params": params}
    return f"""
    name: shop
    context: /shop
    upstream: {{main: {{url: "{url}/prod"}}}}
    policies: [{signed}]
    operations:
      - {{method: GET, path: /*}}
      - {{method: POST, path: /*}}
    {more}
    """


@asynccontextmanager
async def signing(**params: Any) -> AsyncIterator[tuple[Router, HttpBackend]]:
    async with http_backend() as backend:
        written = api(spec(backend.url, {**PARAMS, **params}))
        async with router(written, catalogue=load(()), local_reply=LOCAL_REPLY) as running:
            yield running, backend


@pytest.mark.parametrize("service", ["execute-api", "s3"])
async def test_the_upstream_can_verify_what_it_gets(service: str) -> None:
    async with signing(service=service) as (running, backend):
        for path in ("/shop/items", "/shop/a%20b/c?b=2&a=1&a=0", "/shop/", "/shop/x?q=%2F+%20&e="):
            answer = await running.get(path)
            assert answer.status_code == 200
            assert backend.last.path == "/prod" + path.removeprefix("/shop")
            assert backend.last.header("host") == f"127.0.0.1:{backend.port}"
            by, over = signature(backend.last, "eu-west-1", service, KEY["secretAccessKey"])
            assert by.startswith("AKIDEXAMPLE/")
            assert {"host", "x-amz-date", "x-amz-content-sha256"} <= set(over)


async def test_bodies_are_signed() -> None:
    async with signing() as (running, backend):
        for body in (b"", b"{}", b"x" * 500_000):
            answer = await running.get(
                "/shop/items", method="POST", content=body, headers={"content-type": "text/x"}
            )
            assert answer.status_code == 200
            assert backend.last.body == body
            assert backend.last.header("x-amz-content-sha256") == sha256(body).hexdigest()
            _, over = signature(backend.last, "eu-west-1", "execute-api", KEY["secretAccessKey"])
            assert "content-type" in over


async def test_bodies_that_are_too_large_to_hold_are_refused() -> None:
    async with signing(maxBodyBytes=1000) as (running, backend):
        right = await running.get("/shop/items", method="POST", content=b"x" * 1000)
        assert right.status_code == 200
        wrong = await running.get("/shop/items", method="POST", content=b"x" * 1001)
        assert (wrong.status_code, wrong.json()["error"]) == (413, "Content Too Large")
        assert len(backend.requests) == 1


async def test_bodies_may_pass_unsigned() -> None:
    async with signing(unsignedPayload=True, service="s3") as (running, backend):
        answer = await running.get("/shop/items", method="POST", content=b"x" * 2_000_000)
        assert answer.status_code == 200
        assert len(backend.last.body) == 2_000_000
        assert backend.last.header("x-amz-content-sha256") == "UNSIGNED-PAYLOAD"
        signature(backend.last, "eu-west-1", "s3", KEY["secretAccessKey"])


async def test_what_the_caller_says_of_signatures_is_replaced() -> None:
    forged = {
        "authorization": "Bearer token",
        "x-amz-date": "20000101T000000Z",
        "x-amz-content-sha256": "0" * 64,
        "x-amz-security-token": "stolen",
    }
    async with signing() as (running, backend):
        assert (await running.get("/shop/items", headers=forged)).status_code == 200
        signature(backend.last, "eu-west-1", "execute-api", KEY["secretAccessKey"])
        assert len(backend.last.all("authorization")) == 1
        assert backend.last.header("x-amz-security-token") is None
        assert backend.last.all("x-amz-date") != [forged["x-amz-date"]]
    async with signing(sessionToken="temporary") as (running, backend):
        await running.get("/shop/items", headers=forged)
        assert backend.last.all("x-amz-security-token") == ["temporary"]
        _, over = signature(backend.last, "eu-west-1", "execute-api", KEY["secretAccessKey"])
        assert "x-amz-security-token" in over


async def test_each_retry_is_signed() -> None:
    again = {"name": "retry", "params": {"attempts": 1, "retryOn": ["gateway-error"]}}
    async with http_backend() as backend:
        seen: list[Received] = []

        def answer(request: Received) -> Answer:
            seen.append(request)
            return Answer(503 if len(seen) == 1 else 200)

        backend.answer = answer
        written = spec(backend.url, PARAMS).replace("policies: [", f"policies: [{again}, ", 1)
        async with router(api(written), catalogue=load(())) as running:
            assert (await running.get("/shop/items")).status_code == 200
        assert len(seen) == 2
        for request in seen:
            signature(request, "eu-west-1", "execute-api", KEY["secretAccessKey"])


async def test_routers_may_have_credentials_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFTHEROUTER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret of the router")
    params = {"region": "us-east-1", "service": "lambda"}
    async with http_backend() as backend:
        written = api(spec(backend.url, params))
        async with router(written, catalogue=load(())) as running:
            assert (await running.get("/shop/items")).status_code == 200
        by, _ = signature(backend.last, "us-east-1", "lambda", "secret of the router")
        assert by.startswith("AKIDOFTHEROUTER/")


async def test_without_credentials_nothing_that_looks_signed_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    async with http_backend() as backend:
        written = api(spec(backend.url, {"region": "us-east-1", "service": "lambda"}))
        async with router(written, catalogue=load(())) as running:
            await running.get("/shop/items", headers={"authorization": "AWS4-HMAC-SHA256 x"})
        assert [one.header("authorization") for one in backend.requests] == [None]


async def test_the_example_is_signed() -> None:
    example = CATALOGUE.resolve("aws-authentication").example
    async with signing(**example) as (running, backend):
        assert (await running.get("/shop/items")).status_code == 200
        signature(backend.last, "eu-west-1", "execute-api", str(example["secretAccessKey"]))


ROLE = {"roleArn": "arn:aws:iam::123456789012:role/teams/orders", "externalId": "partner:1/2"}
GIVEN = {"AccessKeyId": "ASIATEMPORARY", "SecretAccessKey": "of the role", "SessionToken": "token"}


NOBODY = {
    "@type": "type.googleapis.com/"
    "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
    "resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": 9}}],
}


def token_service(secret: str, by: str) -> Callable[[Received], Answer]:
    """AWS STS, as far as AssumeRole goes: it gives to who has signed with `secret` as `by`."""

    def answer(request: Received) -> Answer:
        if request.header("authorization") is None:
            return Answer(403)
        signed_by, _ = signature(request, "eu-west-1", "sts", secret)
        assert signed_by.startswith(f"{by}/")
        credentials = GIVEN | {"Expiration": 4_102_444_800}
        said = {"AssumeRoleResponse": {"AssumeRoleResult": {"Credentials": credentials}}}
        return Answer(body=json.dumps(said).encode())

    return answer


@asynccontextmanager
async def with_role(
    tmp_path: Path, service: HttpBackend, **params: Any
) -> AsyncIterator[tuple[Router, HttpBackend]]:
    """A router whose STS is `service`: Envoy makes the cluster of STS by itself, for a host whose
    name it cannot resolve here; one that is called the same takes its place once Envoy runs."""
    name = "sts_token_service_internal-eu-west-1"
    address = {"socket_address": {"address": "127.0.0.1", "port_value": service.port}}
    cluster = {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    clusters, new = tmp_path / "clusters.json", tmp_path / "new.json"
    clusters.write_text(json.dumps({"resources": []}))
    new.write_text(json.dumps({"resources": [cluster]}))
    bootstrap = {
        "node": {"id": "router", "cluster": "routers"},
        "dynamic_resources": {"cds_config": {"path_config_source": {"path": str(clusters)}}},
        "typed_dns_resolver_config": {"name": "nobody", "typed_config": NOBODY},
    }
    async with http_backend() as backend:
        given = {"region": "eu-west-1", "service": "execute-api", "assumeRole": ROLE, **params}
        written = api(spec(backend.url, given))
        async with router(written, catalogue=load(()), bootstrap=bootstrap) as running:
            new.rename(clusters)
            yield running, backend


async def until_signed(running: Router, backend: HttpBackend) -> Received:
    """The first request that is signed; those before it are not, and pass as they are."""
    async with asyncio.timeout(60):
        while True:
            assert (await running.get("/shop/items")).status_code == 200
            if backend.last.header("authorization") is not None:
                return backend.last
            assert backend.last.header("x-amz-security-token") is None
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("token", [None, "temporary-too"])
async def test_temporary_credentials_of_a_role_sign(tmp_path: Path, token: str | None) -> None:
    params = {"sessionToken": token} if token else {}
    asked = token_service(KEY["secretAccessKey"], KEY["accessKeyId"])
    async with http_backend(asked) as service:
        async with with_role(tmp_path, service, **KEY, **params) as (running, backend):
            got = await until_signed(running, backend)
            by, over = signature(got, "eu-west-1", "execute-api", GIVEN["SecretAccessKey"])
            assert by.startswith("ASIATEMPORARY/")
            assert got.all("x-amz-security-token") == ["token"]
            assert "x-amz-security-token" in over
            dumped = (await running.envoy.admin("/config_dump?include_eds")).text
            assert ROLE["roleArn"] in dumped
            assert KEY["secretAccessKey"] not in dumped
            assert "temporary-too" not in dumped
        request = service.last
        assert request.header("x-amz-security-token") == token
        assert dict(parse_qsl(request.path.partition("?")[2])) == {
            "Version": "2011-06-15",
            "Action": "AssumeRole",
            "RoleArn": ROLE["roleArn"],
            "RoleSessionName": "signalbox",
            "DurationSeconds": "3600",
            "ExternalId": "partner:1/2",
        }


async def test_a_router_may_ask_for_the_role_with_credentials_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFTHEROUTER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret of the router")
    role = {"roleArn": ROLE["roleArn"], "sessionName": "shop@eu", "sessionSeconds": 900}
    async with http_backend(token_service("secret of the router", "AKIDOFTHEROUTER")) as service:
        async with with_role(tmp_path, service, assumeRole=role) as (running, backend):
            got = await until_signed(running, backend)
            signature(got, "eu-west-1", "execute-api", GIVEN["SecretAccessKey"])
        told = dict(parse_qsl(service.last.path.partition("?")[2]))
        assert (told["RoleSessionName"], told["DurationSeconds"]) == ("shop@eu", "900")
        assert "ExternalId" not in told


async def test_who_does_not_get_the_role_signs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFTHEROUTER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret of the router")
    async with (
        http_backend(lambda _: Answer(403)) as service,
        with_role(tmp_path, service, **KEY) as (running, backend),
    ):
        async with asyncio.timeout(60):
            while not service.requests:
                await asyncio.sleep(0.1)
        await running.get("/shop/items", headers={"authorization": "AWS4-HMAC-SHA256 x"})
        assert backend.last.header("authorization") is None


def test_upstreams_with_several_names_cannot_be_signed_for() -> None:
    written = f"""
    name: shop
    context: /shop
    upstream: {{main: {{ref: two}}}}
    upstreamDefinitions:
      - name: two
        upstreams: [{{url: "http://a.example"}}, {{url: "http://b.example"}}]
    policies: [{{name: aws-authentication, params: {PARAMS}}}]
    operations: [{{method: GET, path: /x}}]
    """
    with pytest.raises(NotCompiled, match=r"aws-authentication.* needs upstreams that share one"):
        compile_api(api(written), 1, (), CATALOGUE, XdsSettings())


def test_keys_are_not_shown() -> None:
    made = policy("aws-authentication", **PARAMS, sessionToken="temporary")
    assert KEY["secretAccessKey"] not in f"{made!r} {made.masked()}"
    assert "temporary" not in f"{made!r} {made.masked()}"


@pytest.mark.parametrize(
    ("params", "path", "told"),
    [
        ({"region": ""}, "region", "should match pattern"),
        ({"service": "a b"}, "service", "should match pattern"),
        ({"secretAccessKey": None}, "", "accessKeyId and secretAccessKey are given together"),
        ({"secretAccessKey": "a\nb"}, "secretAccessKey", "printable ASCII"),
        ({"maxBodyBytes": 0}, "maxBodyBytes", "must be at least 1"),
        ({"assumeRole": {}}, "assumeRole.roleArn", "roleArn is required"),
        ({"assumeRole": ROLE | {"roleArn": "orders"}}, "assumeRole.roleArn", "match pattern"),
        (
            {"assumeRole": ROLE | {"roleArn": "arn:aws:iam::123456789012:role/a&Action=b"}},
            "assumeRole.roleArn",
            "match pattern",
        ),
        ({"assumeRole": ROLE | {"sessionName": "a b"}}, "assumeRole.sessionName", "match"),
        ({"assumeRole": ROLE | {"externalId": "a&b"}}, "assumeRole.externalId", "match"),
        (
            {"assumeRole": ROLE | {"sessionSeconds": 60}},
            "assumeRole.sessionSeconds",
            "must be at least 900",
        ),
        ({"Region": "x"}, "Region", "Unknown parameter 'Region'"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, Any], path: str, told: str) -> None:
    with pytest.raises(InvalidParameters) as caught:
        policy("aws-authentication", **PARAMS | params)
    (fault,) = caught.value.faults
    assert fault.path == path
    assert told in fault.message
    assert KEY["secretAccessKey"] not in str(caught.value)


async def test_keys_are_not_in_what_envoys_admin_interface_tells() -> None:
    async with signing(sessionToken="temporary-token") as (running, _):
        dumped = (await running.envoy.admin("/config_dump?include_eds")).text
        assert "AwsRequestSigning" in dumped
        assert KEY["secretAccessKey"] not in dumped
        assert "temporary-token" not in dumped
