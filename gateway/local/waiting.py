"""Shows what is waited for: a bar and the time on a terminal, two plain lines anywhere else."""

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
    """Show it while this context lasts; gives what is called after each step.

    Args:
        what: Is waited for.
        steps: In how many.
        done: What is said at the end, with the time that it took.
        console: Where; the standard output unless given.
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
