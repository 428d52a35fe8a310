"""Tests whether a container remembers: it is told a random name, and then asked for it."""

import secrets
from difflib import SequenceMatcher
from enum import StrEnum

ALIKE = 0.9
"""Similarity from which on two answers count as the same."""

_CONSONANTS, _VOWELS = "bdfklmnprstvz", "aeiou"
_SYLLABLES = 4

QUESTION = "What is my cat called?"


class Memory(StrEnum):
    """What the answers show about a container."""

    REMEMBERS = "remembers"
    FORGETS = "forgets"
    UNKNOWN = "unknown"


def new_name() -> str:
    """Generate a name that is pronounceable, and known to no model."""
    letters = (
        secrets.choice(letters) for _ in range(_SYLLABLES) for letters in (_CONSONANTS, _VOWELS)
    )
    return "".join(letters).capitalize()


def statement(name: str) -> str:
    """Return the message that tells the model the name."""
    return f"Remember that my cat is called {name}."


def has_name(name: str, answer: str) -> bool:
    """Whether an answer has the name."""
    return name.lower() in answer.lower()


def judged(first: str, answer: str, afresh: str) -> Memory:
    """Judge an answer without the name.

    A model that remembers has no reason to answer as one that was told nothing. But an answer that
    repeats the question, or is the same whatever is said, shows nothing.

    Args:
        first: The answer to the statement.
        answer: The answer to the question.
        afresh: The answer to the same question in a new session.
    """
    said = answer.strip()
    if not said or QUESTION in said or _alike(first, said) or not _alike(said, afresh):
        return Memory.UNKNOWN
    return Memory.FORGETS


def _alike(one: str, other: str) -> bool:
    return SequenceMatcher(None, one.strip(), other.strip(), autojunk=False).ratio() >= ALIKE
