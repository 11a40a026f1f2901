"""Store the names of the models that calls have loaded, so that a restart loads them again."""

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from inferd.small_files import replace_text

_log = logging.getLogger(__name__)


class RememberedModels:
    """The loaded models, with their versions if calls gave these. One thread only.

    ``path`` is the file; None stores nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._models: dict[str, list[str] | None] = {}

    def read(self) -> Mapping[str, list[str] | None]:
        """Return the models of the last process, with their versions, or None if the policy chooses them."""
        if self._path is None:
            return {}
        try:
            content = json.loads(self._path.read_bytes())
            self._models = {str(name): _versions(versions) for name, versions in content["models"].items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("%s cannot be read, so no model is remembered: %s", self._path, error)
        return dict(self._models)

    def loaded(self, name: str, version: str = "", ready: Collection[str] = ()) -> None:
        """Record the load of a model, or of one version of it. ``ready`` are its READY versions."""
        self._models[name] = sorted({*self._versions(name, ready), version}) if version else None
        self._write()

    def unloaded(self, name: str, version: str = "", ready: Collection[str] = ()) -> None:
        """Remove a model, or one version of it. ``ready`` are its READY versions."""
        left = sorted({*self._versions(name, ready)} - {version}) if version else []
        if left:
            self._models[name] = left
        else:
            self._models.pop(name, None)
        self._write()

    def _versions(self, name: str, ready: Collection[str]) -> Collection[str]:
        """Return the stored versions of a model, or ``ready`` if its policy chooses them."""
        versions = self._models.get(name, [])
        return ready if versions is None else versions

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            replace_text(self._path, json.dumps({"models": self._models}, indent=1))
        except OSError as error:
            _log.warning("%s cannot be written, so a restart will not load the same models: %s", self._path, error)


def _versions(versions: object) -> list[str] | None:
    return [str(each) for each in versions] if isinstance(versions, list) else None
