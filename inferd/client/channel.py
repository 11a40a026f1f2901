"""Channels to a server: options, credentials and the metadata of calls."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc

import inferd
from inferd._generated.inferd.v1 import generation_pb2
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.arguments import (
    Metadata,
    MetadataLike,
    checked_flag,
    checked_integer,
    checked_metadata,
    checked_number,
    pairs_of,
)
from inferd.endpoint import TLS, Endpoint

MAX_MESSAGE_BYTES = 2**31 - 1
SERVICE = pb.DESCRIPTOR.services_by_name["InferenceService"].full_name
GENERATION_SERVICE = generation_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name
#: Methods whose requests are encoded by hand, without the generated stub.
INFER = f"/{SERVICE}/Infer"
STREAM_INFER = f"/{SERVICE}/StreamInfer"

#: gRPC's channel options: a mapping, or pairs of a name and a value.
ChannelOptions = Mapping[str, str | int | bytes] | Sequence[tuple[str, str | int | bytes]]

# Load balancers and firewalls drop connections that are silent for longer, some after a minute.
_KEEPALIVE_S = 45
_KEEPALIVE_TIMEOUT_S = 20
# Interval between attempts to connect: by default 1 s and more, up to 2 minutes. gRPC adds up to a fifth.
_RECONNECT_FIRST_MS = 100
_RECONNECT_MOST_MS = 1_000
# Timeout of an attempt to connect, by default 20 s. The system retries after 1 s and 3 s.
_CONNECT_TIMEOUT_MS = 5_000
# Interval of resolving a name whose addresses do not answer, by default 30 s.
_LOOK_UP_AGAIN_MS = 1_000
# gRPC does not retry calls with a larger request; its default, 256 KiB, is one image.
_RETRY_BUFFER_BYTES = 64 * 1024 * 1024
_CORE_MAX_ATTEMPTS = 5
_SERVICE_CONFIG = "grpc.service_config"
_INT32 = range(-(2**31), 2**31)
# After a backoff of less than a millisecond gRPC hangs instead of retrying (grpc/grpc issue 41036).
_MIN_BACKOFF_S = 0.01
_MAX_BACKOFF_S = 86_400
_MAX_MULTIPLIER = 1_000
# Limits of gRPC's retry throttling, which counts in thousandths.
_MAX_TOKENS = 1_000
_MIN_TOKEN_RATIO = 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Retries of rejected calls (RESOURCE_EXHAUSTED) and of calls that did not reach a server (UNAVAILABLE).

    The first retry waits about ``initial_backoff_s``, each further one ``multiplier`` times longer, up to
    ``max_backoff_s``. A pushback of the server (``grpc-retry-pushback-ms``) replaces the backoff. Each failed attempt
    takes one of ``max_tokens`` tokens and each success returns ``token_ratio``; while no more than half are left
    nothing is retried, so that clients do not add to an overload. The timeout covers all attempts.
    """

    max_attempts: int = _CORE_MAX_ATTEMPTS
    initial_backoff_s: float = 0.1
    max_backoff_s: float = 2.0
    multiplier: float = 2.0
    max_tokens: int = 100
    token_ratio: float = 0.1

    def __post_init__(self) -> None:
        checked_integer("max_tokens", self.max_tokens, 1, _MAX_TOKENS)
        checked_number("token_ratio", self.token_ratio, _MIN_TOKEN_RATIO, self.max_tokens)
        checked_number("multiplier", self.multiplier, 1, _MAX_MULTIPLIER)
        checked_number("max_backoff_s", self.max_backoff_s, _MIN_BACKOFF_S, _MAX_BACKOFF_S)
        checked_number("initial_backoff_s", self.initial_backoff_s, _MIN_BACKOFF_S, self.max_backoff_s)
        checked_integer("max_attempts", self.max_attempts, 2, _CORE_MAX_ATTEMPTS)

    def service_config(self) -> dict[str, object]:
        """Return the policy as gRPC's service config."""
        retry = {
            "maxAttempts": int(self.max_attempts),
            "initialBackoff": f"{self.initial_backoff_s:.3f}s",
            "maxBackoff": f"{self.max_backoff_s:.3f}s",
            "backoffMultiplier": float(self.multiplier),
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
        }
        return {
            "methodConfig": [{"name": [{"service": SERVICE}, {"service": GENERATION_SERVICE}], "retryPolicy": retry}],
            "retryThrottling": {"maxTokens": int(self.max_tokens), "tokenRatio": float(self.token_ratio)},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelConfig:
    """Everything that a channel and its calls need; the same for the synchronous and the asyncio client."""

    address: str
    credentials: grpc.ChannelCredentials | None
    options: tuple[tuple[str, str | int | bytes], ...]
    metadata: Metadata
    compression: grpc.Compression | None


def channel_config(
    address: str,
    *,
    token: str | None,
    allow_insecure_token: bool,
    tls: TLS | None,
    retry: RetryPolicy | None,
    round_robin: bool,
    metadata: MetadataLike | None,
    max_receive_bytes: int,
    options: ChannelOptions,
    compression: grpc.Compression | None,
) -> ChannelConfig:
    """Validate the arguments of a client, and convert them to gRPC's."""
    endpoint = Endpoint(address=address, token=token, allow_insecure_token=allow_insecure_token, tls=tls)
    if not isinstance(retry, RetryPolicy | None):
        raise TypeError(f"retry: expected a RetryPolicy or None, got {type(retry).__name__}")
    checked_integer("max_receive_bytes", max_receive_bytes, 1, MAX_MESSAGE_BYTES)
    if not isinstance(compression, grpc.Compression | None):
        raise TypeError(f"compression: expected a grpc.Compression or None, got {type(compression).__name__}")
    sent = () if metadata is None else checked_metadata(metadata)
    if token is not None and "authorization" in dict(sent):
        msg = 'metadata "authorization": expected none beside a token, which goes by that name'
        raise ValueError(msg)
    config = service_config(retry, round_robin=checked_flag("round_robin", round_robin))
    given = _given_options(options)
    if config and _SERVICE_CONFIG in given:
        raise ValueError(
            f'options: "{_SERVICE_CONFIG}" would replace what retry and round_robin say; expected it with retry=None '
            "and without round_robin"
        )
    return ChannelConfig(
        address=address,
        credentials=None if tls is None else tls.credentials(),
        options=tuple((_options(config, max_receive_bytes) | endpoint.options() | given).items()),
        metadata=endpoint.metadata() + sent,
        compression=compression,
    )


def service_config(retry: RetryPolicy | None, *, round_robin: bool) -> dict[str, object]:
    """Return gRPC's service config. Round robin skips servers whose health, which it watches, is not SERVING."""
    spread = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
    return (spread if round_robin else {}) | (retry.service_config() if retry is not None else {})


def _options(config: dict[str, object], max_receive_bytes: int) -> dict[str, str | int | bytes]:
    options: dict[str, str | int | bytes] = {
        "grpc.primary_user_agent": f"inferd-client/{inferd.__version__}",
        "grpc.max_receive_message_length": int(max_receive_bytes),
        "grpc.max_send_message_length": -1,
        "grpc.keepalive_time_ms": _KEEPALIVE_S * 1000,
        "grpc.keepalive_timeout_ms": _KEEPALIVE_TIMEOUT_S * 1000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.initial_reconnect_backoff_ms": _RECONNECT_FIRST_MS,
        "grpc.max_reconnect_backoff_ms": _RECONNECT_MOST_MS,
        "grpc.min_reconnect_backoff_ms": _CONNECT_TIMEOUT_MS,
        "grpc.dns_min_time_between_resolutions_ms": _LOOK_UP_AGAIN_MS,
        # A separate connection for each client, instead of one that equal channels of the process share.
        "grpc.use_local_subchannel_pool": 1,
        "grpc.per_rpc_retry_buffer_size": _RETRY_BUFFER_BYTES,
        "grpc.service_config_disable_resolution": 1,
    }
    if config:
        options[_SERVICE_CONFIG] = json.dumps(config)
    return options


def _given_options(options: object) -> dict[str, str | int | bytes]:
    given: dict[str, str | int | bytes] = {}
    for name, value in pairs_of("options", options):
        if not isinstance(name, str):
            raise TypeError(f"options: expected a str as name, got {type(name).__name__}")
        if not isinstance(value, str | int | bytes):
            raise TypeError(f'options: expected an int, str or bytes for "{name}", got {type(value).__name__}')
        if isinstance(value, int) and not _INT32.start <= value < _INT32.stop:
            raise ValueError(f'options: "{name}" is {value}, expected {_INT32.start} to {_INT32.stop - 1}')
        given[name] = value
    return given
