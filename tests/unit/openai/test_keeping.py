"""What is kept for OpenAI's clients, and for how long."""

from gateway.stores.memory import MemoryStore
from gateway.transports.openai.keeping import RESENT_SECONDS, Asked, Keeper


class Times(MemoryStore):
    """A store, and for how long it was told to keep what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.renewed: list[float] = []

    async def get_record(self, name: str, seconds: float | None = None) -> bytes | None:
        if seconds is not None:
            self.renewed.append(seconds)
        return await super().get_record(name, seconds)


async def test_a_request_on_its_way_is_not_kept_for_longer_by_who_waits_for_it() -> None:
    store = Times()
    keeper = Keeper(store, seconds=10 * RESENT_SECONDS)
    assert await keeper.asked("asked", "ada") is None
    for response_id, renewed in (("", []), ("resp_1", [RESENT_SECONDS])):
        await keeper.put("asked", asked := Asked(owner="ada", response_id=response_id))
        assert await keeper.asked("asked", "ada") == asked
        assert store.renewed == renewed
    assert await keeper.asked("asked", "eve") is None
