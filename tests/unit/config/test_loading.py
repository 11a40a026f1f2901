"""Precedence of sources, and the values that each accepts."""

from pathlib import Path

import pytest

from inferd.config.settings import Backpressure, Settings
from tests.unit.config.conftest import Load


def test_defaults_without_any_source(load: Load) -> None:
    """No file, no variable, no flag."""
    assert load() == Settings()


@pytest.mark.parametrize("yaml", ["", "# nothing yet\n", "---\n", "server:\nqueue:\n"])
def test_empty_files_and_sections_are_defaults(load: Load, yaml: str) -> None:
    """A file or section with only comments is valid."""
    assert load(yaml) == Settings()


def test_precedence_of_flags_environment_and_file(load: Load) -> None:
    """Each source sets what those above it do not."""
    yaml = "server: {grpc_port: 1, metrics_port: 2, host: from-file}"
    settings = load(yaml, {"server.grpc_port": 5}, INFERD_SERVER__GRPC_PORT="3", INFERD_SERVER__METRICS_PORT="4")
    assert (settings.server.grpc_port, settings.server.metrics_port, settings.server.host) == (5, 4, "from-file")


def test_null_of_a_flag_is_a_value(load: Load) -> None:
    """It switches off what is on by default."""
    assert load("server: {http_port: 7}", {"server.http_port": None}).server.http_port is None
    assert load(flags={"server.http_port": None}).server.http_port is None


def test_environment_names_the_file(load: Load, tmp_path: Path) -> None:
    """INFERD_CONFIG is used where no flag names a file."""
    (tmp_path / "other.yaml").write_text("queue: {max_rows: 77}")
    assert load(INFERD_CONFIG=str(tmp_path / "other.yaml")).queue.max_rows == 77


def test_file_flag_overrides_environment(load: Load) -> None:
    """The missing file of INFERD_CONFIG is not opened."""
    assert load("queue: {max_rows: 78}", INFERD_CONFIG="missing.yaml").queue.max_rows == 78


@pytest.mark.parametrize(
    ("value", "models"),
    [("/a", ["/a"]), ("/a, /b", ["/a", "/b"]), ('["/a,b"]', ["/a,b"])],
)
def test_lists_in_variables_are_json_or_comma_separated(load: Load, value: str, models: list[str]) -> None:
    """Brackets are needed only for a path with a comma."""
    assert load(INFERD_MODELS=value).models == [Path(model) for model in models]


@pytest.mark.parametrize(("value", "providers"), [("auto", "auto"), ("cuda", ["cuda"]), ("cuda,cpu", ["cuda", "cpu"])])
def test_providers_in_variables(load: Load, value: str, providers: object) -> None:
    """`auto` is no list; other words are."""
    assert load(INFERD_RUNTIME__PROVIDERS=value).runtime.providers == providers


def test_section_in_one_json_variable(load: Load) -> None:
    """Variables of single settings override it."""
    settings = load(INFERD_QUEUE='{"max_rows": 100, "policy": "block"}', INFERD_QUEUE__MAX_ROWS="200")
    assert (settings.queue.max_rows, settings.queue.policy) == (200, Backpressure.BLOCK)


def test_empty_variables_are_not_set(load: Load) -> None:
    """Compose files and charts write empty variables."""
    assert load(INFERD_MODELS="", INFERD_SERVER__GRPC_PORT="", INFERD_NONSENSE="") == Settings()


def test_other_variables_with_the_prefix_are_ignored(load: Load) -> None:
    """The client's token, and those that Kubernetes sets for Services called inferd and inferd-metrics."""
    assert (
        load(
            INFERD_TOKEN="secret",
            INFERD_SERVICE_HOST="10.0.0.1",
            INFERD_SERVICE_PORT="8001",
            INFERD_SERVICE_PORT_GRPC="8001",
            INFERD_PORT="tcp://10.0.0.1:8001",
            INFERD_PORT_8001_TCP="tcp://10.0.0.1:8001",
            INFERD_PORT_8001_TCP_ADDR="10.0.0.1",
            INFERD_METRICS_SERVICE_HOST="10.0.0.2",
            INFERD_METRICS_PORT="tcp://10.0.0.2:8002",
        )
        == Settings()
    )


def test_priorities_are_numbers(load: Load) -> None:
    """Of a mapping below a setting, as in a model.yaml."""
    yaml = "queue: {priority_levels: 2, by_priority: {1: {max_rows: 5}}}"
    assert load(yaml).queue.by_priority[1].max_rows == 5


def test_provider_options_may_be_numbers(load: Load) -> None:
    """ONNX Runtime needs text, users write numbers."""
    yaml = "runtime: {providers: [cuda], provider_options: {cuda: {device_id: 0}}}"
    assert load(yaml).runtime.provider_options == {"cuda": {"device_id": "0"}}


@pytest.mark.parametrize(
    ("host", "kept"),
    [
        *((host, host) for host in ("0.0.0.0", "localhost", "inferd_1.internal", "[::]")),
        ("::1", "[::1]"),
        ("fe80::1%eth0", "[fe80::1%eth0]"),
    ],
)
def test_hosts(load: Load, host: str, kept: str) -> None:
    """Names and addresses are kept; an IPv6 address gets the brackets that it needs before a port."""
    assert load(None, {"server.host": host}).server.host == kept


@pytest.mark.parametrize(
    ("host", "grpc", "monitoring"),
    [
        ("unix:/run/inferd.sock", "unix:/run/inferd.sock", "127.0.0.1"),
        ("unix:///run/inferd.sock", "unix:/run/inferd.sock", "127.0.0.1"),
        ("unix:inferd.sock", "unix:inferd.sock", "127.0.0.1"),
        ("unix-abstract:inferd", "unix-abstract:inferd", "127.0.0.1"),
        ("::1", "[::1]:7", "[::1]"),
    ],
)
def test_listen_addresses(load: Load, host: str, grpc: str, monitoring: str) -> None:
    """A Unix socket has no port, so the metrics port may equal grpc_port."""
    server = load(
        None, {"server.host": host, "server.grpc_port": 7, "server.metrics_port": 7 if "unix" in host else 8}
    ).server
    assert (server.grpc_address, server.monitoring_host) == (grpc, monitoring)
    other = load(None, {"server.host": host, "server.metrics_host": "::"}).server
    assert other.monitoring_host == "[::]"


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        ({}, "127.0.0.1"),
        ({"server.host": "::1"}, "[::1]"),
        ({"server.host": "unix:/run/inferd.sock"}, None),
        ({"server.host": "unix:/run/inferd.sock", "server.http.host": "::1"}, "[::1]"),
        ({"server.host": "0.0.0.0", "server.http.host": "10.0.0.1"}, "10.0.0.1"),
        ({"server.http_port": "none"}, None),
        ({"server.http_port": "none", "server.http.host": "10.0.0.1"}, None),
    ],
)
def test_address_of_http(load: Load, settings: dict[str, object], host: str | None) -> None:
    """It is that of gRPC; what a Unix socket keeps to the owners of a file gets no port unless somebody says so."""
    assert load(None, settings).server.http_host == host


def test_no_http_from_every_source(load: Load) -> None:
    """Null in a file; flags and variables have no null, and say none."""
    assert load("server: {http_port: null}").server.http_port is None
    assert load(None, {"server.http_port": "none"}).server.http_port is None
    assert load(None, INFERD_SERVER__HTTP_PORT="None").server.http_port is None
    assert load(None, INFERD_SERVER__HTTP_PORT="8080").server.http_port == 8080
