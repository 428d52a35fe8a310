"""What is written is read again: messages by the codecs, and streams however they are cut."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw, structs

from gateway.client.codecs import ClientCodec, JsonClientCodec, MsgpackClientCodec
from gateway.formats.streams import StreamKind, splitter
from gateway.formats.text import Text
from gateway.local.eventstream import message, payload_part
from gateway.protocol import messages as wire
from gateway.protocol.codecs import Codec, JsonCodec, MsgpackCodec
from gateway.sagemaker.eventstream import EventStream
from tests.fuzz.stack import cut

PAIRS = pytest.mark.parametrize(
    ("client", "server"),
    [(JsonClientCodec(), JsonCodec()), (MsgpackClientCodec(), MsgpackCodec())],
    ids=["json", "msgpack"],
)
_VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_BODIES = st.one_of(
    st.fixed_dictionaries({"text": st.text()}),
    st.fixed_dictionaries({"data": st.binary()}),
    st.fixed_dictionaries({"json": _ANY.map(msgspec.json.encode).map(Raw)}),
)
_SENDS = st.builds(
    lambda message, body, more: wire.MessageSend(id=message, **body, **more),
    _VISIBLE,
    _BODIES,
    st.fixed_dictionaries(
        {},
        optional={
            "stream": st.booleans(),
            "accept": _VISIBLE,
            "content_type": _VISIBLE,
            "target_model": _VISIBLE,
        },
    ),
)
_CLIENTS = st.one_of(
    _SENDS,
    st.builds(wire.MessageCancel, id=_VISIBLE),
    st.builds(wire.EventAck, event=st.integers(0, 2**53)),
    st.builds(wire.AuthRefresh, token=st.text()),
    st.builds(wire.SessionOpen, token=st.text()),
    st.builds(wire.SessionOpen, session_id=st.text(), resume_key=st.text(), last_event=st.just(7)),
    st.builds(wire.Ping, data=st.text(max_size=125)),
    st.just(wire.SessionClose()),
)
_REPLIES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"text": st.text()}),
    st.fixed_dictionaries({"base64": st.binary()}),
    st.just({}),
)
_SERVERS = st.one_of(
    st.builds(
        lambda body: wire.MessageDone(
            event=1, id="a", status="completed", deltas=0, duration_ms=5, **body
        ),
        _REPLIES,
    ),
    st.builds(lambda text: wire.MessageDelta(event=2, id="a", index=0, text=text), st.text()),
    st.builds(lambda data: wire.MessageDelta(event=2, id="a", index=0, base64=data), st.binary()),
    st.builds(wire.Pong, data=st.text()),
)


@PAIRS
@given(sent=_CLIENTS)
def test_what_a_client_writes_the_gateway_reads(
    client: ClientCodec, server: Codec, sent: wire.ClientMessage
) -> None:
    read = server.decode(client.encode(sent))
    if isinstance(sent, wire.MessageSend) and sent.json is not UNSET:
        assert isinstance(read, wire.MessageSend)
        assert read.json is not UNSET
        assert msgspec.json.decode(read.json) == msgspec.json.decode(sent.json)
        read = structs.replace(read, json=sent.json)
    assert read == sent


@PAIRS
@given(sent=_SERVERS)
def test_what_the_gateway_writes_a_client_reads(
    client: ClientCodec, server: Codec, sent: wire.ServerMessage
) -> None:
    frame = server.encode(sent)
    read = client.decode(frame.decode() if server.text else frame)
    if isinstance(sent, wire.MessageDone | wire.MessageDelta):
        assert isinstance(read, wire.MessageDone | wire.MessageDelta)
        assert client.body(read) == client.body(sent)
        assert (read.event, read.id) == (sent.event, sent.id)
    else:
        assert read == sent


_CUTS = st.lists(st.integers(0, 3000), max_size=12)
_KEYS = st.text(max_size=20).filter(lambda name: len(name.encode()) < 256)


@given(
    sent=st.lists(st.tuples(st.dictionaries(_KEYS, st.text(max_size=20)), st.binary()), max_size=4),
    places=_CUTS,
)
def test_an_event_stream_is_read_as_it_is_written(
    sent: list[tuple[dict[str, str], bytes]], places: list[int]
) -> None:
    stream = EventStream()
    read = [
        (dict(headers), bytes(payload))
        for data in cut(b"".join(message(*event) for event in sent), places)
        for headers, payload in stream.feed(data)
    ]
    assert read == sent
    assert not stream.pending


def _line(word: str) -> bytes:
    return json.dumps({"content": word}).encode() + b"\n"


def _event(word: str) -> bytes:
    return b"data: " + json.dumps({"content": word}, ensure_ascii=False).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("kind", "write"), [(StreamKind.LINES, _line), (StreamKind.SSE, _event)], ids=["lines", "sse"]
)
@given(words=st.lists(st.text(min_size=1, max_size=30), max_size=8), inner=_CUTS, outer=_CUTS)
def test_words_come_through_both_layers_of_a_stream(
    kind: StreamKind,
    write: Callable[[str], bytes],
    words: list[str],
    inner: list[int],
    outer: list[int],
) -> None:
    """A container's records, cut into the events of AWS's stream, cut by the network."""
    parts = cut(b"".join(map(write, words)), inner)
    stream, records = EventStream(), splitter(kind, text=Text("content"))
    read = [
        word
        for data in cut(b"".join(map(payload_part, parts)), outer)
        for _, payload in stream.feed(data)
        for word in records.feed(payload)
    ]
    read += list(records.end())
    assert [word for word in read if word is not None] == words
