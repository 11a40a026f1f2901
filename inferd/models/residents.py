"""What is loaded now, by model, as the rules of the memory budget see it."""

from collections.abc import Callable, Collection, Mapping

from inferd.models.loaded import LoadedVersion
from inferd.models.residency import Resident, total
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion


def residents_of(
    loaded: Mapping[ModelVersion, LoadedVersion],
    *,
    leaves: Callable[[str], bool],
    is_held: Callable[[str], bool],
    waiting: Callable[[str], int],
) -> list[Resident]:
    """Return the models of the ``loaded`` versions; those of a model that are on their way out are apart from the rest.

    ``leaves``: whether a model may leave. ``is_held``: whether it is being loaded or unloaded. ``waiting``: how many
    requests wait for it.
    """
    groups: dict[tuple[str, bool], list[ModelVersion]] = {}
    for version in loaded:
        groups.setdefault((version.name, version.state is not ModelState.READY), []).append(version)
    return [
        _resident(
            name,
            [loaded[each] for each in versions],
            leaves=leaves(name),
            is_held=is_held(name),
            is_awaited=waiting(name) > 0,
            is_leaving=is_leaving,
        )
        for (name, is_leaving), versions in groups.items()
    ]


def _resident(
    name: str, parts: Collection[LoadedVersion], *, leaves: bool, is_held: bool, is_awaited: bool, is_leaving: bool
) -> Resident:
    loaded_at = max(each.loaded_at for each in parts)
    return Resident(
        name=name,
        memory=total(each.memory for each in parts),
        loaded_at=loaded_at,
        load_s=max(each.measured.load_s for each in parts),
        last_used_at=max(loaded_at, *(each.engine.last_dispatch_at for each in parts)),
        is_busy=is_awaited or any(each.engine.unanswered_requests for each in parts),
        leaves=leaves,
        is_held=is_held,
        is_leaving=is_leaving,
    )
