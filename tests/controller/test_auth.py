"""Who may do what, and what a wrong password costs."""

import base64
import hashlib
from time import perf_counter

import httpx
import pytest
from fastapi import APIRouter
from pydantic import ValidationError

from controller.apis import Apis
from controller.auth import Users, credentials
from controller.errors import InvalidPasswordHash
from controller.keys import Keys
from controller.memory import MemoryRecord
from controller.passwords import hash_password, secret
from controller.rest.app import create_app
from controller.settings import ControllerSettings
from controller.status import Deployments
from policy_engine import catalogue


def settings(**fields: object) -> ControllerSettings:
    return ControllerSettings.model_validate(fields)


async def test_a_plain_password_is_checked() -> None:
    users = Users.configured(settings(admin_user="root", admin_password="s3cret:ü"))
    admin = await users.verified("root", "s3cret:ü".encode())
    assert admin is not None
    assert admin.is_admin
    assert await users.verified("root", b"s3cret") is None
    assert await users.verified("admin", "s3cret:ü".encode()) is None


async def test_a_hashed_password_is_checked_once_and_then_remembered() -> None:
    hashed = hash_password("s3cret")
    assert "s3cret" not in hashed
    users = Users.configured(
        settings(users=[{"name": "a", "password": hashed, "roles": ["admin"]}])
    )
    began = perf_counter()
    assert await users.verified("a", b"s3cret") is not None
    first_s = perf_counter() - began
    began = perf_counter()
    for _ in range(100):
        assert await users.verified("a", b"s3cret") is not None
    assert perf_counter() - began < first_s * 10  # a hundred for the price of less than ten
    assert await users.verified("a", b"S3cret") is None
    assert await users.verified("as", b"3cret") is None


async def test_a_pbkdf2_hash_is_checked() -> None:
    salt, digest = b"salt", hashlib.pbkdf2_hmac("sha256", b"pw", b"salt", 1000)
    text = "$".join(
        ["pbkdf2_sha256", "1000", *(base64.b64encode(one).decode() for one in (salt, digest))]
    )
    assert secret("a", text).matches(b"pw")
    assert not secret("a", text).matches(b"px")


@pytest.mark.parametrize(
    "text",
    [
        "scrypt$16384$8$1$salt",
        "scrypt$16383$8$1$c2FsdA==$ZGlnZXN0",
        "scrypt$x$8$1$c2FsdA==$ZGlnZXN0",
        "scrypt$16384$8$1$c2FsdA==$not base64",
        "pbkdf2_sha256$0$c2FsdA==$ZGlnZXN0",
        "pbkdf2_sha256$1000",
    ],
)
def test_a_hash_that_cannot_be_read_names_its_user(text: str) -> None:
    with pytest.raises(InvalidPasswordHash, match="'ada'"):
        Users.configured(settings(users=[{"name": "ada", "password": text, "roles": ["admin"]}]))


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(ValidationError, match="roles"):
        settings(users=[{"name": "a", "password": "b", "roles": ["king"]}])


def test_a_password_is_never_shown() -> None:
    shown = repr(settings(admin_password="s3cret", database_url="postgresql://u:s3cret@h/d"))
    assert "s3cret" not in shown


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Basic YTpi", ("a", b"b")),
        ("basic YTpiOmM=", ("a", b"b:c")),
        ("Basic YQ==", None),
        ("Basic !!", None),
        ("Basic /w==", None),
        ("Bearer YTpi", None),
        ("", None),
    ],
)
def test_credentials_are_read_from_the_header(
    header: str, expected: tuple[str, bytes] | None
) -> None:
    assert credentials(header) == expected


ANY = "/rest-apis"
KEYS = "/rest-apis/weather/api-keys"


@pytest.mark.parametrize(
    ("user", "method", "path", "status"),
    [
        ("admin", "GET", ANY, 200),
        ("dev", "GET", ANY, 200),
        ("carla", "GET", ANY, 403),
        ("carla", "POST", ANY, 403),
        ("carla", "GET", f"{ANY}/weather", 403),
        ("carla", "PUT", f"{ANY}/weather", 403),
        ("carla", "DELETE", f"{ANY}/weather", 403),
        ("carla", "GET", f"{ANY}/weather/status", 403),
        ("carla", "GET", "/routers", 403),
        ("dev", "GET", "/routers", 200),
        ("carla", "GET", KEYS, 404),
        ("dev", "GET", KEYS, 403),
        ("dev", "POST", KEYS, 403),
        ("dev", "PUT", f"{KEYS}/mine", 403),
        ("dev", "POST", f"{KEYS}/mine/regenerate", 403),
        ("dev", "DELETE", f"{KEYS}/mine", 403),
        ("nobody", "GET", ANY, 401),
    ],
)
async def test_roles_are_kept(as_user, user: str, method: str, path: str, status: int) -> None:
    answer = await as_user(user).request(method, path)
    assert answer.status_code == status
    if status in (401, 403):
        assert answer.json()["status"] == "error"
        assert answer.json()["message"]


async def test_without_credentials_the_browser_is_asked(client) -> None:
    client.auth = None
    answer = await client.get("/rest-apis")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example.com"},
        {"origin": "null"},
    ],
)
async def test_a_change_from_a_page_of_another_site_is_refused(
    client, headers: dict[str, str]
) -> None:
    answer = await client.delete("/rest-apis/weather", headers=headers)
    assert answer.status_code == 403
    assert (await client.get("/rest-apis", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"sec-fetch-site": "same-origin"}, {"origin": "http://gateway.test"}, {}]
)
async def test_a_change_from_our_own_page_passes(client, headers: dict[str, str]) -> None:
    answer = await client.delete("/rest-apis/weather", headers=headers)
    assert answer.status_code == 404


async def test_routers_of_others_are_behind_the_same_door(settings, metrics) -> None:
    reports = APIRouter(prefix="/reports")

    @reports.get("/usage")
    async def usage() -> dict[str, int]:
        return {"requests": 7}

    record = MemoryRecord()
    app = create_app(
        settings=settings,
        apis=Apis(record, catalogue.load(), Deployments()),
        keys=Keys(record, 1, None),
        users=Users.configured(settings),
        metrics=metrics,
        extra_routers=[reports],
    )
    for user, status in (("admin", 200), ("dev", 200), ("carla", 403), ("nobody", 401)):
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://gateway.test",
            auth=(user, user),
        ) as client:
            answer = await client.get("/api/management/v1/reports/usage")
            assert answer.status_code == status
            document = (await client.get("/api/management/v1/openapi.json")).json()
            assert "/api/management/v1/reports/usage" in document["paths"]
