"""The image contains only what serving needs, and serves in a restricted container."""

import json
import re

import grpc
import pytest

from inferd import demo
from tests.image.podman import IMAGE, podman, running
from tests.patience import eventually
from tests.replicas.traffic import CALLERS, traffic

MIB = 1024 * 1024

#: Maximum size of the image without its base; docs/deployment.md has the actual size.
LARGEST_LAYER_BYTES = 500 * MIB


@pytest.fixture(scope="module")
def container():
    with running() as container:
        yield container


@pytest.fixture(scope="module")
def config():
    return json.loads(podman("image", "inspect", IMAGE).stdout)[0]


def test_serves_built_in_model(container):
    """From outside."""
    pictures = demo.samples().inputs
    request = json.dumps({"inputs": [{"name": "X", "floats": pictures[0].tolist()}], "outputs": ["label"]})
    done = container.grpcurl("inferd.v1.InferenceService/Infer", request=request)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "digits"


def test_health_check(container):
    """The image's HEALTHCHECK, on the port of this container."""
    probed = container.execute("inferd", "health", "--address", container.grpc, "--service", "liveness")
    assert (probed.returncode, probed.stdout) == (0, "SERVING\n")


def test_has_what_offline_jobs_need(container):
    """The packages, of which a part is removed; a job would write to a volume."""
    done = container.execute("inferd", "batch", "digits", "/rows.parquet", "/answers")
    assert "/rows.parquet: there is no such file" in done.stderr
    assert container.execute("/opt/inferd/bin/python3", "-c", "import PIL.Image, pyarrow.parquet").returncode == 0


def test_no_telemetry(container):
    """ONNX Runtime neither reports to its vendor nor stores an id of this machine."""
    logs = podman("logs", container.name)
    assert "telemetry" not in (logs.stdout + logs.stderr).lower()


def test_restricted(container):
    """An unprivileged user, no capabilities, a read-only file system."""
    status = dict(line.split(":\t", 1) for line in container.execute("cat", "/proc/1/status").stdout.splitlines())
    assert status["Uid"].split() == ["65532"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    for folder in ("/opt/inferd", "/tmp", "/"):
        assert container.execute("touch", f"{folder}/x").returncode != 0


@pytest.mark.parametrize("module", ["pip", "setuptools", "wheel"])
def test_no_pip(container, module):
    """Neither in inferd's environment nor in the system."""
    for python in ("/opt/inferd/bin/python3", "/usr/bin/python3", "/usr/local/bin/python3"):
        assert container.execute(python, "-c", f"import {module}").returncode != 0


@pytest.mark.parametrize("program", ["cc", "gcc", "make", "git", "curl", "pip", "pip3"])
def test_no_compiler_or_downloader(container, program):
    """For intruders."""
    assert container.execute(program, "--version").returncode != 0


def test_modules_are_compiled(container):
    """A read-only file system could not store compiled modules."""
    code = (
        "import importlib.util, sys, inferd.cli.serve\n"
        "from pathlib import Path\n"
        "loaded = [m.__spec__ for m in list(sys.modules.values()) if getattr(m, '__spec__', None)]\n"
        "sources = [s.origin for s in loaded if (s.origin or '').endswith('.py')]\n"
        "print(len(sources), [s for s in sources if not Path(importlib.util.cache_from_source(s)).exists()])"
    )
    done = container.execute("/opt/inferd/bin/python3", "-c", code)
    count, _, missing = done.stdout.strip().partition(" ")
    assert int(count) > 500, done.stderr
    assert missing == "[]"


def test_has_locale_of_text_models(container):
    """ONNX Runtime needs it for models of skl2onnx's TfidfVectorizer."""
    code = "import locale; print(locale.setlocale(locale.LC_ALL, 'en_US.UTF-8'))"
    assert container.execute("/opt/inferd/bin/python3", "-c", code).stdout == "en_US.UTF-8\n"


def test_drains_on_stop():
    """Stopped under load: each accepted call is answered, and the exit status is 0."""
    with (
        running("serve", "--set", "server.drain_delay_s=0.5") as container,
        grpc.insecure_channel(container.grpc) as channel,
        traffic(channel) as calls,
    ):
        eventually(lambda: calls.answered >= 300, "calls are answered")
        assert container.stop() == 0
        events = [json.loads(line) for line in container.log().splitlines() if line.startswith("{")]
    assert {event["status"] for event in events if event["event"] == "access"} == {"OK"}
    assert (events[-1]["event"], events[-1]["in_time"]) == ("stopped", True)
    # The server was gone; or a call crossed the GOAWAY, which gRPC's core answers with CANCELLED.
    codes = [failed.code for failed in calls.failed]
    assert set(codes) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert codes.count(grpc.StatusCode.CANCELLED) <= CALLERS


def test_image_metadata(config):
    """Labels of the Open Container Initiative, a health check without a shell, and a numeric user."""
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "inferd"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"])
    assert config["User"] == "65532:65532"
    assert config["Config"]["Entrypoint"] == ["inferd"]
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "inferd"]


def test_size(config):
    """Its addition to the base is bounded."""
    added = [int(layer["size"]) for layer in json.loads(podman("history", "--format", "json", IMAGE).stdout)[:-1]]
    assert sum(added) < LARGEST_LAYER_BYTES
