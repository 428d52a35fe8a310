"""The client's codecs against the gateway's: what one writes the other reads."""

from typing import Any

import msgspec
import pytest
from msgspec import UNSET, Raw

from gateway.client.codecs import ClientCodec, JsonClientCodec, MsgpackClientCodec, UnknownMessage
from gateway.protocol.codecs import Codec, JsonCodec, MsgpackCodec, ProtocolError
from gateway.protocol.messages import (
    EventAck,
    MessageDelta,
    MessageDone,
    MessageSend,
    Pong,
    ServerMessage,
)

PAIRS = [(JsonClientCodec(), JsonCodec()), (MsgpackClientCodec(), MsgpackCodec())]


def sent(server: Codec, message: ServerMessage) -> str | bytes:
    """A message as a client's WebSocket library gives it."""
    payload = server.encode(message)
    return payload.decode() if server.text else payload


@pytest.mark.parametrize(("client", "server"), PAIRS, ids=["json", "msgpack"])
class TestPairs:
    @pytest.mark.parametrize(
        "message",
        [
            MessageSend(id="m", text="é\U0001f600"),
            MessageSend(id="m", data=b"\0\xff", stream=False),
            MessageSend(id="m", json=Raw(b'{"a":[1,2.5,null,"x"]}')),
            EventAck(event=3),
        ],
    )
    def test_what_the_client_writes(self, client: ClientCodec, server: Codec, message: Any) -> None:
        assert server.decode(client.encode(message)) == message

    @pytest.mark.parametrize(
        ("fields", "body"),
        [
            ({"text": "é"}, "é"),
            ({"base64": b"\0\xff"}, b"\0\xff"),
            ({"json": Raw(b'{"a":"\xc3\xa9"}')}, '{"a":"é"}'),
            ({}, None),
        ],
    )
    def test_what_the_gateway_writes(
        self, client: ClientCodec, server: Codec, fields: Any, body: str | bytes | None
    ) -> None:
        done = MessageDone(event=1, id="m", status="completed", deltas=0, duration_ms=1, **fields)
        read = client.decode(sent(server, done))
        assert isinstance(read, MessageDone)
        assert client.body(read) == body
        if "json" not in fields:
            delta = MessageDelta(event=1, id="m", index=0, **fields)
            read_delta = client.decode(sent(server, delta))
            assert isinstance(read_delta, MessageDelta)
            assert client.body(read_delta) == body
        assert client.decode(sent(server, Pong())) == Pong(data=UNSET)

    def test_what_is_no_message(self, client: ClientCodec, server: Codec) -> None:
        encode = (
            msgspec.json.encode
            if client.subprotocol.startswith("v1.json")
            else (msgspec.msgpack.encode)
        )

        def frame(value: object) -> Any:
            packed = encode(value)
            return packed.decode() if encode is msgspec.json.encode else packed

        assert client.decode(frame({"type": "later"})) == UnknownMessage("later")
        later = frame({"type": "session.later", "event": 5, "of": []})
        assert client.decode(later) == UnknownMessage("session.later", 5)
        other = sent(server, Pong())
        for wrong in (
            frame({"type": "pong", "data": 1}),
            frame({"type": "session.later", "event": "x"}),
            frame([]),
            other[:-1],
            other.encode() if isinstance(other, str) else "text",
        ):
            with pytest.raises(ProtocolError):
                client.decode(wrong)
