"""Carrying out the steps of a plan, and waiting until the routers serve what they changed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ctl.client import Client
from ctl.errors import CtlError, ExitCode, NotFound, NotLive, Refused
from ctl.output import complain, say
from ctl.plan import Action, Step
from ctl.shelf import Shelf, field_of
from ctl.turns import each

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step."""

    step: Step
    revision: int | None = None
    liveness: Json | None = None  # the gateway's answer; None when not asked for
    error: CtlError | None = None

    @property
    def done(self) -> str:
        """The result in one word; what is not live may still be created."""
        return "refused" if isinstance(self.error, Refused) else self.step.action.done

    @property
    def text(self) -> str:
        """The result as a line."""
        if self.error is None:
            return f"{self.step.label} {self.done}{self._live}"
        if isinstance(self.error, NotLive):
            return f"{self.step.label} {self.done}, {self.error.message}"
        return f"{self.step.label} failed: {self.error.message}"

    @property
    def _live(self) -> str:
        if self.liveness is None:
            return "" if self.revision is None else f", revision {self.revision}"
        return f", {live_text(self.liveness)}"

    def as_document(self) -> Json:
        """The result for programs."""
        found: Json = {
            "kind": self.step.kind.name,
            "name": self.step.name,
            "result": self.done,
            "revision": self.revision,
        }
        if self.liveness is not None:
            found |= {
                key: self.liveness.get(key) for key in ("state", "live", "total", "elapsedMs")
            }
        if self.error is not None:
            found |= {"error": self.error.message, "details": list(self.error.details)}
        return found


async def carry_out(
    client: Client,
    steps: Iterable[Step],
    wait_s: float | None,
    tell: Callable[[Outcome], None],
) -> list[Outcome]:
    """Do all `steps`; one that fails does not keep the others back. None: do not wait for live.

    What others refer to comes first, and is deleted last; outcomes are in the order of `steps`.

    `tell` hears of each when it is done. Raises NotReachable, NotAllowed: nothing else would work.
    """

    shelf = Shelf(client)
    wanted = list(steps)
    outcomes: dict[int, Outcome] = {}

    async def one(step: Step) -> None:
        outcomes[id(step)] = outcome = await _carry_out(shelf, step, wait_s)
        tell(outcome)

    for turn in sorted({_turn(step) for step in wanted}):
        await each([step for step in wanted if _turn(step) == turn], one)
    return [outcomes[id(step)] for step in wanted]


def _turn(step: Step) -> int:
    return -step.kind.turn if step.action is Action.DELETE else step.kind.turn


async def wait(client: Client, step: Step, revision: int | None, wait_s: float) -> Outcome:
    """Wait until `revision` of a step's resource is live on all routers, or refused."""
    liveness = await client.liveness(step.kind.collection, step.name, revision, wait_s)
    error = why_not_live(liveness, wait_s)
    return Outcome(step, int(liveness["revision"]), liveness, error)


def tell(outcome: Outcome) -> None:
    """Print what became of a step."""
    if outcome.error is None:
        say(outcome.text)
    else:
        complain(CtlError(outcome.text, outcome.error.details))


def live_text(liveness: Json) -> str:
    """Where a revision is live, since when."""
    what = "gone from" if liveness["state"] == "deleted" else "live on"
    text = f"{what} {liveness['live']} of {liveness['total']} routers"
    text += f", revision {liveness['revision']}"
    elapsed = liveness.get("elapsedMs")
    return text if elapsed is None else f"{text}, {elapsed:.0f} ms"


def why_not_live(liveness: Json, waited_s: float) -> NotLive | None:
    """The reason why a revision is not in force on all routers; None when it is."""
    if liveness["outcome"] == "live":
        return None
    revision, live, total = (liveness[key] for key in ("revision", "live", "total"))
    if liveness["outcome"] == "rejected":
        served = f"on {live} of {total} routers" if live else "nowhere"
        return NotLive(
            f"revision {revision} was refused, it is live {served}; what was live before stays",
            [str(liveness["reason"])],
        )
    if total == 0:
        return NotLive(
            f"revision {revision} is live nowhere: no router is connected",
            ["`signalbox status` shows the routers"],
        )
    what = "gone from" if liveness["state"] == "deleted" else "live on"
    return NotLive(f"revision {revision} is {what} {live} of {total} routers after {waited_s:g} s")


def exit_code(outcomes: Iterable[Outcome]) -> ExitCode:
    """What the shell is told: a refusal before a revision that is not live."""
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if not errors:
        return ExitCode.OK
    late = all(isinstance(error, NotLive) for error in errors)
    return ExitCode.NOT_LIVE if late else ExitCode.REFUSED


async def _carry_out(shelf: Shelf, step: Step, wait_s: float | None) -> Outcome:
    kind, name = step.kind, step.name
    body = step.document.body if step.document else {}
    revision: int | None
    try:
        match step.action:
            case Action.DELETE:
                revision = await shelf.delete(kind, name, step.revision)
            case Action.CREATE:
                revision = await shelf.create(kind, body)
            case Action.UPDATE:
                revision = await shelf.replace(kind, name, body, step.revision)
            case Action.KEEP:
                revision = step.revision
        if wait_s is None or kind.record is not None:  # records are in force at once
            return Outcome(step, revision)
        if step.action is Action.KEEP and (known := _settled(step.before or {})) is not None:
            return Outcome(step, revision, known, why_not_live(known, wait_s))
        return await wait(shelf.client, step, revision, wait_s)
    except NotFound as error:
        if step.action is Action.DELETE and step.before is not None:  # somebody was faster
            return Outcome(step)
        return Outcome(step, error=error)
    except Refused as error:
        if error.status in (401, 403):
            raise
        return Outcome(step, error=_placed(error, step))


def _settled(resource: Json) -> Json | None:
    """What a liveness request would answer at once, as far as a resource tells."""
    status = resource["status"]
    live, total = status["routers"]["live"], status["routers"]["total"]
    reason = status.get("reason")
    if reason is None and not 0 < live == total:
        return None
    return {
        "revision": status["revision"],
        "state": status["state"],
        "outcome": "live" if reason is None else "rejected",
        "live": live,
        "total": total,
        "reason": reason,
    }


def _placed(error: Refused, step: Step) -> Refused:
    """The gateway's refusal, each fault with its line in the file."""
    if step.document is None:
        return error
    faults = [(field_of(step.kind, field), message) for field, message in error.faults]
    details = [f"{step.document.place_of(field)}: {field}: {message}" for field, message in faults]
    return Refused(
        error.message,
        details or [f"{step.document.place}: {detail}" for detail in error.details],
        status=error.status,
        faults=faults,
    )
