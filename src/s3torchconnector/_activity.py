"""Describes what the threads of this process are doing, from their stacks, at no cost for programs that do not ask.

A function in which a thread may wait, or that knows the object concerned, says so where it is defined:

    @activity("waits for room in the memory budget")
    def wait_take(self, ...)

    @activity("reads {}", "self")
    def read(self, ...)

The decorator notes the text and returns the function unchanged. ``activities`` looks for such functions on the stack of
every thread. It takes no lock, so it works while any locks are held.

Before Python 3.13, a function whose variable is shown keeps the values that all its variables had until it returns. So
no function is marked with a variable that has to release what another of its variables had.
"""

import sys
from collections.abc import Callable
from threading import get_ident
from types import CodeType
from typing import Any, TypeVar

from s3torchconnector._threads import thread_names

_F = TypeVar("_F", bound=Callable[..., Any])


_activities: dict[CodeType, tuple[str, str]] = {}  # text, with the variable's value as {}; the variable


def activity(text: str, variable: str = "") -> Callable[[_F], _F]:
    """Say what a thread does while it is in the decorated function.

    Args:
        text: for ``str.format``, with the value of ``variable``.
        variable: a parameter or another local variable of the function.

    Raises:
        ValueError: the function has no such variable.
    """

    def mark(function: _F) -> _F:
        code = function.__code__
        if variable and variable not in code.co_varnames + code.co_cellvars:
            raise ValueError(f"{function.__qualname__} has no variable {variable}")
        _activities[code] = text, variable
        return function

    return mark


def activities() -> list[tuple[str, str]]:
    """The name of each other thread that is in a marked function, and what it does: the outermost function first."""
    names = thread_names()
    found = []
    for identifier, frame in sys._current_frames().items():
        if identifier == get_ident():
            continue
        marked: list[tuple[str, Any]] = []
        current: Any = frame
        while current is not None:
            known = _activities.get(current.f_code)
            if known is not None:
                text, variable = known
                marked.append((text, current.f_locals.get(variable) if variable else None))
            current = current.f_back
        del frame, current
        if marked:
            said = "; ".join(_told(each, value) for each, value in reversed(marked))
            found.append((names.get(identifier, f"thread {identifier}"), said))
    return sorted(found)


def _told(text: str, value: Any) -> str:
    try:
        return text.format(value)
    except Exception as error:  # it goes on meanwhile, and may be half made or half ended
        return f"{text} ({type(error).__name__})"
