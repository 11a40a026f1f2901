"""Where spans are sent."""

import pytest

from inferd.config.settings import Settings
from inferd.config.validation import SettingsError, validate


def tracing(**values):
    return validate(Settings, {"tracing": values}, origin_of=lambda _: "here").tracing


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("https://collector/", "https://collector/v1/traces"),
        ("http://[::1]:4318/custom", "http://[::1]:4318/custom"),
    ],
)
def test_endpoints(given, taken):
    """OTLP's own path is added where there is none."""
    assert tracing(endpoint=given).endpoint == taken


def test_off_by_default():
    """Nobody is told anything unasked."""
    assert tracing().endpoint is None


@pytest.mark.parametrize(
    "given",
    ["collector:4318", "grpc://collector:4317", "http://", "http://x:0", "http://x:99999", "http://u:hidden@x/", ""],
)
def test_what_is_no_endpoint(given):
    """Said without what came, which may hold a password."""
    with pytest.raises(SettingsError, match=r"tracing.endpoint: expected http://HOST:PORT") as caught:
        tracing(endpoint=given)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_a_share_is_a_share(ratio):
    """From none to all."""
    with pytest.raises(SettingsError, match="sampling_ratio"):
        tracing(sampling_ratio=ratio)
