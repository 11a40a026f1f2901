"""Channel options, addresses and TLS."""

import json
import math
from pathlib import Path

import pytest

from inferd.client import TLS, Client, RetryPolicy
from inferd.client.channel import ChannelConfig, channel_config
from inferd.endpoint import is_loopback


def _config(address: str = "127.0.0.1:8001", **changes: object) -> ChannelConfig:
    arguments: dict[str, object] = {
        "token": None,
        "allow_insecure_token": False,
        "tls": None,
        "retry": RetryPolicy(),
        "round_robin": False,
        "metadata": None,
        "max_receive_bytes": 1000,
        "options": (),
        "compression": None,
    }
    return channel_config(address, **{**arguments, **changes})


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8001",
        "127.9.9.9:1",
        "localhost:8001",
        "localhost",
        "[::1]:8001",
        "dns:localhost:8001",
        "dns:///localhost:8001",
        "dns://8.8.8.8/localhost:8001",
        "ipv4:127.0.0.1:8001",
        "ipv6:[::1]:8001",
        "unix:/run/inferd.sock",
        "unix:///run/inferd.sock",
        "unix-abstract:inferd",
    ],
)
def test_loopback_addresses(address):
    """All forms of addresses of this machine."""
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1:8001",
        "0.0.0.0:8001",
        "inferd:8001",
        "localhost.example.com:8001",
        "127.0.0.1.example.com:8001",
        "127.0.0.1:80@example.com:80",
        "[2001:db8::1]:8001",
        "dns:///example.com:8001",
        "dns://127.0.0.1/example.com:8001",
        "ipv4:127.0.0.1:1,10.0.0.1:2",
        "xds:///localhost:8001",
        "",
    ],
)
def test_other_addresses(address):
    """Other and unclear addresses do not count as this machine."""
    assert not is_loopback(address)


def test_tokens_to_other_machines_need_tls():
    """The error does not show the token."""
    with pytest.raises(ValueError, match="use TLS") as caught:
        Client("inferd.example.com:8001", token="s3cret")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "changes"),
    [
        ("127.0.0.1:8001", {}),
        ("inferd:8001", {"tls": TLS()}),
        ("inferd:8001", {"allow_insecure_token": True}),
    ],
    ids=["loopback", "TLS", "allowed"],
)
def test_tokens_become_metadata(address, changes):
    """If it is safe, or declared safe, the token is sent before the caller's metadata."""
    config = _config(address, token="t", metadata={"X-Team": "a"}, **changes)
    assert config.metadata == (("authorization", "Bearer t"), ("x-team", "a"))


def test_loopback_does_not_use_proxy():
    """Other connections may use it."""
    assert ("grpc.enable_http_proxy", 0) in _config().options
    assert "grpc.enable_http_proxy" not in dict(_config("inferd:8001").options)


def test_retries_can_be_off():
    """Then there is no service config; otherwise it names the services and both statuses."""
    assert "grpc.service_config" not in dict(_config(retry=None).options)
    config = json.loads(dict(_config().options)["grpc.service_config"])
    method = config["methodConfig"][0]
    assert method["name"] == [{"service": "inferd.v1.InferenceService"}, {"service": "inferd.v1.GenerationService"}]
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]


def test_recommended_service_config_equals_clients():
    """The file for other clients also names the Open Inference Protocol's service."""
    recommended = json.loads(Path("docs/service_config.json").read_text())
    config = json.loads(dict(_config(round_robin=True).options)["grpc.service_config"])
    config["methodConfig"][0]["name"].append({"service": "inference.GRPCInferenceService"})
    assert recommended == config


def test_round_robin_without_retries():
    """Each can be off without the other."""
    assert set(json.loads(dict(_config(round_robin=True, retry=None).options)["grpc.service_config"])) == {
        "loadBalancingConfig",
        "healthCheckConfig",
    }
    assert "loadBalancingConfig" not in dict(_config().options)["grpc.service_config"]


