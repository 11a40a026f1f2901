"""Settings of the repositories of models: which versions are served, and who loads and unloads them."""

from collections.abc import Collection
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from inferd.config.section import Section, validation_error

#: The entry of `RepositorySettings.load` that stands for all models.
EVERY_MODEL = "*"


class ModelControl(StrEnum):
    """Who decides which models are loaded."""

    NONE = "none"
    POLL = "poll"
    EXPLICIT = "explicit"


class RequiredModels(StrEnum):
    """Which models must be ready for the server to be."""

    ANY = "any"
    ALL = "all"


class LatestVersions(Section):
    """The versions with the highest numbers."""

    latest: int = Field(ge=1)
    """How many of them."""


#: Which versions of a model are served: all, the latest ones, or those with the given numbers.
VersionPolicy = Literal["all"] | LatestVersions | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


def chosen_versions(policy: VersionPolicy, available: Collection[str]) -> set[str]:
    """Return those of the ``available`` versions that ``policy`` serves."""
    if policy == "all":
        return set(available)
    if isinstance(policy, LatestVersions):
        return set(sorted(available, key=int, reverse=True)[: policy.latest])
    return set(available) & {str(number) for number in policy}


class RepositorySettings(Section):
    """Loading and unloading of models."""

    mode: ModelControl = ModelControl.NONE
    """none: what is there at start is loaded. poll: the repositories are looked through, and what has changed is \
loaded and unloaded. explicit: models are loaded and unloaded by calls only."""
    poll_interval_s: float = Field(default=15.0, gt=0.0, le=86_400.0)
    """With poll: time between two looks at the repositories. A version is loaded once its files were the same twice."""
    load: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    """With explicit: names of the models that are loaded at start; "*" is all."""
    remember: Path | None = None
    """With explicit: file that keeps which models are loaded, so that a restart loads them again; null does not."""
    versions: VersionPolicy = "all"
    """Which versions of a model are served: all, {latest: N}, or a list of numbers. A model.yaml may say otherwise."""
    parallel_loads: int = Field(default=4, ge=1, le=64)
    """Number of versions that are loaded at the same time."""
    on_demand: bool = False
    """Load models when the first request for them comes, rather than at start; with explicit, those that load names. \
A model.yaml may say otherwise."""
    memory_budget_bytes: int | None = Field(default=None, ge=1024 * 1024)
    """Host memory that all models may take together: those that are loaded on demand and have been idle for longest \
leave to make room for others. Null: no budget, and none leaves."""
    device_memory_budget_bytes: int | None = Field(default=None, ge=1024 * 1024)
    """The same for the memory of the devices that models run on."""
    min_residence_s: float = Field(default=1.0, ge=0.0, le=86_400.0)
    """Time that a model which was loaded on demand stays at least, or twice as long as its load took if that is \
longer, so that two models that need the same memory do not only load."""
    readiness: RequiredModels = RequiredModels.ANY
    """any: the server is ready when all models of the start have been tried and, with mode none, one is ready. all: \
not before every one of them is. Models that come and go later do not change it."""
    exit_on_error: bool = False
    """Exit if a model cannot be loaded at start."""
    config_name: str = Field(default="", pattern=r"^[^/]*$")
    """Read configs/NAME.pbtxt in the directory of a model in place of its config.pbtxt, where there is one."""
    probe: bool = True
    """Open files in a process of their own first, so that one that crashes or hangs ONNX Runtime costs nothing."""
    probe_timeout_s: float = Field(default=60.0, gt=0.0, le=86_400.0)
    """Time after which a file that is being opened there counts as hanging."""

    @model_validator(mode="after")
    def _validate_mode(self) -> Self:
        for name in ("load", "remember"):
            if getattr(self, name) and self.mode is not ModelControl.EXPLICIT:
                text = f"expected mode explicit beside it, got {self.mode.value}"
                raise validation_error(text, setting=name)
        return self
