"""Each policy against plain routing through the same Envoy, and the typical chain.

`python -m tests.bench.policies [ROUNDS]`: every measurement has a plain one of its own beside it,
so that the machine's slow phases meet both. 1.00 is free. Envoy's CPU time per request is the least
of all rounds, because noise only adds to it; on a busy machine it tells more than the throughput.
"""

import asyncio
import statistics
import sys

from policy_engine.policy import Policy
from tests.bench.load import Result, cpu_s, upstream, wrk
from tests.policy_engine.attached import credential, key_policy, limit, policy
from tests.policy_engine.gateway import Api, bootstrap, virtual_host
from tests.servers.envoy import envoy

KEYS = 1_000
SECONDS = 1
ROUNDS = 7
ORIGIN = "https://app.example.com"
HEADERS = (f"Origin: {ORIGIN}", "API-Key: key-500")
PLAIN = "/plain"

Measured = tuple[float, float]  # requests per second, CPU microseconds of Envoy per request


def cases() -> dict[str, tuple[Policy, ...]]:
    """What is attached to the operation of each path."""
    cors = policy("cors", allowedOrigins=[ORIGIN])
    key = key_policy()
    plenty = limit(1_000_000_000, "1s")
    several = policy(
        "basic-ratelimit",
        limits=[{"requests": 1_000_000_000, "duration": f"{number}s"} for number in (1, 2, 3)],
    )
    put = policy("set-headers", request={"headers": [{"name": "X-Team", "value": "weather"}]})
    drop = policy("remove-headers", response={"headers": [{"name": "X-Powered-By"}]})
    return {
        "cors": (cors,),
        "cors, any origin": (policy("cors", allowedOrigins=["*"]),),
        f"api-key-auth, {KEYS} keys": (key,),
        f"api-key-auth in the query, {KEYS} keys": (key_policy("key", "query"),),
        "basic-ratelimit": (plenty,),
        "basic-ratelimit, 3 limits": (several,),
        "set-headers": (put,),
        "remove-headers": (drop,),
        "respond (no upstream)": (policy("respond", body="x" * 100),),
        "cors + key + limit + header edit": (cors, key, plenty, put),
    }


async def measure(pid: int, url: str, path: str) -> Measured:
    before = cpu_s(pid)
    result: Result = await wrk(url + path, seconds=SECONDS, headers=HEADERS)
    if result.failures:
        raise SystemExit(f"{path}: {result.failures} of {result.requests} failed")
    return result.requests_per_s, (cpu_s(pid) - before) / result.requests * 1e6


async def main(rounds: int) -> None:
    wanted = cases()
    paths = {name: f"/{number}" for number, name in enumerate(wanted)}
    operations = {paths[name]: chain for name, chain in wanted.items()} | {PLAIN: ()}
    credentials = tuple(credential(f"key-{number}", f"app-{number}") for number in range(KEYS))
    async with upstream() as behind:
        port = int(behind.rpartition(":")[2])
        api = Api((), operations, credentials)
        async with envoy(
            bootstrap([virtual_host(api)], port, local_reply=api.local_reply)
        ) as router:
            url = f"http://127.0.0.1:{await router.port('http')}"
            heads = ("throughput", "lowest", "highest", "CPU", "extra us")
            print(
                f"{f'median of {rounds} pairs':40} {heads[0]:>10} {heads[1]:>8} {heads[2]:>8}"
                f" {heads[3]:>10} {heads[4]:>10}"
            )
            for name, path in paths.items():
                asked = f"{path}?key=key-500" if "query" in name else path
                await wrk(url + asked, seconds=1, headers=HEADERS)  # warm
                pairs = []
                for number in range(rounds):
                    order = (PLAIN, asked) if number % 2 else (asked, PLAIN)
                    pairs.append({one: await measure(router.pid, url, one) for one in order})
                rates = [one[asked][0] / one[PLAIN][0] for one in pairs]
                cost, plain = (min(one[way][1] for one in pairs) for way in (asked, PLAIN))
                print(
                    f"{name:40} {statistics.median(rates):10.2f} {min(rates):8.2f}"
                    f" {max(rates):8.2f} {plain / cost:10.2f} {cost - plain:10.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
