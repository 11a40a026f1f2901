"""What a channel is opened with."""

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
    """Every way to write an address of this machine is seen as one."""
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
    """What is elsewhere, or not clear, does not count as this machine."""
    assert not is_loopback(address)


def test_tokens_do_not_travel_in_clear_text():
    """A token to another machine needs TLS, and the error says so without showing the token."""
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
    """Where it is safe, or said to be, the token goes out as a bearer token, before the caller's own metadata."""
    config = _config(address, token="t", metadata={"X-Team": "a"}, **changes)
    assert config.metadata == (("authorization", "Bearer t"), ("x-team", "a"))


def test_the_environments_proxy_is_not_asked_for_this_machine():
    """Loopback connections skip the proxy; others may use it."""
    assert ("grpc.enable_http_proxy", 0) in _config().options
    assert "grpc.enable_http_proxy" not in dict(_config("inferd:8001").options)


def test_retries_can_be_off():
    """Without a policy there is no service config; with one it names the contract's service and both statuses."""
    assert "grpc.service_config" not in dict(_config(retry=None).options)
    config = json.loads(dict(_config().options)["grpc.service_config"])
    method = config["methodConfig"][0]
    assert method["name"] == [{"service": "inferd.v1.InferenceService"}]
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]


def test_the_recommended_service_config_is_what_the_client_uses():
    """The file for other clients says the same, and names the Open Inference Protocol's service too."""
    recommended = json.loads(Path("docs/service_config.json").read_text())
    config = json.loads(dict(_config(round_robin=True).options)["grpc.service_config"])
    config["methodConfig"][0]["name"].append({"service": "inference.GRPCInferenceService"})
    assert recommended == config


def test_round_robin_goes_without_retries():
    """Either can be off without the other."""
    assert set(json.loads(dict(_config(round_robin=True, retry=None).options)["grpc.service_config"])) == {
        "loadBalancingConfig",
        "healthCheckConfig",
    }
    assert "loadBalancingConfig" not in dict(_config().options)["grpc.service_config"]


@pytest.mark.parametrize("attempts", [1, 6])
def test_attempts_are_bounded(attempts):
    """Six attempts, which gRPC would silently take for five, are refused, as is a policy that retries nothing."""
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
def test_policies_that_grpc_would_not_take(field, value, error):
    """GRPC would refuse the whole service config, or take it for something else; the policy names its field."""
    with pytest.raises(error, match=f"^{field}"):
        RetryPolicy(**{field: value})


def test_connections_are_made_again_soon():
    """Attempts to connect come at most a second and a fifth apart, and names are looked up as often."""
    options = dict(_config().options)
    assert options["grpc.initial_reconnect_backoff_ms"] == 100
    assert options["grpc.max_reconnect_backoff_ms"] == 1000
    assert options["grpc.min_reconnect_backoff_ms"] == 5000
    assert options["grpc.dns_min_time_between_resolutions_ms"] == 1000


def test_silent_connections_are_kept():
    """Pings come within a minute, whether or not there are calls and data."""
    options = dict(_config().options)
    assert options["grpc.keepalive_time_ms"] == 45_000
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.http2.max_pings_without_data"] == 0


@pytest.mark.parametrize("options", [{"grpc.keepalive_time_ms": 310_000}, [("grpc.keepalive_time_ms", 310_000)]])
def test_own_options_win(options):
    """What the caller says of gRPC's options holds instead of the client's own, and each is there once."""
    config = _config(options=options)
    assert dict(config.options)["grpc.keepalive_time_ms"] == 310_000
    assert len(dict(config.options)) == len(config.options)


def test_a_service_config_of_ones_own():
    """It would silently replace the retries, so those have to be off."""
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
def test_settings_that_cannot_be_meant(changes, error, message):
    """Each is refused when the client is made, by its name."""
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
    """Every kind of address that gRPC knows is taken as it is."""
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
def test_what_is_no_address(address, fault):
    """It would be dialled at port 443, or never answer; the message says what an address looks like."""
    with pytest.raises(ValueError, match=f"expected HOST:PORT or unix:PATH, got .*{fault}"):
        _config(address)


def test_an_address_is_text():
    """Anything else is named by its type."""
    with pytest.raises(TypeError, match="address: expected a str, got int"):
        _config(8001)


@pytest.mark.parametrize("changes", [{"ca": 5}, {"server_name": b"inferd"}, {"certificate": 1, "key": "k.pem"}])
def test_fields_of_tls_have_types(changes):
    """The field is named."""
    with pytest.raises(TypeError, match=f"{next(iter(changes))}: expected"):
        TLS(**changes)


def test_certificate_and_key_belong_together():
    """Half of a client certificate is a mistake that would otherwise show only as a failed handshake."""
    with pytest.raises(ValueError, match="expected both or none"):
        TLS(certificate="client.pem")
