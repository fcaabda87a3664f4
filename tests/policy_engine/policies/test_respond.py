from tests.policy_engine.attached import UNAUTHORIZED, credential, key_policy, limit, policy
from tests.policy_engine.gateway import Api, gateway


async def test_the_answer_is_given_without_the_upstream() -> None:
    answers = policy(
        "respond",
        statusCode=418,
        body='{"full":"100% %REQ(:path)%"}',
        headers=[
            {"name": "Content-Type", "value": "application/json"},
            {"name": "X-Full", "value": "50% %REQ(:path)%"},
        ],
    )
    async with gateway(Api((answers,))) as running:
        answer = await running.client.post("/", content=b"x" * 100_000)
        assert answer.status_code == 418
        assert answer.json() == {"full": "100% %REQ(:path)%"}
        assert answer.headers["x-full"] == "50% %REQ(:path)%"
        assert answer.headers.get_list("content-type") == ["application/json"]
        assert not running.backend.requests


async def test_the_gateways_own_error_words_do_not_replace_an_answer() -> None:
    operations = {
        f"/{status}": (policy("respond", statusCode=status, body="mine"),)
        for status in (200, 301, 400, 401, 403, 404, 413, 418, 429, 500, 503, 504, 599)
    }
    async with gateway(Api((), operations)) as running:
        for path in operations:
            answer = await running.client.get(path)
            assert answer.status_code == int(path[1:])
            assert answer.text == "mine"
            assert answer.headers["content-type"] == "text/plain"


async def test_statuses_without_a_body_have_none() -> None:
    operations = {
        f"/{status}": (policy("respond", statusCode=status, body="ignored"),)
        for status in (204, 304)
    }
    async with gateway(Api((), operations)) as running:
        for path in operations:
            answer = await running.client.get(path)
            assert (answer.status_code, answer.content) == (int(path[1:]), b"")


async def test_a_redirect_goes_where_it_says() -> None:
    redirect = policy(
        "respond", statusCode=302, headers=[{"name": "Location", "value": "https://x.example/y"}]
    )
    async with gateway(Api((redirect,))) as running:
        answer = await running.client.get("/")
        assert answer.headers.get_list("location") == ["https://x.example/y"]


async def test_a_body_may_be_as_long_as_promised() -> None:
    async with gateway(Api((policy("respond", body="é" * (1 << 19)),))) as running:
        answer = await running.client.get("/")
        assert len(answer.content) == 1 << 20


async def test_what_stands_before_an_answer_guards_it_and_what_stands_behind_does_not_run() -> None:
    answers = policy("respond", statusCode=200, body="open")
    api = Api((key_policy(), answers, limit(1)), credentials=(credential("k"),))
    async with gateway(api) as running:
        refused = await running.client.get("/")
        assert (refused.status_code, refused.json()) == (401, UNAUTHORIZED)
        for _ in range(3):
            answer = await running.client.get("/", headers={"API-Key": "k"})
            assert (answer.status_code, answer.text) == (200, "open")


async def test_an_answer_of_the_api_stands_for_all_its_operations() -> None:
    api = Api((policy("respond", statusCode=503),), {"/": (key_policy(),), "/x": (limit(1),)})
    async with gateway(api) as running:
        for path in ("/", "/x", "/x"):
            assert (await running.client.get(path)).status_code == 503


async def test_an_answer_of_an_operation_is_guarded_by_the_api() -> None:
    api = Api((key_policy(),), {"/": (policy("respond"),)}, (credential("k"),))
    async with gateway(api) as running:
        assert (await running.client.get("/")).status_code == 401
        assert (await running.client.get("/", headers={"API-Key": "k"})).status_code == 200
