"""What all calls of a worker share: programs, counters, and whoever waits for a hop."""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from policy_engine.catalogue import Catalogue
from policy_engine.engine.errors import HopNotLoaded
from policy_engine.engine.failures import Failures
from policy_engine.engine.figures import Figures
from policy_engine.engine.program import Program, broken, load
from policy_engine.hooks import Outside
from policy_engine.hop import Hop
from policy_engine.policy import Document

log = structlog.get_logger()

_REST_S: Final = 5.0  # of a policy that has ended its worker for the first time
_REST_MAX_S: Final = 300.0


class Marks(Protocol):
    """Told which policy runs, see `policy_engine.engine.marks`."""

    def set(self, mark: bytes) -> None:
        """The hook of that policy runs now."""
        ...

    def clear(self) -> None:
        """No hook runs."""
        ...


class NoMarks:
    """Nobody wants to know."""

    def set(self, mark: bytes) -> None:
        """Nothing."""

    def clear(self) -> None:
        """Nothing."""


@dataclass(slots=True, eq=False)
class Runtime:
    """The part of a worker that calls use."""

    catalogue: Catalogue
    outside: Outside
    max_body_bytes: int = 1 << 20
    hop_wait_s: float = 1.0
    """How long a call waits for a hop that is not known yet, seconds."""
    marks: Marks = field(default_factory=NoMarks)
    figures: Figures = field(default_factory=Figures)
    failures: Failures = field(default_factory=Failures)
    programs: dict[str, Program] = field(default_factory=dict)
    deaths: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    """(hop, policy) that have ended a worker -> how often, and until when it rests, Unix time."""
    _wanted: dict[str, asyncio.Future[Program]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def learn(self, hops: Mapping[str, Document]) -> None:
        """These hops may be called from now on. One that cannot be made fails as it declares."""
        for name, document in hops.items():
            if name in self.programs and not self.programs[name].broken:
                continue
            hop = Hop.of(document)
            try:
                program = load(hop, self.catalogue, self.figures)
            except HopNotLoaded as error:
                program = broken(hop, str(error))
                self.failures.note(
                    hop.place, error.policy, "load", "open" if hop.fails_open else "closed", error
                )
            self.programs[name] = program
            self._bench(program)
            waiting = self._wanted.pop(name, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(program)

    def forget(self, names: list[str]) -> None:
        """No router has these hops any more. Calls that have begun go on."""
        for name in names:
            self.programs.pop(name, None)

    def reload(self, catalogue: Catalogue) -> None:
        """Make all programs again, of `catalogue`."""
        self.catalogue = catalogue
        documents = {name: one.hop.document() for name, one in self.programs.items()}
        self.programs.clear()
        self.learn(documents)

    def wanted(self, name: str) -> asyncio.Future[Program]:
        """Done when the hop is known."""
        waiting = self._wanted.get(name)
        if waiting is None or waiting.done():
            waiting = self._wanted[name] = asyncio.get_running_loop().create_future()
        return asyncio.shield(waiting)

    def task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """`work` of a call, owned by the runtime."""
        task = asyncio.get_running_loop().create_task(work, name="policy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End what calls have left behind."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def died(self, hop: str, policy: str) -> None:
        """`policy` has ended the worker before this: it rests, longer each time."""
        times = self.deaths.get((hop, policy), (0, 0.0))[0] + 1
        rest_s = min(_REST_MAX_S, _REST_S * 2.0 ** (times - 1))
        self.deaths[hop, policy] = times, time.time() + rest_s
        log.warning("policy rests", hop=hop, policy=policy, deaths=times, rest_s=rest_s)

    def _bench(self, program: Program) -> None:
        for step in program.steps:
            _, until = self.deaths.get((program.name, step.name), (0, 0.0))
            rest_s = until - time.time()
            if rest_s > 0:
                step.benched = True
                asyncio.get_running_loop().call_later(rest_s, _unbench, step)


def _unbench(step: Any) -> None:  # noqa: ANN401
    step.benched = False
