"""What a server proposes to try has the options that its settings ask for."""

import pytest

from inferd.cli.proposals import proposed_calls
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
def test_options(security, inferd, grpcurl):
    """For the command line and for grpcurl alike."""
    settings = SecuritySettings.model_validate(security)
    assert proposed_calls(settings, "host:1", demonstrating=False) == [
        f"inferd models --address host:1{inferd}",
        f"grpcurl {grpcurl} host:1 list",
    ]


def test_the_built_in_model():
    """The first call reads a digit."""
    first, *_ = proposed_calls(SecuritySettings(), "host:1", demonstrating=True)
    assert first.startswith("inferd infer digits --address host:1 --output label --input X=@")


@pytest.mark.parametrize(("listens", "called"), [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1")])
def test_a_server_on_every_interface_is_called_here(listens, called):
    """No certificate is for every interface."""
    calls = proposed_calls(SecuritySettings(), listens, demonstrating=False)
    assert calls == ["inferd models --address " + called, f"grpcurl -plaintext {called} list"]
