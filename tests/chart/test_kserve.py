"""The runtimes for KServe match its schema, and their command line serves what KServe puts into /mnt/models."""

import ast
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
import yaml

from inferd import demo
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference import grpc_service_pb2_grpc as oip_grpc
from inferd.config.settings import Settings
from inferd.models.model_directory import RepositoryError
from inferd.models.repository import resolve
from tests.chart.rendering import PATIENCE_S, VERSIONS
from tests.chart.test_scenarios import VALIDATE
from tests.server import ROOT, serving

#: Classes of KServe's Python client, generated from its schema; see scripts/tools.sh.
_CLASSES = ROOT / ".tools/kserve/kserve/models"
_MANIFEST = ROOT / "helm/kserve/serving-runtimes.yaml"
_PAGE = ROOT / "docs/kubernetes.md"
_PLAIN: dict[str, type] = {"str": str, "bool": bool, "int": int}

_RUNTIMES: dict[str, dict[str, Any]] = {
    each["metadata"]["name"]: each for each in yaml.safe_load_all(_MANIFEST.read_text())
}


def _services() -> list[dict[str, Any]]:
    """Return the InferenceServices of the page."""
    blocks = re.findall(r"```yaml\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    objects = [each for block in blocks if "kserve" in block for each in yaml.safe_load_all(block)]
    return [each for each in objects if each["kind"] == "InferenceService"]


def _fields(name: str) -> dict[str, str] | None:
    """Return the types of a class by the names of its fields in manifests; None if it is not one of KServe's."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    file = _CLASSES / f"{words}.py"
    if not file.exists():
        return None
    found = {}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
    types, names = ast.literal_eval(found["openapi_types"]), ast.literal_eval(found["attribute_map"])
    return {names[attribute]: kind for attribute, kind in types.items()}


def _check(value: Any, kind: str, where: str) -> None:
    """Fail unless ``value`` is of a type of the schema; objects of Kubernetes itself are not looked into."""
    if kind in _PLAIN:
        assert type(value) is _PLAIN[kind], f"{where}: expected {kind}, got {value!r}"
    elif of := re.fullmatch(r"list\[(.*)\]", kind):
        assert isinstance(value, list), where
        for number, each in enumerate(value):
            _check(each, of[1], f"{where}[{number}]")
    elif kind == "dict(str, str)":
        assert all(isinstance(each, str) for pair in value.items() for each in pair), where
    else:
        fields = _fields(kind)
        for name, each in value.items() if fields is not None else ():
            assert name in fields, f"{where}: {kind} has no field {name}"
            _check(each, fields[name], f"{where}.{name}")


def test_schema_is_that_of_kserve() -> None:
    """Installed by `make setup`; the check below would accept anything without it."""
    assert (_fields("V1alpha1ServingRuntimeSpec") or {})["containers"] == "list[V1Container]"
    with pytest.raises(AssertionError, match="no field multimodel"):
        _check({"spec": {"multimodel": False}}, "V1alpha1ServingRuntime", "")


@pytest.mark.parametrize("name", _RUNTIMES)
def test_runtimes_match_the_schema(name: str) -> None:
    """Names and types of all fields."""
    runtime = _RUNTIMES[name]
    assert (runtime["apiVersion"], runtime["kind"]) == ("serving.kserve.io/v1alpha1", "ServingRuntime")
    _check(runtime, "V1alpha1ServingRuntime", name)


def test_services_match_the_schema() -> None:
    """Those of the page, which use these runtimes."""
    assert len(_services()) == 4
    for service in _services():
        assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
        _check(service, "V1beta1InferenceService", service["metadata"]["name"])
        model = service["spec"]["predictor"]["model"]
        runtime = _RUNTIMES[model["runtime"]]["spec"]
        assert model["protocolVersion"] in runtime["protocolVersions"]
        assert model["modelFormat"]["name"] in [each["name"] for each in runtime["supportedModelFormats"]]


def test_containers_match_the_schema_of_kubernetes(tmp_path: Path) -> None:
    """As those of a pod, without unknown fields."""
    file = tmp_path / "pods.yaml"
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": each["spec"]["containers"]},
        }
        for name, each in _RUNTIMES.items()
    ]
    file.write_text(yaml.safe_dump_all(pods))
    command = [VALIDATE, "--kubernetes-version", VERSIONS[-1], "--strict", file]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr


def _arguments(runtime: str, name: str, mounted: Path) -> list[str]:
    """Return the arguments of a runtime's container after ``serve``, as KServe fills them in, for this machine."""
    command, *arguments = _RUNTIMES[runtime]["spec"]["containers"][0]["args"]
    assert command == "serve"
    filled = [each.replace("{{.Name}}", name).replace("/mnt/models", str(mounted)) for each in arguments]
    return [each.replace("0.0.0.0", "127.0.0.1") for each in filled]


def _stored(folder: Path, *paths: str) -> Path:
    """Put the built-in model at each of ``paths``, as the storage initializer does."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(demo.repository() / "1/model.onnx", folder / path)
    return folder


@pytest.mark.parametrize("path", ["net.onnx", "1/model.onnx", "digits/1/model.onnx", "digits/3/model.onnx"])
def test_layouts_of_one_model(tmp_path: Path, path: str) -> None:
    """Whatever the storage looks like, callers use the name of the InferenceService."""
    (argument,) = [
        each for each in _arguments("inferd", "mnist", _stored(tmp_path / "models", path)) if "mnist" in each
    ]
    paths = Settings.model_validate({"models": [argument.removeprefix("--model=")]}).models
    assert [source.name for source in resolve(paths)] == ["mnist"]


def test_several_models_need_the_other_runtime(tmp_path: Path) -> None:
    """The error names them."""
    models = _stored(tmp_path, "a/1/model.onnx", "b/1/model.onnx")
    with pytest.raises(RepositoryError, match="expected one model, found a, b"):
        resolve([Path(f"mnist={models}")])
    assert [source.name for source in resolve([models])] == ["a", "b"]


def test_command_line_of_a_container(tmp_path: Path) -> None:
    """It serves one downloaded file over both protocols, with the probes of the manifest."""
    models = _stored(tmp_path / "models", "net.onnx")
    with serving(*_arguments("inferd", "mnist", models)) as server, grpc.insecure_channel(server.grpc) as channel:
        stub = oip_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ModelReady(oip.ModelReadyRequest(name="mnist"), timeout=PATIENCE_S).ready
        container = _RUNTIMES["inferd-rest"]["spec"]["containers"][0]
        probes = [container[f"{name}Probe"]["httpGet"]["path"] for name in ("readiness", "liveness")]
        address = server.events("ready")[0]["http"]
        for path in (*probes, "/v2/models/mnist/ready"):
            with urlopen(f"http://{address}{path}", timeout=PATIENCE_S) as response:
                assert response.status == 200


@pytest.mark.parametrize("name", ["inferd", "inferd-repository"])
def test_ports_of_the_server(name: str) -> None:
    """Each runtime has the one port that KServe routes calls to, and metrics are where the annotation says."""
    settings = Settings().server
    over_grpc, over_http = _RUNTIMES[name]["spec"], _RUNTIMES[f"{name}-rest"]["spec"]
    assert (over_grpc["protocolVersions"], over_http["protocolVersions"]) == (["grpc-v2"], ["v2"])
    for spec, port in ((over_grpc, settings.grpc_port), (over_http, settings.http_port)):
        (container,) = spec["containers"]
        assert [each["containerPort"] for each in container["ports"]] == [port]
        probed = [container[f"{probe}Probe"] for probe in ("readiness", "liveness")]
        assert {next(iter(each.values()))["port"] for each in probed} == {port}
        assert spec["annotations"]["prometheus.kserve.io/port"] == str(settings.metrics_port)
    ours = {"protocolVersions", "containers"}
    assert {key: over_grpc[key] for key in over_grpc.keys() - ours} == {
        key: over_http[key] for key in over_http.keys() - ours
    }
