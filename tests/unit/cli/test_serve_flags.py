"""The flags of ``inferd serve`` for models, which are tritonserver's."""

from pathlib import Path

import pytest
import typer

from inferd.cli import serve as serve_module
from inferd.cli.failures import CommandError, ExitCode
from inferd.cli.tritonserver import reject_flags
from inferd.config.repository import ModelControl, RequiredModels
from inferd.config.settings import Settings
from inferd.config.validation import SettingsError
from tests.unit.cli.conftest import Completed


@pytest.fixture
def serve(inferd, monkeypatch):
    """Run ``inferd serve`` up to its settings, and return them with the finished command."""

    def run(*arguments: str) -> tuple[Settings | None, Completed]:
        seen = []

        def build(load):
            try:
                seen.append(load())
            except SettingsError as error:
                raise CommandError(str(error), ExitCode.USAGE) from error
            raise CommandError("stop here")

        monkeypatch.setattr(serve_module, "_build", build)
        done = inferd("serve", *arguments)
        return (seen or [None])[0], done

    return run


def test_command_line_of_tritonserver(serve):
    """Values follow a space or an equals sign."""
    settings, _ = serve(
        *("--model-repository=/models", "--model-repository", "/more", "--model-control-mode=explicit"),
        *("--load-model=a", "--load-model", "b", "--strict-readiness=true", "--exit-on-error=0"),
        *("--grpc-port=9000", "--http-port=9001", "--metrics-port=9002", "--model-config-name=h100"),
    )
    assert settings.models == [Path("/models"), Path("/more")]
    repository = settings.repository
    assert (repository.mode, repository.load) == (ModelControl.EXPLICIT, ["a", "b"])
    assert (repository.readiness, repository.exit_on_error) == (RequiredModels.ALL, False)
    server = settings.server
    assert (server.grpc_port, server.http_port, server.metrics_port) == (9000, 9001, 9002)
    assert repository.config_name == "h100"


def test_no_http(serve):
    """The flag of its port switches it off."""
    assert serve("--http-port", "none")[0].server.http_host is None


def test_polling(serve):
    """Its interval is in seconds."""
    settings, _ = serve("--model-control-mode", "poll", "--repository-poll-secs", "5")
    assert (settings.repository.mode, settings.repository.poll_interval_s) == (ModelControl.POLL, 5.0)


def test_all_ways_to_give_models(serve):
    """Together, in the order of positional paths, repositories and named models."""
    settings, _ = serve("--model", "digits=/mnt/models", "a.onnx", "--model-repository", "/models")
    assert settings.models == [Path("a.onnx"), Path("/models"), Path("digits=/mnt/models")]


def test_flags_not_given_set_nothing(serve):
    """The settings file and the environment apply."""
    assert serve()[0].repository == Settings().repository


@pytest.mark.parametrize(
    ("value", "readiness"), [("true", "all"), ("1", "all"), ("TRUE", "all"), ("false", "any"), ("0", "any")]
)
def test_booleans_of_tritonserver(serve, value, readiness):
    """It writes them in these ways."""
    settings, _ = serve("--strict-readiness", value)
    assert settings.repository.readiness.value == readiness


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--strict-readiness", "maybe"], "--strict-readiness: expected true or false, got 'maybe'"),
        (["--model", "/mnt/models"], "--model: expected NAME=PATH, got '/mnt/models'"),
        (["--model", "=/mnt/models"], "--model: expected NAME=PATH, got '=/mnt/models'"),
        (["--repository-poll-secs", "0"], "repository.poll_interval_s"),
        (["--load-model", "a"], "expected mode explicit beside it, got none"),
        (["--http-port=web"], "server.http_port: expected a valid integer"),
        (["--http-thread-count=8"], "--http-thread-count is tritonserver's: one thread reads all requests"),
        (["--http-address=::"], "use --set server.http.host=ADDRESS"),
        (["--allow-http=false"], "--http-port none switches it off"),
        (["--log-verbose", "1"], "--log-verbose is tritonserver's: use --log-format"),
        (["--backend-directory", "/opt"], "inferd runs every model in ONNX Runtime"),
        (["--grpc-address=0.0.0.0"], "use --host"),
        (["--grpc-infer-allocation-pool-size=8"], "server.connections"),
        (["--grpc-use-ssl-mutual", "1"], "security.tls.cert_file"),
    ],
)
def test_invalid_flags(serve, arguments, text):
    """One line says which flag it is and what to use."""
    _, done = serve(*arguments)
    assert done.exit_code == ExitCode.USAGE
    assert text in done.err


def test_arguments_after_the_end_of_flags():
    """They are paths, whatever they look like."""
    reject_flags(["--", "--http-thread-count"])


def test_own_flags_are_not_rejected():
    """No pattern of the table covers one of ours."""
    own = [option for parameter in typer.main.get_command(_app()).params for option in parameter.opts]
    assert "--grpc-port" in own
    reject_flags([option for option in own if option.startswith("--")])


def _app():
    app = typer.Typer()
    app.command()(serve_module.serve)
    return app
