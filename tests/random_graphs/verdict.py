"""inferd's verdict on a model."""

from pathlib import Path

from inferd.config.settings import ModelSettings
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.session import open_session
from tests.onnx_models import save
from tests.random_graphs.model import RandomModel

#: Without the cache, which would return an earlier verdict.
_SETTINGS = ModelSettings.model_validate({"runtime": {"verdict_cache": None}})


def inferd_batches(model: RandomModel, folder: Path) -> bool:
    """Open ``model`` as inferd does, from a file in ``folder``; a rejected model is not batched either."""
    path = save(model.model, folder / "model.onnx")
    try:
        session = open_session(path, _SETTINGS)
    except ModelLoadError:
        return False
    try:
        return session.signature.batchable
    finally:
        session.close()
