"""Settings that choose between the versions of a model."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from inferd.config.section import Section, validation_error

#: The number of a version, or a label.
VersionName = Annotated[str, Field(min_length=1, max_length=128, coerce_numbers_to_str=True)]


class ShadowSettings(Section):
    """A version that gets copies of requests to the others, to compare its answers; nobody waits for them."""

    version: VersionName
    """Number or label of the version that gets the copies."""
    share: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the requests that is copied."""
    tolerance: float = Field(default=0.001, ge=0.0)
    """Relative difference of two floats up to which they count as equal."""


class RoutingSettings(Section):
    """Labels of versions, and which version gets requests that name none."""

    labels: dict[VersionName, VersionName] = Field(default_factory=dict)
    """Numbers of versions by label, such as stable and canary; requests may name a label in place of a version."""
    weights: dict[VersionName, Annotated[float, Field(ge=0.0)]] = Field(default_factory=dict)
    """How requests that name no version are shared among versions, by number or label. Versions that are not ready \
have no share. Empty: the highest ready version gets all."""
    shadow: ShadowSettings | None = None
    """The version that gets copies of requests; null is none."""

    @field_validator("labels")
    @classmethod
    def _validate_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for label, version in labels.items():
            if label.isdecimal():
                text = f"expected labels that are not numbers, got {label}"
                raise validation_error(text)
            if not version.isdecimal():
                text = f"expected the number of a version for {label}, got {version}"
                raise validation_error(text)
        return labels

    @field_validator("weights")
    @classmethod
    def _validate_weights(cls, weights: dict[str, float]) -> dict[str, float]:
        if weights and not sum(weights.values()):
            text = "expected at least one weight above 0"
            raise validation_error(text)
        return weights

    @model_validator(mode="after")
    def _validate_names(self) -> Self:
        named = [("weights", name) for name in self.weights]
        if self.shadow is not None:
            named.append(("shadow.version", self.shadow.version))
        for setting, name in named:
            if not name.isdecimal() and name not in self.labels:
                text = f"expected the number of a version or one of the labels, got {name}"
                raise validation_error(text, setting=setting)
        return self

    def number(self, name: str) -> str:
        """Return the number of the version that ``name`` is the label of, or else ``name``."""
        return self.labels.get(name, name)
