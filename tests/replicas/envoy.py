"""Envoy as a proxy for replicas, which it reads from a file and health-checks."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.patience import eventually
from tests.server import BIN

_LOCAL = "127.0.0.1"
_TYPES = "type.googleapis.com/envoy"
_HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": f"{_TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}
_ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{_TYPES}.extensions.filters.http.router.v3.Router"},
}

#: The header that selects a retry policy by name.
POLICY_HEADER = "retries"
_ELSEWHERE = {
    "num_retries": 5,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": f"{_TYPES}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }
    ],
    "host_selection_retry_max_attempts": 5,
}
#: Retry policies: only requests that never reached a replica, or all that failed because of a lost one.
RETRY_POLICIES = {
    "unsent": {"retry_on": "connect-failure", **_ELSEWHERE},
    "failed": {"retry_on": "connect-failure,reset,unavailable", **_ELSEWHERE},
}


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": _LOCAL, "port_value": port}}


def _routes() -> Iterator[dict[str, object]]:
    to_any = {"cluster": "inferd", "timeout": "0s"}
    for name, policy in RETRY_POLICIES.items():
        header = {"name": POLICY_HEADER, "string_match": {"exact": name}}
        yield {"match": {"prefix": "/", "headers": [header]}, "route": {**to_any, "retry_policy": policy}}
    yield {"match": {"prefix": "/"}, "route": to_any}


def _configuration(endpoints: Path) -> dict[str, object]:
    manager = {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "grpc",
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": list(_routes())}]},
        "http_filters": [_ROUTER],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    cluster = {
        "name": "inferd",
        "type": "EDS",
        "eds_cluster_config": {
            "eds_config": {"resource_api_version": "V3", "path_config_source": {"path": str(endpoints)}}
        },
        "lb_policy": "ROUND_ROBIN",
        # With few replicas left, healthy ones get all calls, and others none. Health
        # changes take effect at once, instead of after the second for which Envoy merges them by default.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        # By default, only three requests may be retried at a time.
        "circuit_breakers": {"thresholds": [{"max_retries": 1000}]},
        "typed_extension_protocol_options": _HTTP2,
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "0.2s",
                "no_traffic_interval": "0.2s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "grpc_health_check": {"service_name": "readiness"},
            }
        ],
    }
    return {
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": _address(0)},
        "static_resources": {
            "listeners": [{"name": "grpc", "address": _address(0), "filter_chains": [{"filters": filters}]}],
            "clusters": [cluster],
        },
    }


class Envoy:
    """A running Envoy; `route_to` sets its replicas."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._endpoints = folder / "endpoints.json"
        self._admin = folder / "admin"
        self._write(())
        configuration = folder / "envoy.yaml"
        configuration.write_text(yaml.safe_dump(_configuration(self._endpoints)), encoding="utf-8")
        self._log = (folder / "envoy.log").open("wb")
        options = ("--admin-address-path", self._admin, "--disable-hot-restart", "--concurrency", "1", "-l", "warning")
        self.process = subprocess.Popen(
            [BIN / "envoy", "-c", configuration, *options],
            stdout=self._log,
            stderr=self._log,
        )
        eventually(lambda: bool(self._listener()), "Envoy listens")
        self.address = self._listener()

    def route_to(self, addresses: Sequence[str]) -> None:
        """Set its replicas, and wait until it has found all of them healthy."""
        self._write(addresses)
        eventually(lambda: self._healthy() == set(addresses), f"Envoy knows {addresses}")

    def stop(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(20)
        self._log.close()

    def _write(self, addresses: Sequence[str]) -> None:
        ports = [int(address.rpartition(":")[2]) for address in addresses]
        endpoints = [{"endpoint": {"address": _address(port)}} for port in ports]
        assignment = {
            "@type": f"{_TYPES}.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": "inferd",
            "endpoints": [{"lb_endpoints": endpoints}],
        }
        # It reads the file when it is moved into place, not when it is written.
        new = self._folder / "endpoints.new"
        new.write_text(json.dumps({"resources": [assignment]}), encoding="utf-8")
        new.replace(self._endpoints)

    def _listener(self) -> str:
        assert self.process.poll() is None, (self._folder / "envoy.log").read_text()
        places = [_place(status["local_address"]) for status in self._ask("listeners").get("listener_statuses", [])]
        return places[0] if places else ""

    def _healthy(self) -> set[str]:
        (cluster,) = self._ask("clusters")["cluster_statuses"]
        healthy = (
            host for host in cluster.get("host_statuses", []) if set(host["health_status"]) == {"eds_health_status"}
        )
        return {_place(host["address"]) for host in healthy}

    def _ask(self, page: str) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://{self._admin.read_text()}/{page}?format=json", timeout=5) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            # Not started yet.
            return {}


def _place(address: dict[str, Any]) -> str:
    return f"{address['socket_address']['address']}:{address['socket_address']['port_value']}"