@pytest.mark.parametrize("attempts", [1, 6])
def test_attempts_are_bounded(attempts):
    """Six attempts, which gRPC silently reduces to five, are rejected, and so is a policy without a retry."""
    with pytest.raises(ValueError, match=f"max_attempts is {attempts}, expected 2 to 5"):
        RetryPolicy(max_attempts=attempts)


@pytest.mark.parametrize("backoff_s", [0.001, 3.0, math.nan])
def test_backoffs_are_bounded(backoff_s):
    """After a backoff of less than a millisecond gRPC hangs, and one above the maximum contradicts itself."""
    with pytest.raises(ValueError, match=f"initial_backoff_s is {backoff_s}, expected 0.01 to 2.0"):
        RetryPolicy(initial_backoff_s=backoff_s)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("max_attempts", 2.5, TypeError),
        ("max_attempts", True, TypeError),
        ("initial_backoff_s", "1", TypeError),
        ("max_backoff_s", math.inf, ValueError),
        ("max_backoff_s", math.nan, ValueError),
        ("max_backoff_s", -1, ValueError),
        ("multiplier", math.nan, ValueError),
        ("multiplier", 0.5, ValueError),
        ("max_tokens", 0, ValueError),
        ("max_tokens", 1001, ValueError),
        ("token_ratio", 0.0001, ValueError),
        ("token_ratio", math.nan, ValueError),
        ("token_ratio", None, TypeError),
    ],
)
def test_rejects_policies_that_grpc_does(field, value, error):
    """Otherwise gRPC would ignore or misread the whole service config; the error names the field."""
    with pytest.raises(error, match=f"^{field}"):
        RetryPolicy(**{field: value})


def test_reconnects_soon():
    """Attempts to connect are at most 1.2 s apart, and names are resolved as often."""
    options = dict(_config().options)
    assert options["grpc.initial_reconnect_backoff_ms"] == 100
    assert options["grpc.max_reconnect_backoff_ms"] == 1000
    assert options["grpc.min_reconnect_backoff_ms"] == 5000
    assert options["grpc.dns_min_time_between_resolutions_ms"] == 1000


def test_keepalive_pings():
    """Within a minute, whether or not there are calls and data."""
    options = dict(_config().options)
    assert options["grpc.keepalive_time_ms"] == 45_000
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.http2.max_pings_without_data"] == 0


@pytest.mark.parametrize("options", [{"grpc.keepalive_time_ms": 310_000}, [("grpc.keepalive_time_ms", 310_000)]])
def test_own_options_override(options):
    """The caller's gRPC options replace the client's, each set once."""
    config = _config(options=options)
    assert dict(config.options)["grpc.keepalive_time_ms"] == 310_000
    assert len(dict(config.options)) == len(config.options)


