"""What all calls of a worker share: programs, counters, and whoever waits for a hop."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from policy_engine.catalogue import Catalogue
from policy_engine.engine.errors import HopNotLoaded
from policy_engine.engine.failures import Failures
from policy_engine.engine.figures import Figures
from policy_engine.engine.program import Program, Step, broken, load
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
    max_body_bytes: int = 1 << 20  # of requests
    max_answer_bytes: int = 4 << 20
    hop_wait_s: float = 1.0
    """How long a call waits for a hop that is not known yet, seconds."""
    farewell_s: float = 300.0
    """How long hops stay that the engine has no more, seconds."""
    marks: Marks = field(default_factory=NoMarks)
    figures: Figures = field(default_factory=Figures)
    failures: Failures = field(default_factory=Failures)
    patience: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered while policies are made, which may take long."""
    hops: dict[str, Document] = field(default_factory=dict)
    programs: dict[str, Program] = field(default_factory=dict)  # of hops that were called
    deaths: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    """(hop, policy) that have ended a worker -> how often, and until when it rests, Unix time."""
    greedy: bytes = b""  # mark of the policy that got no memory last
    _leaving: dict[str, float] = field(default_factory=dict)  # until when, monotonic
    _wanted: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def learn(self, hops: Mapping[str, Document]) -> None:
        """These hops may be called from now on; their policies are made at the first call."""
        self.hops.update(hops)
        for name in hops:
            self._leaving.pop(name, None)
        for name in self._wanted.keys() & hops.keys():
            waiting = self._wanted.pop(name)
            if not waiting.done():
                waiting.set_result(None)

    def forget(self, names: Iterable[str]) -> None:
        """The engine has these hops no more; routers that are slow may still ask for a while."""
        now = time.monotonic()
        for name in names:
            self._leaving.setdefault(name, now + self.farewell_s)

    def tidy(self) -> None:
        """Let go what nobody asks for any more. Calls that have begun go on."""
        now = time.monotonic()
        for name in [name for name, until in self._leaving.items() if until < now]:
            del self._leaving[name]
            self.hops.pop(name, None)
            self.programs.pop(name, None)

    def program(self, name: str) -> Program | None:
        """The hop, ready to run; None when it is not known. One that cannot be made is `broken`."""
        program = self.programs.get(name)
        if program is None and name in self.hops:
            with self.patience():
                program = self.programs[name] = self._loaded(Hop.of(self.hops[name]))
            self._bench(program)
        return program

    def _loaded(self, hop: Hop) -> Program:
        try:
            return load(hop, self.catalogue, self.figures)
        except HopNotLoaded as error:
            mode = "open" if hop.fails_open else "closed"
            self.failures.note(hop.place, error.policy, "load", mode, error)
            errors = self.figures.of(error.policy, "load").errors
            errors["not-loaded"] = errors.get("not-loaded", 0) + 1
            return broken(hop, str(error))

    def retry(self) -> None:
        """What could not be made may have become possible."""
        for name in [name for name, one in self.programs.items() if one.broken]:
            del self.programs[name]

    def wanted(self, name: str) -> asyncio.Future[None]:
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


def _unbench(step: Step) -> None:
    step.benched = False
