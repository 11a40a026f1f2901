"""Errors name the setting, its value, the bound and the origin."""

from collections.abc import Callable
from pathlib import Path

import pytest

from inferd.config.loading import load_settings
from inferd.config.validation import SettingsError

Problems = Callable[..., list[str]]


def test_out_of_bounds_in_the_file(problems: Problems) -> None:
    """The line is named."""
    assert problems("server:\n  host: localhost\n  grpc_port: 70000\n") == [
        "server.grpc_port: expected less than or equal to 65535, got 70000 (inferd.yaml line 3)"
    ]


def test_wrong_type_in_a_variable(problems: Problems) -> None:
    """The variable is named as it was set."""
    (problem,) = problems(INFERD_QUEUE__MAX_ROWS="many")
    assert problem == (
        "queue.max_rows: expected a valid integer, unable to parse string as an integer, got 'many' "
        "(environment variable INFERD_QUEUE__MAX_ROWS)"
    )


def test_wrong_value_of_a_flag(problems: Problems) -> None:
    """The flag is named, although a variable sets the same value."""
    assert problems(None, {"server.grpc_port": -1}, INFERD_SERVER__GRPC_PORT="2") == [
        "server.grpc_port: expected greater than or equal to 0, got -1 (flag --grpc-port)"
    ]


def test_wrong_positional_argument(problems: Problems) -> None:
    """Models are positional."""
    assert problems(None, {"models": [3]}) == ["models.0: expected a path, got 3 (command line)"]


def test_address_that_is_not_valid(problems: Problems) -> None:
    """Addresses have secrets, so they are not repeated."""
    assert problems(None, {"models": ["https://me:secret@[::1/m.onnx"]}) == [
        "models.0: expected a path or an address, got one that is not valid: Invalid IPv6 URL (command line)"
    ]


def test_wrong_value_in_a_json_section(problems: Problems) -> None:
    """The variable that holds the whole section is named."""
    assert problems(INFERD_QUEUE='{"max_rows": 0}') == [
        "queue.max_rows: expected greater than or equal to 1, got 0 (environment variable INFERD_QUEUE)"
    ]


@pytest.mark.parametrize(
    ("yaml", "problem"),
    [
        ("server: {grpc_prot: 1}", "server.grpc_prot: no such setting, did you mean server.grpc_port?"),
        ("grpc_port: 1", "grpc_port: no such setting, did you mean server.grpc_port?"),
        ("batching: {max_rows: 1}", "batching.max_rows: no such setting, did you mean queue.max_rows?"),
        ("severs: {grpc_port: 1}", "severs: no such setting, did you mean server?"),
        ("zzz: 1", "zzz: no such setting"),
    ],
)
def test_unknown_names_in_the_file(problems: Problems, yaml: str, problem: str) -> None:
    """Near misses and names of another section get a suggestion."""
    assert problems(yaml) == [f"{problem} (inferd.yaml line 1)"]


@pytest.mark.parametrize(
    ("variable", "name", "suggestion"),
    [
        ("INFERD_SERVER__GRPC_PROT", "server.grpc_prot", ", did you mean INFERD_SERVER__GRPC_PORT?"),
        ("INFERD_SERVER_GRPC_PORT", "server_grpc_port", ", did you mean INFERD_SERVER__GRPC_PORT?"),
        ("INFERD_MODEL", "model", ", did you mean INFERD_MODELS?"),
        ("INFERD_ZZZ", "zzz", ""),
    ],
)
def test_unknown_variables(problems: Problems, variable: str, name: str, suggestion: str) -> None:
    """Suggestions are variables; a missing underscore is a near miss."""
    expected = f"{name}: no such setting{suggestion} (environment variable {variable})"
    assert problems(**{variable: "1"}) == [expected]


def test_unknown_flag(problems: Problems) -> None:
    """Suggestions are flags."""
    assert problems(None, {"server.grpc_prot": 1}) == [
        "server.grpc_prot: no such setting, did you mean --grpc-port? (flag --set server.grpc_prot)"
    ]


