"""Check whether the models of a repository can be served, without opening them: `inferd import-triton`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from inferd.config.repository import VersionPolicy, chosen_versions
from inferd.config.settings import ModelSettings, Settings
from inferd.config.validation import SettingPath, SettingsError
from inferd.config.yaml_text import longest_match
from inferd.models.model_directory import TRITON_CONFIG
from inferd.models.model_source import ModelSource, model_file
from inferd.models.triton.agreement import require_agreement
from inferd.models.triton.backends import INSTEAD, backend_of
from inferd.models.triton.draft import Translation
from inferd.models.triton.errors import TritonConfigError
from inferd.models.triton.translation import translate_file
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.model_folder import has_genai_config
from inferd.small_files import why_unreadable

_MODEL = "model.onnx"
_WARMUP = "warmup"


class Standing(StrEnum):
    """The verdict in a word: whether a model can be served."""

    AS_IS = "as is"
    DIFFERS = "with differences"
    REFUSED = "no"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The verdict on one model: its ``settings``, or the ``reason`` why it is refused."""

    folder: Path
    reason: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()

    @property
    def standing(self) -> Standing:
        """The verdict in a word."""
        if self.reason:
            return Standing.REFUSED
        return Standing.DIFFERS if self.differences else Standing.AS_IS


def find_models(path: Path) -> list[Path]:
    """Return the directories of models in the repository ``path``, or ``path`` if it is one. Raises `OSError`."""
    if _is_model(path):
        return [path]
    return [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".") and _is_model(entry)]


def _is_model(folder: Path) -> bool:
    return (folder / TRITON_CONFIG).exists() or (folder.is_dir() and bool(_versions(folder)))


def judge(folder: Path, settings: Settings) -> Verdict:
    """Return the verdict on the model in ``folder``, for a server with ``settings``."""
    try:
        translation, model = _translated(folder, settings)
        config_name = _config(folder, settings.repository.config_name).name
        of_files = _require_files(folder, model, model.versions or settings.repository.versions, config_name)
    except TritonConfigError as error:
        return Verdict(folder=folder, reason=str(error))
    except OSError as error:
        return Verdict(folder=folder, reason=f"{folder.name}: {why_unreadable(folder, error)}")
    return Verdict(
        folder=folder,
        settings=translation.settings,
        ignored=translation.ignored,
        differences=(*translation.differences, *of_files),
    )


def _translated(folder: Path, settings: Settings) -> tuple[Translation, ModelSettings]:
    """Return the translation of the configuration in ``folder``, without settings if there is none."""
    file = _config(folder, settings.repository.config_name)
    if os.path.lexists(file):
        generates = any(map(has_genai_config, (folder, *_versions(folder).values())))
        translation = translate_file(file, folder, name=folder.name, generates=generates)
    else:
        translation = Translation({}, differences=(_without_config(settings),))
    try:
        return translation, settings.for_model(translation.settings, partial(_origin, file.name, translation))
    except SettingsError as error:
        raise TritonConfigError("; ".join(map(str, error.problems))) from error


def _origin(file: str, translation: Translation, path: SettingPath) -> str:
    return " ".join(filter(None, [file, longest_match(translation.places, path)]))


def _without_config(settings: Settings) -> str:
    versions, rows = settings.repository.versions, settings.batching.max_batch_size
    served = "all versions" if versions == "all" else "the versions of repository.versions"
    return (
        f"there is no {TRITON_CONFIG}, so the server's settings hold: {served}, and batches of up to {rows} rows if "
        "the model is proven to batch; Triton would serve the latest version, with up to 4 rows"
    )


def _config(folder: Path, config_name: str) -> Path:
    named = folder / "configs" / f"{config_name}.pbtxt"
    return named if config_name and os.path.lexists(named) else folder / TRITON_CONFIG


def _require_files(folder: Path, model: ModelSettings, policy: VersionPolicy, config_name: str) -> list[str]:
    """Return a sentence about each version that cannot be served, or not with all of its outputs.

    Raises `TritonConfigError` if no version can be, and for other files that the settings of the model name.
    """
    versions = _versions(folder)
    chosen = sorted(chosen_versions(policy, list(versions)), key=int)
    if not chosen:
        found = f"versions {', '.join(versions)}" if versions else "no version"
        raise TritonConfigError(f"expected {model.file or _MODEL} in a version directory such as 1, found {found}")
    refused: list[TritonConfigError] = []
    notes: list[str] = []
    for version in chosen:
        try:
            notes.append(_check_version(versions[version], model, config_name))
        except TritonConfigError as error:
            refused.append(error)
    if len(refused) == len(chosen):
        raise refused[0]
    for name, output in model.outputs.items():
        if output.labels and not (folder / output.labels).is_file():
            raise TritonConfigError(f'output "{name}": label_filename: there is no file {output.labels}')
    for sample in model.warmup:
        for name, each in sample.inputs.items():
            if each.file and not (folder / _WARMUP / each.file).is_file():
                text = f"there is no file {_WARMUP}/{each.file}"
                raise TritonConfigError(f'model_warmup "{sample.name}", input "{name}": {text}')
    return [*map(str, refused), *filter(None, dict.fromkeys(notes))]


def _check_version(version: Path, model: ModelSettings, config_name: str) -> str:
    """Return a sentence about outputs that cannot be served, or an empty text.

    Raises `TritonConfigError` if the directory ``version`` lacks its file, or this contradicts the configuration.
    """
    if not _has_model(version, model.file):
        raise TritonConfigError(_without_model(version, model.file))
    if has_genai_config(version):
        # What a language model takes is no matter of its configuration.
        return ""
    source = ModelSource(name=version.parent.name, version=version.name, path=version / _MODEL)
    try:
        file = model_file(source, model.file)
    except ModelLoadError as error:
        raise TritonConfigError(f"version {version.name}: {error}") from error
    return require_agreement(file, model, config_name)


def _versions(folder: Path) -> dict[str, Path]:
    """Return the version directories by number, without leading zeros."""
    entries = [entry for entry in folder.iterdir() if entry.name.isdecimal() and entry.is_dir()]
    return {str(int(entry.name)): entry for entry in sorted(entries, key=lambda entry: int(entry.name))}


def _has_model(version: Path, file: str) -> bool:
    if file:
        return (version / file).exists()
    files = list(version.glob("*.onnx"))
    # The genai_config.json of a language model names one of its files.
    return (version / _MODEL).exists() or len(files) == 1 or (len(files) > 1 and has_genai_config(version))


def _without_model(version: Path, file: str) -> str:
    names = sorted(entry.name for entry in version.iterdir())
    backends = [backend for backend in map(backend_of, names) if backend]
    if backends and not file:
        return f"{version.name}/{names[0]}: only ONNX models are served: {INSTEAD[backends[0]]}"
    return f"version {version.name}: expected {file or _MODEL}, found {', '.join(names) or 'nothing'}"
