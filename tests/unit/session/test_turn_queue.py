"""What a session's turns hold."""

from gateway.session.ports import ModelRequest
from gateway.session.turn_queue import REMEMBERED_BYTES, TurnQueue


def add(queue: TurnQueue, message_id: str, body: bytes, said: str | None) -> None:
    queue.add(message_id, said, b"", ModelRequest(body=body, content_type="text/plain"))


def test_what_waits_counts_and_what_is_remembered() -> None:
    queue = TurnQueue(remembered=2)
    counted = []
    for message_id, body, said in (("a", b"12345", None), ("b", b"123", "é!"), ("c", b"", None)):
        add(queue, message_id, body, said)
        counted.append(queue.bytes)
    for _ in range(3):
        queue.end(queue.begin(0.0), "completed")
        counted.append(queue.bytes)
    kept = REMEMBERED_BYTES
    assert counted == [5, 5 + 6, 5 + 6, 6 + kept, 2 * kept, 2 * kept]
