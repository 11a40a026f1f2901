"""What a starting server serves, and the example commands that it logs."""

import pytest

from inferd import demo
from inferd.cli.serve import example_commands, find_models
from inferd.config.security import SecuritySettings
from inferd.config.settings import Settings
from inferd.models.model_directory import RepositoryError

_TLS = {"cert_file": "server.pem", "key_file": "server.key"}
_MUTUAL = _TLS | {"client_ca_file": "ca.pem", "client_certificates": "required"}


@pytest.mark.parametrize(
    ("security", "inferd", "grpcurl"),
    [
        ({}, "", "-plaintext"),
        ({"tls": _TLS}, " --ca CA.pem", "-cacert CA.pem"),
        (
            {"tls": _MUTUAL},
            " --ca CA.pem --certificate ME.pem --key ME.key",
            "-cacert CA.pem -cert ME.pem -key ME.key",
        ),
        (
            {"tokens_file": "tokens.yaml"},
            " --token-file TOKEN",
            '-plaintext -H "authorization: Bearer $(cat TOKEN)"',
        ),
    ],
)
def test_connection_options(security, inferd, grpcurl):
    """They match the security settings, for inferd and for grpcurl."""
    settings = SecuritySettings.model_validate(security)
    assert example_commands(settings, "host:1", is_demo=False) == [
        f"inferd models --address host:1{inferd}",
        f"grpcurl {grpcurl} host:1 list",
    ]


def test_demo_model():
    """The first command recognizes a digit."""
    first, *_ = example_commands(SecuritySettings(), "host:1", is_demo=True)
    assert first.startswith("inferd infer digits --address host:1 --output label --input X=@")


@pytest.mark.parametrize(("address", "target"), [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1")])
def test_wildcard_addresses(address, target):
    """They are replaced by loopback, which certificates can name."""
    calls = example_commands(SecuritySettings(), address, is_demo=False)
    assert calls == ["inferd models --address " + target, f"grpcurl -plaintext {target} list"]


def _settings(mode, *paths):
    return Settings.model_validate({"models": list(paths), "repository": {"mode": mode}})


@pytest.mark.parametrize("mode", ["poll", "explicit"])
def test_directory_to_which_models_may_come(tmp_path, mode):
    """It is no error that it has none yet, beside one that has; the log says so."""
    (tmp_path / "empty").mkdir()
    skipped = []
    sources = find_models(_settings(mode, tmp_path / "empty", demo.repository()), skipped)
    assert [source.name for source in sources] == ["digits"]
    (reason,) = skipped
    assert reason.startswith(f"{tmp_path / 'empty'}: expected")


@pytest.mark.parametrize(("mode", "path"), [("none", "empty"), ("poll", "missing"), ("explicit", "missing")])
def test_paths_without_models_are_errors(tmp_path, mode, path):
    """Where none can come: the path is wrong."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(RepositoryError, match=path):
        find_models(_settings(mode, tmp_path / path), [])
