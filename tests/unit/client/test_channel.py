"""What a channel is opened with."""

import json
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


@pytest.mark.parametrize("backoff_s", [0.001, 3.0])
def test_backoffs_are_bounded(backoff_s):
    """After a backoff of less than a millisecond gRPC hangs, and one above the maximum contradicts itself."""
    with pytest.raises(ValueError, match=f"initial_backoff_s is {backoff_s}, expected 0.01 to max_backoff_s, 2.0"):
        RetryPolicy(initial_backoff_s=backoff_s)


def test_certificate_and_key_belong_together():
    """Half of a client certificate is a mistake that would otherwise show only as a failed handshake."""
    with pytest.raises(ValueError, match="expected both or none"):
        TLS(certificate="client.pem")


def test_urls_are_not_addresses():
    """A URL would make gRPC look up a host called http; the message says what an address looks like."""
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        _config("http://127.0.0.1:8001")
