"""A worker of the policy engine: asleep in a bare process until a Python policy is used.

`python -m compose.engine_worker SETTINGS NUMBER DESCRIPTOR`: the file that the launcher wrote,
which worker it is, and the socket for routers, which the supervisor holds open. Until it wakes up
it imports nothing but the standard library.
"""

import sys

from policy_engine.engine import standby

_FAILED, _STOPPED = 1, 0


def main(settings_file: str, number: int, descriptor: int) -> int:
    """Sleep, then serve until SIGTERM; the exit status."""
    folder = settings_file.rpartition("/")[0]
    with open(f"{folder}/engine-{number}.ready", "w", encoding="utf-8"):  # noqa: PTH123
        pass  # it does what it should: sleep
    standby.wait(f"{folder}/engine.sock", f"{folder}/hops.json", number)
    from compose.engine_process import run  # noqa: PLC0415 - this is what waking up costs

    return run(settings_file, number, descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
