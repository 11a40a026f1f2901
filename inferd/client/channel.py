"""What a channel to a server is opened with: its options, credentials and the metadata of its calls."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import grpc

import inferd
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.endpoint import TLS, Endpoint, Metadata

MAX_MESSAGE_BYTES = 2**31 - 1
SERVICE = pb.DESCRIPTOR.services_by_name["InferenceService"].full_name
#: The methods whose requests are written as bytes, without the generated stub.
INFER = f"/{SERVICE}/Infer"
STREAM_INFER = f"/{SERVICE}/StreamInfer"

# Servers on gRPC's C core end connections that ping more often than every five minutes without data.
_KEEPALIVE_S = 310
_KEEPALIVE_TIMEOUT_S = 20
# gRPC does not retry calls whose request is larger than this; its own default, 256 KiB, is one picture.
_RETRY_BUFFER_BYTES = 64 * 1024 * 1024
_CORE_MAX_ATTEMPTS = 5
# After a backoff that comes to less than a millisecond gRPC does not try again but hangs (grpc/grpc issue 41036).
_MIN_BACKOFF_S = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How often calls that were refused (RESOURCE_EXHAUSTED) or found no server (UNAVAILABLE) are tried again.

    The first retry waits about ``initial_backoff_s``, each further one ``multiplier`` times longer, up to
    ``max_backoff_s``. Where the server says when to come back (``grpc-retry-pushback-ms``), that counts instead. Each
    failed attempt takes one of ``max_tokens`` tokens and each success gives ``token_ratio`` back; while no more than
    half are left nothing is retried, so that clients do not add to an overload. The timeout covers all attempts.
    """

    max_attempts: int = _CORE_MAX_ATTEMPTS
    initial_backoff_s: float = 0.1
    max_backoff_s: float = 2.0
    multiplier: float = 2.0
    max_tokens: int = 100
    token_ratio: float = 0.1

    def __post_init__(self) -> None:
        if not 2 <= self.max_attempts <= _CORE_MAX_ATTEMPTS:
            raise ValueError(f"max_attempts is {self.max_attempts}, expected 2 to {_CORE_MAX_ATTEMPTS}, gRPC's limit")
        if not _MIN_BACKOFF_S <= self.initial_backoff_s <= self.max_backoff_s:
            raise ValueError(
                f"initial_backoff_s is {self.initial_backoff_s}, expected {_MIN_BACKOFF_S} to max_backoff_s, "
                f"{self.max_backoff_s}"
            )

    def service_config(self) -> dict[str, object]:
        """Write the policy as gRPC's service config."""
        retry = {
            "maxAttempts": self.max_attempts,
            "initialBackoff": f"{self.initial_backoff_s:.3f}s",
            "maxBackoff": f"{self.max_backoff_s:.3f}s",
            "backoffMultiplier": self.multiplier,
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
        }
        return {
            "methodConfig": [{"name": [{"service": SERVICE}], "retryPolicy": retry}],
            "retryThrottling": {"maxTokens": self.max_tokens, "tokenRatio": self.token_ratio},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelConfig:
    """Everything that a channel and its calls need; the same for the synchronous and the asyncio client."""

    address: str
    credentials: grpc.ChannelCredentials | None
    options: tuple[tuple[str, str | int], ...]
    metadata: Metadata


def channel_config(
    address: str,
    *,
    token: str | None,
    allow_insecure_token: bool,
    tls: TLS | None,
    retry: RetryPolicy | None,
    round_robin: bool,
    metadata: Mapping[str, str | bytes] | None,
    max_receive_bytes: int,
) -> ChannelConfig:
    """Check the arguments of a client and put them into gRPC's terms."""
    endpoint = Endpoint(address=address, token=token, allow_insecure_token=allow_insecure_token, tls=tls)
    options = _options(service_config(retry, round_robin=round_robin), max_receive_bytes) | endpoint.options()
    sent = tuple((key.lower(), value) for key, value in (metadata or {}).items())
    return ChannelConfig(
        address=address,
        credentials=None if tls is None else tls.credentials(),
        options=tuple(options.items()),
        metadata=endpoint.metadata() + sent,
    )


def service_config(retry: RetryPolicy | None, *, round_robin: bool) -> dict[str, object]:
    """Return gRPC's service config. Round robin leaves out servers whose health, which it watches, is not SERVING."""
    spread = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
    return (spread if round_robin else {}) | (retry.service_config() if retry is not None else {})


def _options(config: dict[str, object], max_receive_bytes: int) -> dict[str, str | int]:
    options: dict[str, str | int] = {
        "grpc.primary_user_agent": f"inferd-client/{inferd.__version__}",
        "grpc.max_receive_message_length": max_receive_bytes,
        "grpc.max_send_message_length": -1,
        "grpc.keepalive_time_ms": _KEEPALIVE_S * 1000,
        "grpc.keepalive_timeout_ms": _KEEPALIVE_TIMEOUT_S * 1000,
        "grpc.http2.max_pings_without_data": 0,
        # A connection of its own for each client, instead of one that equal channels of the process share.
        "grpc.use_local_subchannel_pool": 1,
        "grpc.per_rpc_retry_buffer_size": _RETRY_BUFFER_BYTES,
        "grpc.service_config_disable_resolution": 1,
    }
    if config:
        options["grpc.service_config"] = json.dumps(config)
    return options
