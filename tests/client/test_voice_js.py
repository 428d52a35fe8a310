"""What the page ``/voice`` does with sound before it is sent, and with what comes back, in Node."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import NODE
from tests.support.timing import UNIT

MODULES = (Path(__file__).parents[2] / "static" / "voice").as_uri()

SCRIPT = (
    """
import { Resampler } from "MODULES/resampler.js";
import { Chunks, peaks, toBytes, toSamples } from "MODULES/pcm.js";
import { clock, Speech } from "MODULES/speech.js";
import { Sender } from "MODULES/sender.js";

const said = {};

// Tones through the resampler: how far they are from what they should be.
const tone = (rate, hertz, seconds = 0.2) =>
  Float32Array.from({ length: rate * seconds }, (_, at) =>
    Math.sin((2 * Math.PI * hertz * at) / rate),
  );
const resampled = (from, sound, ...sizes) => {
  const resampler = new Resampler(from, 16000);
  const blocks = [];
  for (let at = 0, block = 0; at < sound.length; block += 1) {
    const size = sizes[block % sizes.length];
    blocks.push(...resampler.push(sound.subarray(at, at + size)));
    at += size;
  }
  return Float32Array.from([...blocks, ...resampler.end()]);
};
const inner = (sound) => sound.slice(200, sound.length - 200);
const loudest = (sound) => sound.reduce((most, level) => Math.max(most, Math.abs(level)), 0);
said.rates = [8000, 16000, 22050, 44100, 48000, 96000].map((rate) => {
  const come = resampled(rate, tone(rate, 440), 1000);
  const wanted = tone(16000, 440);
  const middle = inner(come.slice(0, wanted.length));
  const error = loudest(middle.map((level, at) => level - wanted[at + 200]));
  const blocks = resampled(rate, tone(rate, 440), 128, 1, 999);
  const same = come.length === blocks.length && come.every((level, at) => level === blocks[at]);
  return { rate, length: come.length, error, same };
});
const left = (hertz) => loudest(inner(resampled(48000, tone(48000, hertz), 512)));
said.alias = [9000, 10000, 15000].map(left);
said.kept = [1000, 6000].map(left);

said.samples = [...toSamples(Float32Array.of(0, 1, -1, 2, -2, 0.5, 1 / 32768, -0.5))];
said.bytes = [...toBytes(Int16Array.of(1, -2, 0x1234))];
const quiet = new Int16Array(600);
quiet[3] = -16384;
quiet[599] = 8192;
said.peaks = peaks(quiet);
const chunks = new Chunks();
const sound = Int16Array.from({ length: 10000 }, (_, at) => at);
const halves = [sound.subarray(0, 5000), sound.subarray(5000)];
const cut = [...halves.flatMap((half) => [...chunks.push(half)]), chunks.rest()];
said.cut = cut.map((chunk) => [chunk.length, chunk[0], chunk.at(-1)]);
said.empty = chunks.rest().length;

const speech = new Speech();
const frames = [0.1, 0.6, 0.4, 0.9, 0.2, 0.3, 0.4, 0.2, 0.1, 0.2, 0.1, 0.7];
said.changes = frames.map((probability) => speech.add(probability));
speech.end();
said.segments = speech.segments;
said.clock = [0, 1, 1875, 3750 + 31, 20_000].map(clock);

// A client that answers when it is told to.
const asked = [];
const client = {
  send: ({ bytes }) => new Promise((resolve, reject) => asked.push({ bytes, resolve, reject })),
};
const heard = [];
const sender = new Sender(client, ({ frame }) => heard.push(frame));
for (let n = 0; n < 10; n += 1) sender.send(Int16Array.of(n));
said.atOnce = asked.length;
said.behind = sender.behind;
let room = false;
sender.room().then(() => (room = true));
const soon = () => new Promise((resolve) => setTimeout(resolve));
const answer = (n, json = { frame: n, probabilities: [0.5] }) => asked[n].resolve({ json });
answer(0);
await soon();
said.then = [asked.length, room];
for (let n = 1; n < 5; n += 1) answer(n);
await soon();
said.after = [asked.length, room, [...heard], asked[9].bytes[0]];
asked[5].reject(new Error("It broke."));
await sender.settled();
answer(6);
sender.send(Int16Array.of(9));
await sender.room();
await soon();
said.failed = [sender.failure, heard.length, asked.length, sender.behind];
const other = new Sender(client, () => {});
other.send(Int16Array.of(1));
answer(10, { text: "Hello" });
await other.settled();
said.another = other.failure;

console.log(JSON.stringify(said));
"""
).replace("MODULES", MODULES)


@pytest.fixture(scope="module")
def said() -> Any:
    """What the script has found out."""
    command = [str(NODE), "--input-type=module", "--eval", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30 * UNIT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_another_sample_rate_keeps_the_sound(said: Any) -> None:
    for found in said["rates"]:
        assert found["error"] < 1e-4, found
        assert found["same"], "whatever the blocks are"
        assert 3_200 <= found["length"] <= 3_200 + 100
    assert all(level == pytest.approx(1, abs=2e-3) for level in said["kept"])


def test_what_it_can_not_hold_does_not_come_back_as_another_tone(said: Any) -> None:
    assert all(level < 1e-3 for level in said["alias"]), "60 dB less"


def test_samples_and_messages(said: Any) -> None:
    assert said["samples"] == [0, 32_767, -32_768, 32_767, -32_768, 16_384, 1, -16_384]
    assert said["bytes"] == [1, 0, 0xFE, 0xFF, 0x34, 0x12]
    assert said["peaks"] == [0.5, 0.25]
    assert said["cut"] == [[4096, 0, 4095], [4096, 4096, 8191], [1808, 8192, 9999]]
    assert said["empty"] == 0


def test_speech_ends_where_it_stays_quiet(said: Any) -> None:
    begins, ends = (1, 11), (9,)
    assert [at for at, changed in enumerate(said["changes"]) if changed] == sorted((*begins, *ends))
    assert said["segments"] == [
        {"begin": 1, "end": 7, "open": False},
        {"begin": 11, "end": 12, "open": False},
    ]
    assert said["clock"] == ["0:00.0", "0:00.0", "1:00.0", "2:01.0", "10:40.0"]


def test_nothing_is_dropped_and_nothing_goes_on_after_a_failure(said: Any) -> None:
    assert said["atOnce"] == 8
    assert said["behind"] == pytest.approx(2 * 0.256)
    assert said["then"] == [9, False]
    assert said["after"] == [10, True, [0, 1, 2, 3, 4], 9]
    assert said["failed"] == ["It broke.", 5, 10, 0]
    assert 'lacks body = "json"' in said["another"]
