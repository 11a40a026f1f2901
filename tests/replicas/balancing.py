"""Replicas behind two kinds of load balancer: a proxy, and the client's gRPC library."""

import json
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from tests.load import metric
from tests.replicas.envoy import POLICY_HEADER, Envoy
from tests.server import ROOT, ServerProcess

#: Longer than a balancer needs to notice that a replica drains.
_DRAIN_DELAY_S = 1.0
_SETTINGS = ("--set", f"server.drain_delay_s={_DRAIN_DELAY_S}", "--set", "log.access=false")

_INFER = "inferd.v1.InferenceService/Infer"


class Replicas:
    """A fixed number of addresses, and the running replicas."""

    def __init__(self, most: int) -> None:
        self.addresses = [f"127.0.0.1:{port}" for port in _free_ports(most)]
        self.servers: dict[str, ServerProcess] = {}

    def start(self, *addresses: str) -> None:
        """Start replicas and wait until they are ready."""
        for address in addresses:
            port = int(address.rpartition(":")[2])
            self.servers[address] = ServerProcess(*_SETTINGS, grpc_port=port)
        for address in addresses:
            self.servers[address].wait_ready()

    def answered(self, address: str) -> int:
        """Return the number of calls that a replica has answered."""
        return int(metric(self.servers[address], "inferd_requests_total", method=_INFER, code="OK"))

    def end(self) -> None:
        """Kill the remaining ones."""
        for server in self.servers.values():
            server.process.kill()
            server.wait()


class RoundRobin:
    """gRPC's library rotates calls over the addresses, with the recommended service config."""

    def __init__(self, replicas: Replicas, _folder: Path) -> None:
        self._addresses = replicas.addresses

    def know(self, *addresses: str) -> None:
        """Do nothing: it has all addresses from the start, as from a DNS name."""

    @contextmanager
    def connected(self, *, retries: str) -> Iterator[tuple[grpc.Channel, tuple[tuple[str, str], ...]]]:
        """Open a channel, with the metadata for its calls."""
        config: dict[str, Any] = json.loads((ROOT / "docs/service_config.json").read_text(encoding="utf-8"))
        if retries != "failed":
            del config["methodConfig"]
        options = [
            ("grpc.service_config", json.dumps(config)),
            ("grpc.enable_retries", int(retries == "failed")),
            ("grpc.use_local_subchannel_pool", 1),
            # Time until a restarted replica is found; the default is at least a second.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        with grpc.insecure_channel("ipv4:" + ",".join(self._addresses), options) as channel:
            yield channel, ()

    def end(self) -> None:
        """Do nothing."""


class ThroughEnvoy:
    """One connection to Envoy, which rotates calls over the replicas."""

    def __init__(self, _replicas: Replicas, folder: Path) -> None:
        self._envoy = Envoy(folder)

    def know(self, *addresses: str) -> None:
        """Set the replicas, as a cluster does."""
        self._envoy.route_to(addresses)

    @contextmanager
    def connected(self, *, retries: str) -> Iterator[tuple[grpc.Channel, tuple[tuple[str, str], ...]]]:
        """Open a channel, with the metadata for its calls."""
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self._envoy.address, options) as channel:
            yield channel, ((POLICY_HEADER, retries),)

    def end(self) -> None:
        """Stop it."""
        self._envoy.stop()


def _free_ports(count: int) -> list[int]:
    """Return free ports below those that the system assigns to clients, so that they stay free."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            if port not in ports and probe.connect_ex(("127.0.0.1", port)) != 0:
                ports.append(port)
    return ports
