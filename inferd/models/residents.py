"""Describe the loaded models for the rules of the memory budget."""

from collections.abc import Callable, Collection, Mapping

from inferd.models.loaded import LoadedVersion
from inferd.models.residency import Resident, total
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion


def residents_of(
    loaded: Mapping[ModelVersion, LoadedVersion],
    *,
    is_evictable: Callable[[str], bool],
    is_held: Callable[[str], bool],
    waiting: Callable[[str], int],
) -> list[Resident]:
    """Return the models of the ``loaded`` versions; versions that are being unloaded count as a model of their own.

    ``is_evictable`` and ``is_held`` say whether a model may be evicted, and whether an operation of it is in progress.
    ``waiting`` returns how many requests wait for it.
    """
    groups: dict[tuple[str, bool], list[ModelVersion]] = {}
    for version in loaded:
        groups.setdefault((version.name, version.state is not ModelState.READY), []).append(version)
    return [
        _resident(
            name,
            [loaded[each] for each in versions],
            is_evictable=is_evictable(name),
            is_held=is_held(name),
            is_awaited=waiting(name) > 0,
            is_unloading=is_unloading,
        )
        for (name, is_unloading), versions in groups.items()
    ]


def _resident(
    name: str,
    parts: Collection[LoadedVersion],
    *,
    is_evictable: bool,
    is_held: bool,
    is_awaited: bool,
    is_unloading: bool,
) -> Resident:
    loaded_at = max(each.loaded_at for each in parts)
    return Resident(
        name=name,
        memory=total(each.memory for each in parts),
        loaded_at=loaded_at,
        load_s=max(each.measured.load_s for each in parts),
        last_used_at=max(loaded_at, *(each.engine.last_dispatch_at for each in parts)),
        is_busy=is_awaited or any(each.engine.unanswered_requests for each in parts),
        is_evictable=is_evictable,
        is_held=is_held,
        is_unloading=is_unloading,
    )
