"""What others have written, in a log."""

from gateway.logs import LogLimit, Seldom, printable


def test_a_short_text_stays_as_it_is() -> None:
    assert printable("https://chat.example.com", 30) == "https://chat.example.com"


def test_a_long_one_is_cut_and_says_so() -> None:
    assert printable("x" * 31, 30) == "x" * 30 + "…"


def test_nothing_that_a_terminal_would_obey() -> None:
    assert printable("a\x1b[2J\r\nb\u202e", 30) == "a\ufffd[2J\ufffd\ufffdb\ufffd"


def test_each_thing_is_said_once_in_a_while_and_only_so_many() -> None:
    now = [1000.0]
    seldom = Seldom(2, 60, clock=lambda: now[0])
    assert seldom.unsaid("a") == 0
    assert seldom.unsaid("a") is None
    assert seldom.unsaid("b") == 1
    assert seldom.unsaid("c") is None, "there is no more room"
    now[0] += 59
    assert seldom.unsaid("a") is None
    now[0] += 1
    assert seldom.unsaid("a") == 2
    assert seldom.unsaid("c") == 0


def test_so_many_lines_of_a_kind_are_logged() -> None:
    now = [0.0]
    limit = LogLimit(2, 60, clock=lambda: now[0])
    assert [limit.suppressed("a") for _ in range(5)] == [0, 0, None, None, None]
    assert limit.suppressed("b") == 0
    now[0] = 59.9
    assert limit.suppressed("a") is None
    now[0] = 60
    assert [limit.suppressed("a") for _ in range(3)] == [4, 0, None]
    assert limit.suppressed("b") == 0
    now[0] = 300
    assert limit.suppressed("a") == 1
