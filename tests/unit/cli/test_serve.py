"""The example commands of a starting server."""

import pytest

from inferd.cli.serve import example_commands
from inferd.config.security import SecuritySettings

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
