"""Contexts of calls for tests."""

from inferd.call_context import CallContext


def call_context(**attributes: object) -> CallContext:
    """Return a context with ``attributes``."""
    context = CallContext()
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


def known(context: CallContext) -> dict[str, object]:
    """Return the known attributes of ``context``, by name."""
    values = {name: getattr(context, name) for name in CallContext.__slots__}
    return {name: value for name, value in values.items() if value is not None}
