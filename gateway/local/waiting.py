"""Progress display: a bar and the elapsed time on a terminal, two plain lines elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextlib.contextmanager
def waiting(
    what: str, steps: int, done: str, console: Console | None = None
) -> Iterator[Callable[[], None]]:
    """Show progress for as long as the context lasts; yields a function to call after each step.

    Args:
        what: Text shown while waiting.
        steps: Number of steps.
        done: Text shown at the end, with the time taken.
        console: Where to print; standard output by default.
    """
    console = console or Console()
    began = time.monotonic()
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(escape(what), total=steps)
            yield lambda: progress.advance(task)
    else:
        _say(console, f"{what} …")
        yield lambda: None
    _say(console, f"{done} in {time.monotonic() - began:.1f} s.")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
