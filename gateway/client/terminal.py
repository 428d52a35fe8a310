"""What a chat reads and writes: in a terminal, or from a pipe and into files."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.data_structures import Size
from prompt_toolkit.history import DummyHistory, History, InMemoryHistory
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys
from prompt_toolkit.output.vt100 import Vt100_Output
from rich.console import Console
from rich.markup import escape
from rich.status import Status

HARMLESS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
"""For `str.translate`: a reply must not steer the terminal."""
ENDS = {Keys.ControlM, Keys.ControlJ, Keys.ControlC}
"""The keys that end a line."""


class Interrupted(Exception):
    """Ctrl-C was typed at the prompt.

    Attributes:
        cleared: Whether there was a line to clear.
    """

    def __init__(self, *, cleared: bool = False) -> None:
        super().__init__()
        self.cleared = cleared


class Input:
    """Lines from the standard input, and Ctrl-C, which is neither its end nor an error.

    Args:
        prompt: Before each line; empty where nobody types them.

    Attributes:
        was_aside: Whether the newest line, or its beginning, had been set aside.
    """

    def __init__(self, prompt: str) -> None:
        self.was_aside = False
        self._aside: list[KeyPress] = []
        self._at_prompt = False
        self._prompt = prompt
        self._interrupted = asyncio.Event()
        self._lines = _editor(InMemoryHistory()) if prompt else None
        self._answers = _editor(DummyHistory()) if prompt else None

    @property
    def typed(self) -> str:
        """What stands at the prompt, until `line` has given it; empty where there is no prompt."""
        lines = self._lines
        return lines.default_buffer.text if lines is not None and self._at_prompt else ""

    async def line(self, draft: str = "") -> str | None:
        """The next line; None at the end.

        Args:
            draft: Stands at the prompt from the start, before anything that was set aside.

        Raises:
            Interrupted: See there.
        """
        if self._lines is None:
            return await self._read()
        self.was_aside = False

        def begin() -> None:
            self._at_prompt = True
            if not draft:
                self._take_up()

        try:
            return await self._typed_line(self._lines, self._prompt, draft, begin)
        finally:
            self._at_prompt = False

    def set_aside(self) -> None:
        """Set aside what has been typed before there is a prompt for it.

        `line` gives it line by line, and says of each that it `was_aside`.
        """
        editors = (self._lines, self._answers)
        if not any(editor is not None and editor.app.is_running for editor in editors):
            self._set_aside()

    def _set_aside(self) -> None:
        if self._lines is None:
            return
        keys = self._lines.input
        self._aside += get_typeahead(keys)
        with keys.raw_mode():  # a terminal that waits for the end of a line shows nothing before it
            while typed := keys.read_keys():
                self._aside += typed
            self._aside += keys.flush_keys()

    def _take_up(self) -> None:
        """Let the prompt that is beginning have the first line of what was set aside."""
        if self._lines is None or not self._aside:
            return
        self.was_aside = True
        ends = (number for number, key in enumerate(self._aside, 1) if key.key in ENDS)
        end = next(ends, len(self._aside))
        later = get_typeahead(self._lines.input)
        store_typeahead(self._lines.input, self._aside[:end] + later)
        del self._aside[:end]

    async def agrees(self, question: str) -> bool:
        """Whether the answer is yes; what was typed before the question is none, and set aside."""
        if self._answers is None:
            return False
        try:
            answer = await self._typed_line(
                self._answers, f"{question} [y/N] ", begin=self._set_aside
            )
        except Interrupted:
            return False
        return answer is not None and answer.strip().lower() in {"y", "yes"}

    async def interrupts(self, work: asyncio.Future[Any]) -> bool:
        """Wait for the work; true where Ctrl-C comes before its end.

        One that came while nobody waited counts, and one that the work's end has overtaken is for
        what is waited for next: none is lost between a reply and the prompt.
        """
        interrupted = asyncio.create_task(self._interrupted.wait())
        try:
            await asyncio.wait([work, interrupted], return_when=asyncio.FIRST_COMPLETED)
        finally:
            interrupted.cancel()
        if work.done():
            return False
        self._interrupted.clear()
        return True

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Take Ctrl-C where it is a signal: everywhere but at the prompt."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupted.set)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def above(self, write: Callable[[], None]) -> None:
        """Write something without getting in the way of a line that is being typed."""
        editors = (self._lines, self._answers)
        if any(editor is not None and editor.app.is_running for editor in editors):
            run_in_terminal(write)
        else:
            write()

    async def _typed_line(
        self,
        editor: PromptSession[str],
        prompt: str,
        draft: str = "",
        begin: Callable[[], None] | None = None,
    ) -> str | None:
        typing = asyncio.create_task(
            editor.prompt_async(
                prompt,
                default=draft,
                handle_sigint=False,
                set_exception_handler=False,
                pre_run=begin,  # nothing comes between it and the first key
            )
        )
        if await self.interrupts(typing):
            typing.cancel()
            await asyncio.wait([typing])
            raise Interrupted(cleared=bool(editor.default_buffer.text))
        try:
            return typing.result()
        except Interrupted:
            raise Interrupted(cleared=bool(editor.default_buffer.text)) from None
        except EOFError:
            return None

    async def _read(self) -> str | None:
        # A thread, since files and pipes can both be read in one; a daemon, since nothing else
        # ends a read.
        loop = asyncio.get_running_loop()
        line: asyncio.Future[str | None] = loop.create_future()

        def settle(text: str | None) -> None:
            if not line.done():
                line.set_result(text)

        def read() -> None:
            try:
                text = sys.stdin.readline() or None
            except (OSError, UnicodeDecodeError):
                text = None
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, text)

        threading.Thread(target=read, daemon=True).start()
        text = await line
        return None if text is None else text.removesuffix("\n")


def _editor(history: History) -> PromptSession[str]:
    def size() -> Size:
        columns, rows = shutil.get_terminal_size()
        return Size(rows, columns)

    # It is not asked where its cursor is: what a terminal answers late would be taken for typed.
    output = Vt100_Output(sys.stdout, size, term=os.environ.get("TERM"), enable_cpr=False)
    return PromptSession(
        history=history, output=output, enable_suspend=True, interrupt_exception=Interrupted
    )


class TerminalOutput:
    """Replies on the standard output, and everything else on that for errors.

    Args:
        keys: What is typed meanwhile.
        terminal: Whether both are a terminal.
    """

    def __init__(self, keys: Input, *, terminal: bool) -> None:
        self._input = keys
        self._terminal = terminal
        self._out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._errors = Console(stderr=True, soft_wrap=not terminal, highlight=False)
        self._spinner: Status | None = None
        self._in_line = False

    def write(self, text: str) -> None:
        """Write a part of a reply."""
        self._stop_waiting()
        text = text.translate(HARMLESS)
        self._out.print(text, end="")
        self._out.file.flush()
        if text:
            self._in_line = not text.endswith("\n")

    def end_line(self) -> None:
        """End the line that a reply has left open."""
        if self._in_line:
            self._out.print()
            self._in_line = False

    def print(self, text: str, style: str) -> None:
        """Write something that is not the model's, on a line of its own."""
        self._input.above(lambda: self._print(text, style))

    def _print(self, text: str, style: str) -> None:
        if self._spinner is not None:
            self._spinner.stop()
        self.end_line()
        self._errors.print(f"[{style}]{escape(text.translate(HARMLESS))}[/]")
        if self._spinner is not None:
            self._spinner.start()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Show in a terminal that a reply is waited for, until its first part is written."""
        if self._terminal:
            self._spinner = self._out.status("[dim]waiting[/]", spinner_style="dim")
            self._spinner.start()
        try:
            yield
        finally:
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
