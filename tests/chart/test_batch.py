"""The Job of an offline job, beside the server and without it."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from inferd.cli.entry import COMMANDS
from tests.chart.rendering import PATIENCE_S, VERSIONS, Object, Values, of_scenario, rendered
from tests.server import BIN

#: A job without further values.
BATCH: dict[str, Any] = {
    "enabled": True,
    "inputs": ["/data/rows"],
    "output": "/data/answers",
    "persistentVolumeClaim": {"claimName": "data"},
}


def _job(objects: dict[tuple[str, str], Object]) -> Object:
    (found,) = (each for (kind, _), each in objects.items() if kind == "Job")
    return found


def _of(batch: Values, *, version: str = VERSIONS[-1], **values: Any) -> Object:
    """Return the Job of a release with these values of batch, and others."""
    return _job(rendered({"batch": {**BATCH, **batch}, **values}, version=version))


def test_job_without_a_server() -> None:
    """Without anything that belongs to a server; each pod gets the share of its index, of one output."""
    objects = of_scenario("batch")
    job = _job(objects)
    name = job["metadata"]["name"]
    assert re.fullmatch("rel-inferd-batch-[0-9a-f]{8}", name)
    assert set(objects) == {
        ("ConfigMap", "rel-inferd"),
        ("Job", name),
        ("NetworkPolicy", "rel-inferd-batch"),
        ("ServiceAccount", "rel-inferd"),
    }
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 120)
    (container,) = pod["containers"]
    arguments = container["args"]
    assert container["command"] == ["inferd"]
    assert arguments[0] in COMMANDS
    assert arguments[arguments.index("--index") + 1] == "$(JOB_COMPLETION_INDEX)"
    assert arguments[arguments.index("--indexes") + 1] == "3"
    assert "--accept-errors" in arguments
    assert arguments[-4:] == ["--", "/models/volume/resnet", "/data/pictures", "/data/labels"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts["/models/volume"]["readOnly"] is True
    assert mounts["/data"] == {"name": "batch-data", "mountPath": "/data"}
    # Its pods are called by nobody, and belong to no Service, monitor or budget.
    labels = spec["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "inferd-batch"
    policy = objects["NetworkPolicy", "rel-inferd-batch"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["ingress"] == []


def test_costs_of_failures() -> None:
    """Stops by others count as no try, invalid arguments are those of all indexes; each index has its own tries."""

    def actions(spec: Object) -> dict[int | str, str]:
        return {
            code: rule["action"]
            for rule in spec["podFailurePolicy"]["rules"]
            for code in rule.get("onExitCodes", {}).get("values", ["disruption"])
        }

    spec = _of({}, version="1.29")["spec"]
    assert actions(spec) == {"disruption": "Ignore", 130: "Ignore", 2: "FailJob", 3: "FailIndex"}
    assert spec["backoffLimitPerIndex"] == 3
    assert not {"backoffLimit", "maxFailedIndexes", "ttlSecondsAfterFinished"} & set(spec)
    before = _of({"failOnRowErrors": True}, version="1.28")["spec"]
    assert actions(before) == {"disruption": "Ignore"}
    assert before["backoffLimit"] == 3
    assert not {"backoffLimitPerIndex", "maxFailedIndexes"} & set(before)
    assert "--accept-errors" not in before["template"]["spec"]["containers"][0]["args"]


def test_job_beside_a_server() -> None:
    """It has the server's pod, without its callers' certificates and replicas' claims, and with its own values."""
    objects = of_scenario("everything")
    spec = _job(objects)["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimitPerIndex"]) == (8, 4, 2)
    assert (spec["maxFailedIndexes"], spec["ttlSecondsAfterFinished"]) == (0, 86400)
    assert [each["name"] for each in pod["initContainers"]] == ["fetch-models", "wait"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {"model-volume", "fetched-models", "model-image", "extra", "inputs", "batch-data"} <= volumes
    assert not {"tls", "tokens", "policy", "jwks", "models-state", "cache", "state"} & volumes
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert {"emptyDir": {"sizeLimit": "10Gi"}, "name": "models-cache"} in pod["volumes"]
    assert {"TZ", "AWS_REGION", "AWS_DEFAULT_REGION"} <= {each["name"] for each in container["env"]}
    assert {"secretRef": {"name": "bucket"}} in container["envFrom"]
    # The batches run on the server, which has the GPU.
    assert container["args"][-6:-5] == ["/etc/ca/ca.crt"]
    assert "dns:///rel-models-headless.ns.svc:8001" in container["args"]
    assert container["resources"] == {"requests": {"cpu": "8"}, "limits": {"memory": "16Gi"}}
    assert (pod["priorityClassName"], pod["nodeSelector"]) == ("offline", {"capacity": "spot"})
    assert [each["key"] for each in pod["tolerations"]] == ["spot"]
    assert "topologySpreadConstraints" not in pod
    callers = objects["NetworkPolicy", "rel-models"]["spec"]["ingress"][0]["from"]
    assert objects["NetworkPolicy", "rel-models-batch"]["spec"]["podSelector"] in [
        each.get("podSelector") for each in callers
    ]


def test_batches_in_the_pods_have_gpus() -> None:
    """As many as the server's."""
    pod = _of({"only": True}, gpu={"count": 2, "runtimeClassName": "nvidia"})["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert pod["runtimeClassName"] == "nvidia"
    assert [each["key"] for each in pod["tolerations"]] == ["nvidia.com/gpu"]


def test_changed_values_make_a_new_job() -> None:
    """Kubernetes refuses to change one; the number of pods at a time it can change."""

    def name(batch: Values, **values: Any) -> str:
        return str(_of({"indexes": 4, **batch}, **values)["metadata"]["name"])

    plain = name({})
    assert name({"parallelism": 2, "ttlSecondsAfterFinished": 60}) == plain
    others = [name({"inputs": ["/data/more"]}), name({"indexes": 5}), name({}, config={"log": {"level": "debug"}})]
    assert len({plain, *others}) == 4


def test_host_names_of_pods_are_short_enough() -> None:
    """Kubernetes refuses a Job if the name of its last pod were longer than 63 letters."""
    name = _of({"indexes": 100_000}, fullnameOverride="a" * 63)["metadata"]["name"]
    assert len(f"{name}-99999") <= 63


def test_three_indices_write_what_one_does(tmp_path: Path) -> None:
    """The command of the Job, as three processes at once and as one, with a row that has no answer."""
    pictures = np.random.default_rng(1).integers(0, 17, (400, 64)).astype(np.float32).tolist()
    pq.write_table(pa.table({"X": [*pictures, None], "id": range(401)}), tmp_path / "rows.parquet")

    def answers(indexes: int) -> dict[str, bytes]:
        folder = tmp_path / f"by-{indexes}"
        objects = rendered(
            {
                "batch": {
                    **BATCH,
                    "inputs": [str(tmp_path / "rows.parquet")],
                    "output": str(folder),
                    "indexes": indexes,
                    "extraArgs": ["--join", "id", "--batch-rows=16", "--look-ahead=32", "--part-rows=50"],
                    "extraVolumeMounts": [{"name": "data", "mountPath": str(tmp_path)}],
                    "extraVolumes": [{"name": "data", "emptyDir": {}}],
                }
            }
        )
        settings = tmp_path / "inferd.yaml"
        settings.write_text(objects["ConfigMap", "rel-inferd"]["data"]["inferd.yaml"])
        (container,) = _job(objects)["spec"]["template"]["spec"]["containers"]
        arguments = [each.replace("/etc/inferd/config/inferd.yaml", str(settings)) for each in container["args"]]
        processes = [
            subprocess.Popen(
                [BIN / "inferd", *(each.replace("$(JOB_COMPLETION_INDEX)", str(index)) for each in arguments)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            for index in range(indexes)
        ]
        for process in processes:
            _, errors = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, errors
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    by_one, by_three = answers(1), answers(3)
    assert by_three == by_one
    assert len([name for name in by_one if name.endswith(".parquet")]) == 9
    (line,) = by_one["_inferd/errors.jsonl"].splitlines()
    assert json.loads(line)["row"] == 400
