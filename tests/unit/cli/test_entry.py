"""What all commands share: help, exit codes and the format of errors."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from inferd import __version__
from inferd.cli import main
from inferd.cli.entry import COMMANDS
from tests.patience import PATIENCE_S
from tests.unit.client.fake_service import echo

_BIN = Path(sys.executable).with_name("inferd")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def _complete(words: str) -> list[str]:
    env = {**os.environ, "_INFERD_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run([_BIN], env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return done.stdout.split()


def test_help_lists_the_commands(inferd):
    """It lists every command with its summary, and the exit codes."""
    result = inferd("--help")
    assert result.exit_code == 0
    for name, summary in COMMANDS.items():
        assert name in result.out
        assert summary in result.out
    assert "130 interrupted" in result.out


@pytest.mark.parametrize("arguments", [["--help"], ["token", "new", "a"], ["config"]])
def test_full_disk_is_one_line(arguments):
    """Whatever is printed where there is no room any more."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [_BIN, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=False
        )
    assert done.returncode == 1
    assert done.stderr.endswith("inferd: standard output: cannot be written: No space left on device\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(inferd, command):
    """The real command answers --help and -h."""
    assert f"Usage: inferd {command}" in inferd(command, "--help").out
    assert inferd(command, "-h").exit_code == 0


def test_examples_keep_their_brackets(inferd):
    """They are not interpreted as markup."""
    assert "inferd infer adder --input a=[1,2] --input b=[3,4]" in inferd("infer", "--help").out


def test_help_imports_little():
    """The overview imports neither gRPC nor numpy nor the server."""
    done = _python(
        "import sys; from inferd.cli import main; main(['--help'])\n"
        "print('HEAVY', {'numpy', 'grpc', 'pydantic', 'onnxruntime'} & set(sys.modules))"
    )
    assert "HEAVY set()" in done.stdout


def test_missing_packages_are_explained():
    """Without the server's packages the client's commands work, and the others name what to install."""
    done = _python(
        "import sys\n"
        "for name in ('onnxruntime', 'pydantic_settings'): sys.modules[name] = None\n"
        "from inferd.cli import main\n"
        "print('EXITED', int(main(['models', '--help'])), int(main(['serve'])))"
    )
    assert "EXITED 0 1" in done.stdout
    assert done.stderr.startswith("inferd: this needs the package")
    assert "pip install 'inferd[cpu]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_client_without_the_command_line():
    """The command exists, and names the missing package in one line."""
    done = _python("import sys; sys.modules['typer'] = None; from inferd.cli import main; sys.exit(main(['models']))")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "inferd: this needs the package typer, which is not installed; "
        "the command line comes with pip install 'inferd[cli]', and with the server\n"
    )


def test_version(inferd):
    """The version of the package is printed, and no command runs."""
    assert inferd("--version") == inferd("--version", "serve")
    assert inferd("--version").out == f"inferd {__version__}\n"


def test_python_m_inferd():
    """It behaves as ``inferd``, exit code included."""
    done = subprocess.run([sys.executable, "-m", "inferd", "nope"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No such command 'nope'" in done.stderr


@pytest.mark.parametrize("arguments", [["infr"], ["infer"], ["models", "--nope"], ["models", "--timeout", "soon"]])
def test_invalid_arguments_are_usage_errors(inferd, arguments):
    """Unknown commands and options, and missing or invalid values, exit with 2 and the usage on stderr."""
    result = inferd(*arguments)
    assert (result.exit_code, result.out) == (2, "")
    assert "Usage: inferd" in result.err


def test_near_misses_are_suggested(inferd):
    """A mistyped command suggests a known one."""
    assert "Did you mean 'infer'?" in inferd("infr").err


def test_interruption_is_quiet(server, service):
    """Ctrl-C during a call exits with 130 and without a traceback."""
    started, finished = threading.Event(), threading.Event()

    def hang(request, context):
        context.add_callback(finished.set)
        started.set()
        finished.wait(PATIENCE_S)
        return echo(request)

    service.on_infer = hang
    command = [_BIN, "infer", "digits", "-i", f"X={64 * [0]}", "-a", server.address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert started.wait(PATIENCE_S)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (130, "", "")


def test_closed_pipe_is_quiet():
    """A pipe that is closed early ends the command without an error message."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read(); from inferd.cli import main; sys.exit(main(['config']))"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin and process.stdout and process.stderr  # noqa: PT018 - for the type checker only
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE_S) == 1
    process.stderr.close()


def test_shell_completion():
    """It completes commands, and options of commands that are not imported yet."""
    assert _complete("inferd inf") == ["infer"]
    assert "--model-version" in _complete("inferd infer --mod")


def test_interrupt_while_the_command_line_is_imported(monkeypatch):
    """As at any time later: no traceback."""

    class Interrupted:
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "inferd.cli.entry", Interrupted())
    assert main([]) == 130
