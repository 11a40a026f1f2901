"""Model versions in a given state, without a model."""

from typing import Any

from inferd.config.settings import ModelSettings
from inferd.models.loaded import LoadedModel
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion


class IdleBatcher:
    """A batcher whose session works, and that nothing is asked of."""

    why_broken = ""
    is_hopeless = False
    max_rows = 64


def version(
    name: str,
    number: str = "1",
    state: ModelState = ModelState.READY,
    *,
    session: Any = None,
    batcher: Any = None,
    on_demand: bool = False,
) -> ModelVersion:
    first = ModelState.ON_DEMAND if state is ModelState.ON_DEMAND else ModelState.LOADING
    made = ModelVersion(name=name, version=number, settings=ModelSettings(), on_demand=on_demand, state=first)
    if state in {ModelState.READY, ModelState.UNLOADING}:
        made.advance(ModelState.VERIFYING)
        made.advance(ModelState.WARMING)
        made.mark_ready(LoadedModel(session=session, batcher=batcher or IdleBatcher()))
    if state is ModelState.FAILED:
        made.mark_failed("a reason not for callers")
    elif state is ModelState.UNLOADING:
        made.mark_unloading()
    return made
