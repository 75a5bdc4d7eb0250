"""What the head of a request can carry, and what a text may say of a function that returns secrets."""

from __future__ import annotations


def flaw_of(value: str) -> str:
    """What keeps a request from carrying ``value`` in its head, without the value; "" if nothing does.

    A line break in it would forge headers.
    """
    if value.isascii() and (not value or value.isprintable()):
        return ""
    wrong = next(i for i, letter in enumerate(value) if not (letter.isascii() and letter.isprintable()))
    kind = "a line break" if value[wrong] in "\r\n" else "a character that cannot be sent"
    return f"{kind} at character {wrong + 1} of {len(value)}"


def name_of(given: object) -> str:
    """The name of a function, or of the type of another callable, whose ``repr`` might show what it was made of."""
    inner = getattr(given, "func", given)  # of a functools.partial
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{getattr(named, '__module__', '?')}.{named.__qualname__}"
