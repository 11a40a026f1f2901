"""Facts about calls, made and looked at in one go."""

from inferd.call_facts import CallFacts


def facts(**known: object) -> CallFacts:
    """Return facts of which some are known."""
    made = CallFacts()
    for name, value in known.items():
        setattr(made, name, value)
    return made


def told(made: CallFacts) -> dict[str, object]:
    """Return those that are known, by their names."""
    values = {name: getattr(made, name) for name in CallFacts.__slots__}
    return {name: value for name, value in values.items() if value is not None}
