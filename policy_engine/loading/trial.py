"""Code from the watched folder is tried in a process of its own before the gateway imports it.

What ends the process, never ends, or eats memory, is refused by name with a reason; the others
are tried again in a new process. `python -m policy_engine.loading.trial` is that process: sources
as JSON on standard input, one line per source on standard output.
"""

import json
import os
import resource
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from policy_engine.loading.sources import Source

MAX_MEMORY_BYTES = 1 << 30
"""Address space of the trial: what an import may use is far below."""

_STDERR_LINES = 20
_BEGUN = "begun"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a source is not used."""

    reason: str  # one line
    traceback: str  # or what the process has printed


def failures(sources: Sequence[Source], timeout_s: float) -> dict[str, Failure]:
    """By digest, those of `sources` that cannot be used; each may take `timeout_s` seconds.

    Blocks; at most `timeout_s` for each source and a second for each process.
    """
    found: dict[str, Failure] = {}
    waiting = list(sources)
    while waiting:
        said, culprit, failure = _trial(waiting, timeout_s)
        found |= {digest: one for digest, one in said.items() if one is not None}
        waiting = [one for one in waiting if one.digest not in said]
        if waiting:  # the process has ended before it came to an end
            guilty = next((one for one in waiting if one.digest == culprit), waiting[0])
            found[guilty.digest] = failure
            waiting.remove(guilty)
    return found


def _trial(
    sources: Sequence[Source], timeout_s: float
) -> tuple[dict[str, Failure | None], str, Failure]:
    """The verdicts of one process; who was at work when it ended, and how it ended."""
    verdicts: dict[str, Failure | None] = {}
    at_work = ""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "policy_engine.loading.trial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        printed: list[str] = []
        errors = threading.Thread(target=_collect, args=(process.stderr, printed), daemon=True)
        errors.start()
        clock = _Clock(timeout_s + _START_S, process.kill)
        try:
            process.stdin.write(json.dumps([one.document() for one in sources]))
            process.stdin.close()
            for line in process.stdout:
                clock.again(timeout_s)
                digest, word, *more = json.loads(line)
                if word == _BEGUN:
                    at_work = digest
                else:
                    verdicts[digest] = Failure(*more) if more else None
        except (OSError, ValueError):  # it has ended, or writes what is no verdict
            process.kill()
        finally:
            clock.stop()
        status = process.wait()
        errors.join(_START_S)
    if clock.expired:
        failure = Failure(f"its import takes longer than {timeout_s:g} s", "".join(printed))
    else:
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        failure = Failure(f"its import ends the process ({how})", "".join(printed))
    return verdicts, at_work, failure


_START_S = 20.0  # an interpreter on a busy machine


class _Clock:
    """Calls `ring` when nothing happens for too long."""

    def __init__(self, first_s: float, ring: Callable[[], None]) -> None:
        self.expired = False
        self._ring = ring
        self._timer = self._started(first_s)

    def again(self, s: float) -> None:
        self._timer.cancel()
        self._timer = self._started(s)

    def stop(self) -> None:
        self._timer.cancel()

    def _started(self, s: float) -> threading.Timer:
        timer = threading.Timer(s, self._expire)
        timer.daemon = True
        timer.start()
        return timer

    def _expire(self) -> None:
        self.expired = True
        self._ring()


def _collect(stream: IO[str], printed: list[str]) -> None:
    """The last lines of a stream, as they come."""
    for line in stream:
        printed.append(line[:1000])
        del printed[:-_STDERR_LINES]


def _main() -> None:
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what code prints is no verdict
    sources = [Source.of(one) for one in json.load(sys.stdin)]
    from policy_engine.catalogue import one_line, policies_of  # noqa: PLC0415 - slow

    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def say(*words: str) -> None:
        report.write(json.dumps(words) + "\n")
        report.flush()

    for source in sources:
        say(source.digest, _BEGUN)
        try:
            for policy in policies_of(source):
                policy.model_validate(policy.example)
                policy.model_json_schema(by_alias=True)
        except BaseException as error:  # noqa: BLE001 - others' code may raise anything
            say(source.digest, "failed", one_line(error), traceback.format_exc())
        else:
            say(source.digest, "good")
    report.close()
    os._exit(0)  # threads that an import has left behind are not waited for


if __name__ == "__main__":
    _main()
