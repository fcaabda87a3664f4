"""A progress bar on stderr, for people who wait for many things."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ctl.output import colourful

FEW = 10
"""Up to so many things need no bar."""


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Call what is given once for each of `total` things; draws only on a terminal."""
    if total <= FEW or not colourful(sys.stderr.isatty()):
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415 - only terminals need it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn  # noqa: PLC0415

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        what,
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # lines go above the bar; a file gets its own
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
