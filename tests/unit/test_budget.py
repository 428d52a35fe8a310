"""The bound over all that is held, and who gives way."""

from gateway.budget import ByteBudget


class Holder:
    """Gives back half, each time it is asked."""

    def __init__(self, budget: ByteBudget) -> None:
        self.budget = budget
        self.held = 0
        self.asked = 0

    def has(self, held: int) -> None:
        self.budget.change(self, held)

    def give_back(self) -> None:
        self.asked += 1
        self.has(self.held // 2)


def test_the_largest_give_back_until_there_is_room() -> None:
    budget = ByteBudget(1000)
    small, large, larger = (Holder(budget) for _ in range(3))
    small.has(100)
    large.has(400)
    larger.has(500)
    assert budget.total == 1000
    assert not larger.asked, "that is what there may be"
    small.has(110)
    assert (larger.asked, large.asked, small.asked) == (1, 0, 0)
    assert budget.total == 760


def test_who_holds_no_more_than_a_share_gives_nothing_back() -> None:
    budget = ByteBudget(100)
    large, small = Holder(budget), Holder(budget)
    large.give_back = lambda: None  # type: ignore[method-assign]
    large.has(90)
    small.has(50)
    assert budget.total == 140
    asked = [small.asked]
    small.has(52)
    assert [*asked, small.asked] == [0, 1]


def test_who_has_nothing_to_give_is_asked_again_when_more_is_held_or_some_was_free() -> None:
    budget = ByteBudget(1000)
    large, small = Holder(budget), Holder(budget)
    asked: list[int] = []
    large.give_back = lambda: asked.append(budget.total)  # type: ignore[method-assign]
    large.has(1001)
    small.has(10)
    assert asked == [1001]
    small.has(11)
    assert asked == [1001, 1012]
    small.has(0)
    large.has(991)
    large.has(1001)
    assert asked == [1001, 1012], "it was no less than a hundredth that was free"
    large.has(990)
    large.has(1001)
    assert asked == [1001, 1012, 1001]


def test_who_has_less_than_a_share_may_add() -> None:
    budget = ByteBudget(1000)
    small, large = Holder(budget), Holder(budget)
    for each in (small, large):
        each.give_back = lambda: None  # type: ignore[method-assign]
    small.has(100)
    large.has(850)
    assert budget.admits(large, 50)
    assert not budget.admits(large, 51)
    assert budget.admits(small, 400)
    assert not budget.admits(small, 401)


def test_who_may_not_add_gives_back_first() -> None:
    budget = ByteBudget(1000)
    other, large = Holder(budget), Holder(budget)
    other.has(390)
    large.has(600)
    assert budget.admits(large, 11)
    assert (other.asked, large.asked) == (0, 1)
    assert budget.total == 690
    assert not budget.admits(large, 700)
    assert (other.asked, large.asked) == (0, 2), "what is refused costs its sender alone"


def test_who_has_nothing_does_not_count() -> None:
    budget = ByteBudget(1000)
    here, gone = Holder(budget), Holder(budget)
    here.give_back = lambda: None  # type: ignore[method-assign]
    gone.has(10)
    gone.has(0)
    here.has(600)
    assert budget.total == 600
    assert budget.admits(here, 400)
    assert not budget.admits(here, 401)
