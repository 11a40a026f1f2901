"""Renders the chart for tests."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from inferd.config.yaml_text import read_yaml
from tests.server import ROOT

CHART = ROOT / "helm/inferd"
SCENARIOS = sorted(file.name.removesuffix("-values.yaml") for file in (CHART / "ci").glob("*-values.yaml"))
HELMS = ("helm3", "helm4")
VERSIONS = [f"1.{minor}" for minor in range(28, 38)]

#: Timeout of a command, which is exceeded only if it hangs.
PATIENCE_S = 600

#: Minimum version of Kubernetes for a scenario, if it is not the chart's minimum.
NEEDS = {"everything": "1.31"}

Values = dict[str, Any]
Object = dict[str, Any]


class RefusedError(Exception):
    """Helm rejected the values; the text has the reason."""


def scenario(name: str) -> Path:
    """Return the file with the values of a scenario."""
    return CHART / "ci" / f"{name}-values.yaml"


def helm(binary: str, *arguments: str | Path, values: Values | None = None) -> str:
    """Run helm and return its output. Raises `RefusedError`."""
    command = [str(ROOT / ".tools/bin" / binary), *map(str, arguments)]
    if values is not None:
        # JSON is YAML.
        command += ["--values", "-"]
    done = subprocess.run(
        command, check=False, input=json.dumps(values), capture_output=True, text=True, timeout=PATIENCE_S
    )
    if done.returncode != 0:
        raise RefusedError(done.stderr)
    return done.stdout


def template(
    *arguments: str | Path,
    binary: str = "helm4",
    version: str = VERSIONS[-1],
    release: str = "rel",
    values: Values | None = None,
) -> str:
    """Render the chart as ``release`` in namespace ``ns``."""
    command = ("template", release, CHART, "--namespace", "ns", "--kube-version", f"{version}.0", *arguments)
    return helm(binary, *command, values=values)


def parsed(text: str) -> dict[tuple[str, str], Object]:
    """Return objects by kind and name. Duplicate keys are rejected, as by Flux."""
    objects = [each for _, each in map(read_yaml, re.split("^---$", text, flags=re.MULTILINE)) if each]
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects), "two objects have the same name"
    return found


def rendered(values: Values | None = None, *arguments: str, **options: str) -> dict[tuple[str, str], Object]:
    """Render with ``values`` only."""
    return parsed(template(*arguments, values=values or {}, **options))


def of_scenario(name: str) -> dict[tuple[str, str], Object]:
    """Render a scenario."""
    return parsed(template("--values", scenario(name)))


def pod(objects: dict[tuple[str, str], Object]) -> Object:
    """Return the specification of the server's pods."""
    (workload,) = (each for (kind, _), each in objects.items() if kind in {"Deployment", "StatefulSet"})
    return workload["spec"]["template"]["spec"]


def container(objects: dict[tuple[str, str], Object]) -> Object:
    """Return the server's container."""
    return pod(objects)["containers"][0]


def server_settings(objects: dict[tuple[str, str], Object], name: str = "rel-inferd") -> dict[str, Any]:
    """Return the server's configuration file."""
    return yaml.safe_load(objects["ConfigMap", name]["data"]["inferd.yaml"])
