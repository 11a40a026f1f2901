"""Calls that may be due long after their model has been unloaded, whose objects are not kept for them."""

from collections.abc import Callable
from weakref import WeakMethod


def unless_gone(method: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls a bound ``method`` as long as somebody else refers to its object."""
    reference = WeakMethod(method)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive()

    return call