@pytest.mark.parametrize(
    ("yaml", "problem"),
    [
        ("server: {grpc_port: yes}", "server.grpc_port: expected a number, got True"),
        ("server: {host: 'http://x'}", "server.host: expected a host name or an IP address, without scheme or port,"),
        ("server: {host: 'x/y'}", "server.host: expected a host name or an IP address, got 'x/y'"),
        ("server: {host: ''}", "server.host: expected at least 1 character, got ''"),
        ("server: {host: 'unix:'}", "server.host: expected the name of a Unix socket without %, ? and #, got 'unix:'"),
        ("server: {host: 'unix:/a%b'}", "server.host: expected the name of a Unix socket without %, ? and #, got"),
        ("server: {host: 'unix-abstract:a?b'}", "server.host: expected the name of a Unix socket without %, ? and #,"),
        ("server: {host: 'unix://a'}", "server.host: expected unix:PATH, or unix:// and an absolute path, got"),
        (f"server: {{host: 'unix:/{'x' * 107}'}}", "server.host: expected the name of a Unix socket of at most 107"),
        ("server: {metrics_host: 'unix:/a'}", "server.metrics_host: expected a host name or an IP address, with"),
        ("server: 8001", "server: expected a section with settings, got 8001"),
        ("log: {level: loud}", "log.level: expected 'debug', 'info', 'warning' or 'error', got 'loud'"),
        ("runtime: {providers: []}", "runtime.providers: expected 'auto' or at least 1 item after validation, not 0"),
        ("runtime: {providers: 3}", "runtime.providers: expected 'auto' or a valid list, got 3"),
        ("queue: {default_timeout_ms: .inf}", "queue.default_timeout_ms: expected a finite number, got inf"),
        ("queue: {default_timeout_ms: .nan}", "queue.default_timeout_ms: expected a finite number, got nan"),
        ("queue: {default_priority: 9}", "queue.default_priority: expected at most priority_levels, which is 3, got 9"),
        (
            "server: {grpc_port: 9, metrics_port: 9}",
            "server.metrics_port: expected another port than grpc_port, got 9 for both",
        ),
        (
            "server: {grpc_port: 8000, http_port: 8000}",
            "server.http_port: expected another port than grpc_port, got 8000 for both",
        ),
        (
            "server: {metrics_port: 8000}",
            "server.metrics_port: expected another port than http_port, got 8000 for both",
        ),
        ("server: {http_port: off}", "server.http_port: expected a number, got False"),
        ("server: {http_port: any}", "server.http_port: expected a valid integer, unable"),
        ("server: {http: {host: 'unix:/a'}}", "server.http.host: expected a host name or an IP address, without"),
        ("server: {http: {cors_origins: ['https://a/']}}", "server.http.cors_origins: expected *, or http(s)://HOST"),
        ("server: {http: {cors_origins: ['https://A']}}", "server.http.cors_origins: expected *, or http(s)://HOST"),
        ("server: {http: {cors_origins: ['https://u@a']}}", "server.http.cors_origins: expected *, or http(s)://HOST"),
        ("server: {http: {cors_origins: ['a:80']}}", "server.http.cors_origins: expected *, or http(s)://HOST"),
        ("server: {http: {cors_origins: ['http://:80']}}", "server.http.cors_origins: expected *, or http(s)://HOST"),
        (
            "batching: {max_batch_size: 9000}",
            "batching.max_batch_size: expected at most queue.max_rows, which is 8192, got 9000",
        ),
        (
            "batching: {max_wait_ms: 30000}",
            "batching.max_wait_ms: expected less than queue.default_timeout_ms, which is 30000.0, got 30000.0",
        ),
    ],
)
def test_invalid_values(problems: Problems, yaml: str, problem: str) -> None:
    """Values that are invalid alone or in combination."""
    (found,) = problems(yaml)
    assert found.startswith(problem)
    assert found.endswith("(inferd.yaml line 1)")


def test_default_that_conflicts_with_a_setting(problems: Problems) -> None:
    """The origin is the default; the text names the setting."""
    assert problems("queue: {max_rows: 8}") == [
        "batching.max_batch_size: expected at most queue.max_rows, which is 8, got 64 (default)"
    ]


def test_queue_may_be_short_without_batching(load: Callable[..., object]) -> None:
    """The largest batch need not fit."""
    load("queue: {max_rows: 8}\nbatching: {enabled: false}")


