"""Whether a container remembers: it is told a name that nobody can guess, and asked for it."""

import secrets
from difflib import SequenceMatcher
from enum import StrEnum

ALIKE = 0.9
"""From how much of two answers on they count as the same."""

_CONSONANTS, _VOWELS = "bdfklmnprstvz", "aeiou"
_SYLLABLES = 4

QUESTION = "What is my cat called?"


class Memory(StrEnum):
    """What the answers say of a container."""

    REMEMBERS = "remembers"
    FORGETS = "forgets"
    UNKNOWN = "unknown"


def new_name() -> str:
    """A name that can be read out, and is in no model's head."""
    letters = (
        secrets.choice(letters) for _ in range(_SYLLABLES) for letters in (_CONSONANTS, _VOWELS)
    )
    return "".join(letters).capitalize()


def statement(name: str) -> str:
    """What the model is told first."""
    return f"Remember that my cat is called {name}."


def has_name(name: str, answer: str) -> bool:
    """Whether the model has given it back."""
    return name.lower() in answer.lower()


def judged(first: str, answer: str, afresh: str) -> Memory:
    """What it means that an answer does not have the name.

    A model whose session carries what was said has no reason to answer as one that was told
    nothing. But an answer that is the question, or the same whatever is said, tells nothing.

    Args:
        first: What the model has said to the statement.
        answer: To the question.
        afresh: To the same question, in a session of its own.
    """
    said = answer.strip()
    if not said or QUESTION in said or _alike(first, said) or not _alike(said, afresh):
        return Memory.UNKNOWN
    return Memory.FORGETS


def _alike(one: str, other: str) -> bool:
    return SequenceMatcher(None, one.strip(), other.strip(), autojunk=False).ratio() >= ALIKE
