"""What turns say, and what the model answers to them: each reply can be told from all others."""


def turn(name: str, number: int, parts: int, pause_ms: int) -> str:
    """A turn's text.

    Args:
        name: The client's.
        number: Of the turn; a client says nothing twice.
        parts: In how many the reply comes, where it is streamed.
        pause_ms: How long the model takes for each.
    """
    return f"{name}.{number} {parts} {pause_ms}"


def parts(text: str) -> list[str]:
    """The reply to a turn."""
    name, count, _ = text.split()
    return [f"{name}#{number};" for number in range(int(count))]


def pause(text: str) -> float:
    """How many seconds the model takes for each part."""
    return int(text.split()[2]) / 1000
