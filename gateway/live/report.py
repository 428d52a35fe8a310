"""Prints the results of trying routes; with colours and progress on a terminal."""

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gateway.config import RouteSettings
from gateway.live.findings import Step

NOTICE = "Invoking the models: each route gets a session and a few short messages."
CHARGED = "AWS charges for them."

_STYLES = {
    "ok": "green",
    "warning": "yellow",
    "failed": "bold red",
    "unknown": "yellow",
    "skipped": "dim",
}
_HINT_INDENT = 21


def console() -> Console:
    """Return standard output; without colours if it is not a terminal."""
    return Console(highlight=False, emoji=False)


class Report:
    """An `Audience` that prints.

    Args:
        console: Where to print.
        where: Region and address of the endpoints, for display.
    """

    def __init__(self, console: Console, where: str) -> None:
        self._where = where
        self._console = console
        self._progress: Progress | None = None
        self._route = ""

    def route(self, name: str, route: RouteSettings) -> None:
        """See `Audience.route`."""
        self.end()
        self._route = name
        endpoint = f"endpoint {route.endpoint_name}{escape(self._where)}"
        self._console.print(f"route [bold]{escape(name)}[/]: {endpoint}", soft_wrap=True)

    def begin(self, what: str) -> None:
        """See `Audience.begin`."""
        self.end()
        if self._console.is_terminal:
            columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._progress.add_task(f"{escape(self._route)}: {what} …", total=None)
            self._progress.start()

    def step(self, step: Step) -> None:
        """See `Audience.step`."""
        self.end()
        style = _STYLES[step.status]
        took = "" if step.seconds is None else f" [dim]({step.seconds:.2f} s)[/]"
        line = f"  [{style}]{step.status:<8}[/] {step.name:<9} {escape(step.text)}{took}"
        self._console.print(line, soft_wrap=True)
        hints = () if step.hint is None else (f"hint: {step.hint}",)
        for text in (*step.details, *hints):
            if self._console.is_terminal:
                self._console.print(Padding(escape(text), (0, 0, 0, _HINT_INDENT)))
            else:
                self._console.print(f"{' ' * _HINT_INDENT}{escape(text)}", soft_wrap=True)

    def end(self) -> None:
        """Stop showing progress."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
