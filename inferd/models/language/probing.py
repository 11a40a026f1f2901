"""Open a model of any kind as it will be served, in the process that opens files before the server does."""

from collections.abc import Callable
from pathlib import Path

from inferd.config.settings import ModelSettings
from inferd.generation.trial import verify
from inferd.runtime.decoder_graph import read_decoder
from inferd.runtime.decoder_opening import open_decoder
from inferd.runtime.external_weights import ExternalWeights, find_weights
from inferd.runtime.session import open_session


def open_as_served(
    path: Path,
    settings: ModelSettings,
    on_opened: Callable[[], None],
    on_weights: Callable[[ExternalWeights], None],
) -> None:
    """Open the model in ``path`` and run it. Raises `ModelLoadError`.

    Calls ``on_weights`` when its weight files are known, and ``on_opened`` when it is open.
    """
    form = read_decoder(path)
    if form is None:
        open_session(path, settings, on_opened, on_weights)
        return
    on_weights(find_weights(path, form.file.external_files))
    decoder = open_decoder(path, settings, form)
    on_opened()
    verify(decoder)
