"""A crowd is let in by turns of the event loop."""

import asyncio

from gateway.turnstile import Turnstile


async def test_a_crowd_is_let_in_a_few_at_a_time_and_in_order() -> None:
    turnstile, begun = Turnstile(3), list[int]()
    for number in range(7):
        turnstile.enter(lambda number=number: begun.append(number))  # type: ignore[misc]
    turns = [len(begun)]
    for _ in range(3):
        await asyncio.sleep(0)
        turns.append(len(begun))
    assert turns == [3, 6, 7, 7]
    assert begun == [*range(7)]
