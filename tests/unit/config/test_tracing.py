"""Settings of tracing."""

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
def test_default_path_of_endpoints(given, taken):
    """OTLP's path is added to endpoints without one."""
    assert tracing(endpoint=given).endpoint == taken


def test_off_by_default():
    """No endpoint is set."""
    assert tracing().endpoint is None


@pytest.mark.parametrize(
    "given",
    ["collector:4318", "grpc://collector:4317", "http://", "http://x:0", "http://x:99999", "http://u:hidden@x/", ""],
)
def test_rejects_invalid_endpoints(given):
    """The error does not quote the value, which may contain a password."""
    with pytest.raises(SettingsError, match=r"tracing.endpoint: expected http://HOST:PORT") as caught:
        tracing(endpoint=given)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_rejects_invalid_sampling_ratios(ratio):
    """The ratio is from 0 to 1."""
    with pytest.raises(SettingsError, match="sampling_ratio"):
        tracing(sampling_ratio=ratio)