def test_own_service_config():
    """It would silently replace the retries, so they must be off."""
    own = {"grpc.service_config": "{}"}
    for changes in ({}, {"retry": None, "round_robin": True}):
        with pytest.raises(ValueError, match=r'"grpc\.service_config" would replace what retry and round_robin say'):
            _config(options=own, **changes)
    assert dict(_config(options=own, retry=None).options)["grpc.service_config"] == "{}"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"options": "grpc.x"}, TypeError, "options: expected a mapping or pairs, got str"),
        ({"options": 5}, TypeError, "options: expected a mapping or pairs, got int"),
        ({"options": [("a",)]}, TypeError, "options: expected a mapping or pairs, got tuple in it"),
        ({"options": [(1, 2)]}, TypeError, "options: expected a str as name, got int"),
        ({"options": {"a": 1.5}}, TypeError, 'options: expected an int, str or bytes for "a", got float'),
        ({"options": {"a": 2**31}}, ValueError, 'options: "a" is 2147483648'),
        ({"retry": 3}, TypeError, "retry: expected a RetryPolicy or None, got int"),
        ({"tls": True}, TypeError, "tls: expected TLS or None, got bool"),
        ({"compression": "gzip"}, TypeError, r"compression: expected a grpc\.Compression or None, got str"),
        ({"max_receive_bytes": 0}, ValueError, "max_receive_bytes is 0, expected 1 to 2147483647"),
        ({"max_receive_bytes": 2**31}, ValueError, "max_receive_bytes is 2147483648"),
        ({"max_receive_bytes": 1e6}, TypeError, "max_receive_bytes: expected an int, got float"),
        ({"token": "a\nb"}, ValueError, "token: expected printable ASCII without spaces"),
        ({"token": ""}, ValueError, "token: expected printable ASCII without spaces, got 'nothing'"),
        ({"allow_insecure_token": "false"}, TypeError, "allow_insecure_token: expected True or False, got str"),
        ({"round_robin": 1}, TypeError, "round_robin: expected True or False, got int"),
        ({"token": 5}, TypeError, "token: expected a str, got int"),
        ({"metadata": {"grpc-a": "1"}}, ValueError, 'metadata "grpc-a"'),
        ({"token": "t", "metadata": {"Authorization": "x"}}, ValueError, 'metadata "authorization": expected none'),
    ],
)
def test_rejects_invalid_settings(changes, error, message):
    """In the constructor, by name."""
    with pytest.raises(error, match=message):
        _config(**changes)


@pytest.mark.parametrize(
    "address",
    [
        "inferd:8001",
        "[::1]:8001",
        "[fe80::1%eth0]:8001",
        "dns:///inferd-headless:8001",
        "dns://8.8.8.8/inferd:8001",
        "dns:inferd:8001",
        "ipv4:10.0.0.1:1,10.0.0.2:65535",
        "ipv6:[::1]:1",
        "unix:/run/inferd.sock",
        "unix:///run/inferd.sock",
        "unix:inferd.sock",
        "unix-abstract:inferd",
        "xds:///inferd",
    ],
)
def test_addresses(address):
    """All of gRPC's forms are accepted."""
    assert _config(address).address == address


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("", "nothing"),
        (":8001", "no host"),
        ("inferd", "no port"),
        ("dns:///inferd", "no port"),
        ("ipv4:10.0.0.1:1,10.0.0.2", "no port"),
        ("[::1]", "no port"),
        ("::1:8001", "colons in the host"),
        ("inferd:", "a port that is no number"),
        ("inferd:http", "a port that is no number"),
        ("inferd:0", "a port that is no number from 1 to 65535"),
        ("inferd:65536", "a port that is no number"),
        ("inferd:-1", "a port that is no number"),
        ("inferd: 8001", "a port that is no number"),
        ("in ferd:8001", "no name of a host"),
        ("me@inferd:8001", "no name of a host"),
        ("inferd:8001\n", "a character that cannot be seen"),
        ("http://127.0.0.1:8001", "a URL"),
        ("inferd:8001/v2", "a URL"),
        ("unix:", "no path"),
        ("unix://inferd.sock", "another machine's path"),
        ("unix:/" + "a" * 107, "too long for a socket"),
    ],
)
def test_rejects_invalid_addresses(address, fault):
    """Otherwise gRPC would use port 443, or never connect; the error shows a valid address."""
    with pytest.raises(ValueError, match=f"expected HOST:PORT or unix:PATH, got .*{fault}"):
        _config(address)


def test_rejects_addresses_that_are_no_text():
    """The error names the type."""
    with pytest.raises(TypeError, match="address: expected a str, got int"):
        _config(8001)


@pytest.mark.parametrize("changes", [{"ca": 5}, {"server_name": b"inferd"}, {"certificate": 1, "key": "k.pem"}])
def test_fields_of_tls_have_types(changes):
    """The error names the field."""
    with pytest.raises(TypeError, match=f"{next(iter(changes))}: expected"):
        TLS(**changes)


def test_certificate_and_key_belong_together():
    """One without the other would only fail in the handshake."""
    with pytest.raises(ValueError, match="expected both or none"):
        TLS(certificate="client.pem")