def test_all_ports_may_be_zero(load: Callable[..., object]) -> None:
    """Free ports are picked."""
    load("server: {grpc_port: 0, http_port: 0, metrics_port: 0}")


@pytest.mark.parametrize("origin", ["*", "https://app.example.com", "http://localhost:3000", "https://[::1]:8443"])
def test_origins_of_websites(load: Callable[..., object], origin: str) -> None:
    """As browsers send them."""
    load(f"server: {{http: {{cors_origins: ['{origin}']}}}}")


def test_all_problems_are_reported_at_once(problems: Problems) -> None:
    """From every source, with a line each."""
    found = problems("queue: {max_rows: 0}", {"server.host": 3}, INFERD_LOG__LEVEL="x")
    assert [line.split(":")[0] for line in found] == ["server.host", "log.level", "queue.max_rows"]


def test_text_of_several_problems(load: Callable[..., object]) -> None:
    """The number of problems, then a line each."""
    with pytest.raises(SettingsError) as caught:
        load("a: 1\nb: 2\n")
    assert str(caught.value).splitlines() == [
        "2 settings are invalid:",
        "  a: no such setting (inferd.yaml line 1)",
        "  b: no such setting (inferd.yaml line 2)",
    ]


def test_long_values_are_truncated(problems: Problems) -> None:
    """A file in a variable does not flood the terminal."""
    (found,) = problems(INFERD_LOG__LEVEL="x" * 10_000)
    assert len(found) < 300


@pytest.mark.parametrize(
    ("yaml", "problem"),
    [
        ("- a\n", "inferd.yaml line 1: expected sections with settings, got a list"),
        ("\nhello\n", "inferd.yaml line 2: expected sections with settings, got a single value"),
        ("server:\n  host: [\n", "inferd.yaml line 3: is not YAML: "),
        ("server:\n\thost: x\n", "inferd.yaml line 2: is not YAML: "),
        ("server: {}\n---\nqueue: {}\n", "inferd.yaml line 2: is not YAML: but found another document"),
        ("queue: {}\nserver: {}\nqueue: {}\n", "inferd.yaml line 3: queue is set on line 1 already"),
        ("queue:\n  max_rows: 1\n  max_rows: 2\n", "inferd.yaml line 3: queue.max_rows is set on line 2 already"),
        (
            "runtime:\n  provider_options:\n    cuda: {device_id: 0, device_id: 1}\n",
            "inferd.yaml line 3: runtime.provider_options.cuda.device_id is set on line 3 already",
        ),
        ("a: " + "[" * 10_000, "inferd.yaml: is not YAML: it is nested too deeply"),
        ("a: 2030-13-45\n", "inferd.yaml: is not YAML: month must be in 1..12"),
        ("1: 2\n", "inferd.yaml line 1: expected a name, got 1"),
        ("server:\n  on: 2\n", "inferd.yaml line 2: expected a name, got on"),
        ("a: !!python/object:os.system {}\n", "inferd.yaml line 1: is not YAML: could not determine a constructor"),
        ("a: \x00\n", "inferd.yaml: is not YAML: "),
    ],
)
def test_invalid_files(problems: Problems, yaml: str, problem: str) -> None:
    """The line is named if it is known."""
    (found,) = problems(yaml)
    assert found.startswith(problem)


def test_values_of_a_merge_key(problems: Problems) -> None:
    """They have the line of the anchor, and overriding one is no duplicate."""
    yaml = "queue: &q\n  max_rows: 2000\nbatching:\n  <<: *q\n  max_rows: 1\nserver:\n  <<: *q\n"
    assert problems(yaml) == [
        "server.max_rows: no such setting, did you mean queue.max_rows? (inferd.yaml line 2)",
        "batching.max_rows: no such setting, did you mean queue.max_rows? (inferd.yaml line 5)",
    ]


def test_missing_file(problems: Problems) -> None:
    """The error includes the system's reason."""
    assert problems(INFERD_CONFIG="nowhere.yaml") == ["nowhere.yaml: cannot be read: No such file or directory"]


def test_binary_file(tmp_path: Path) -> None:
    """Not UTF-8: an error, no traceback."""
    file = tmp_path / "binary.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"binary\.yaml: cannot be read: it is not UTF-8 text"):
        load_settings(config_file=file, flags={})
