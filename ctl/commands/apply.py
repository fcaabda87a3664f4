"""`signalbox apply`: files become live resources."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ctl import output
from ctl.context import Connection, connected
from ctl.errors import Different, ExitCode, Misused, Refused
from ctl.output import Format
from ctl.progress import progress

if TYPE_CHECKING:
    from ctl.client import Client
    from ctl.plan import Step
    from ctl.rollout import Outcome

Files = Annotated[
    list[str],
    typer.Option("--file", "-f", metavar="FILE|DIR|-", help="What to apply; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Resources")(connected(apply))


async def apply(
    connection: Connection,
    files: Files,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change as a diff, send nothing.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Delete what --applied-set or --selector finds beyond the files."
        ),
    ] = False,
    applied_set: Annotated[
        str | None,
        typer.Option(
            "--applied-set", metavar="NAME", help="Mark all as one set, which --prune knows again."
        ),
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option(
            "--selector", "-l", metavar="LABELS", help="What --prune may delete: key=value,..."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until all routers serve it.")
    ] = True,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", min=0, metavar="SECONDS", help="How long to wait for live."),
    ] = 30,
    output_format: output.Output = Format.TABLE,
) -> None:
    """Create or update resources, and wait until the routers serve them.

    Reads YAML or JSON, several documents to a file, directories recursively, `-` for standard
    input. All documents are checked before anything is sent; what is the same already is not sent.
    Ends with the revision that is live, or with the router's own reason and exit code 5.

    Kinds are RestApi, SubscriptionPlan, Application and Subscription, in any order: plans and
    applications are sent first, then APIs, then subscriptions.

    --prune deletes APIs that the gateway has beyond the files. It never looks further than
    --applied-set (what was applied with the same before) and --selector (labels).

    \b
    Examples:
      signalbox apply -f petstore.yaml
      signalbox apply -f apis/ --dry-run
      signalbox apply -f apis/ --applied-set shop --prune --yes
      signalbox import openapi petstore.json --upstream https://example.com | signalbox apply -f -
    """
    from ctl import documents, plan, selection  # noqa: PLC0415 - only what is applied is parsed
    from ctl.client import connect  # noqa: PLC0415

    if prune and not applied_set and not selector:
        raise Misused(
            "--prune needs --applied-set NAME or --selector LABELS: it deletes only what they name",
            ["signalbox apply -f apis/ --applied-set shop --prune"],
        )
    terms = selection.parse(selector) if selector else ()
    wanted = documents.load(files)
    if applied_set:
        wanted = [one.annotated(selection.APPLIED_SET, applied_set) for one in wanted]
    async with connect(connection) as client:
        with progress("comparing", len(wanted)) as advance:
            steps = await plan.steps(client, wanted, advance)
        extra = await plan.superfluous(client, wanted, terms, applied_set) if prune else []
        if dry_run:
            _show_differences([*steps, *extra], output_format)
            return
        if extra and not yes:
            _confirm(extra, from_stdin="-" in files)
        await _roll_out(client, steps, extra, timeout_s if wait else None, output_format)


async def _roll_out(
    client: "Client",
    steps: "Sequence[Step]",
    extra: "Sequence[Step]",
    wait_s: float | None,
    form: Format,
) -> None:
    from ctl import rollout  # noqa: PLC0415

    with progress("applying", len(steps) + len(extra)) as advance:

        def tell(outcome: "Outcome") -> None:
            advance()
            if form is Format.TABLE and not _conflicts(outcome, bool(extra)):
                rollout.tell(outcome)

        outcomes = await rollout.carry_out(client, steps, wait_s, tell)
        pruned = await rollout.carry_out(client, extra, wait_s, tell)
    again = [outcome.step for outcome in outcomes if _conflicts(outcome, bool(extra))]
    if again:  # what was in its way may be gone now
        repeated = await rollout.carry_out(
            client, again, wait_s, rollout.tell if form is Format.TABLE else lambda _: None
        )
        outcomes = [one for one in outcomes if one.step not in again] + repeated
    outcomes += pruned
    _summarize(outcomes, form)
    code = rollout.exit_code(outcomes)
    if code is not ExitCode.OK:
        raise typer.Exit(code)


def _conflicts(outcome: "Outcome", pruning: bool) -> bool:
    error = outcome.error
    return pruning and isinstance(error, Refused) and error.status == 409


def _summarize(outcomes: "Sequence[Outcome]", form: Format) -> None:
    from ctl import rollout  # noqa: PLC0415

    match form:
        case Format.JSON:
            output.say(output.as_json([one.as_document() for one in outcomes]))
        case Format.YAML:
            output.say(output.as_yaml([one.as_document() for one in outcomes]).rstrip("\n"))
        case Format.NAME:
            for one in outcomes:
                output.say(one.step.label)
        case Format.TABLE if len(outcomes) > 1:
            counts: dict[str, int] = {}
            for one in outcomes:
                word = one.done if one.error is None or one.done == "refused" else "not live"
                counts[word] = counts.get(word, 0) + 1
            output.say(", ".join(f"{count} {word}" for word, count in sorted(counts.items())))
        case _:
            return
    if form is not Format.TABLE:
        for one in outcomes:
            if one.error is not None:
                rollout.tell(one)


def _show_differences(steps: "Sequence[Step]", form: Format) -> None:
    from ctl.plan import Action, difference  # noqa: PLC0415

    changes = [step for step in steps if step.action is not Action.KEEP]
    match form:
        case Format.NAME:
            for step in changes:
                output.say(step.label)
        case Format.JSON | Format.YAML:
            found = [
                {
                    "kind": step.kind.name,
                    "name": step.name,
                    "action": step.action.value,
                    "diff": difference(step),
                }
                for step in changes
            ]
            output.say(output.as_json(found) if form is Format.JSON else output.as_yaml(found))
        case _:
            for step in changes:
                for line in difference(step):
                    _say_difference(line)
    counts = {action: sum(step.action is action for step in steps) for action in Action}
    output.note(
        f"{counts[Action.CREATE]} to create, {counts[Action.UPDATE]} to update,"
        f" {counts[Action.DELETE]} to delete, {counts[Action.KEEP]} unchanged; nothing was sent"
    )
    if changes:
        raise typer.Exit(Different.exit_code)


def _say_difference(line: str) -> None:
    colours = {"+": typer.colors.GREEN, "-": typer.colors.RED, "@": typer.colors.CYAN}
    wanted = colours.get(line[:1]) if output.colourful(sys.stdout.isatty()) else None
    output.say(typer.style(line, fg=wanted) if wanted else line)


def _confirm(extra: "Sequence[Step]", *, from_stdin: bool) -> None:
    for step in extra:
        output.note(f"to be deleted: {step.label}")
    many = f"{len(extra)} resource{'s' * (len(extra) > 1)}"
    if from_stdin or not sys.stdin.isatty():
        raise Misused(
            f"--prune would delete {many} and cannot ask here: say --yes; nothing was sent"
        )
    if not typer.confirm(f"Delete {many}?", err=True):
        raise Refused("nothing was sent")
