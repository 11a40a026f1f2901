"""The servers that can be measured: their command and their protocol."""

import json
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime

from benchmarks.http_wires import Echo, Rest, answer_bytes
from benchmarks.models import ROOT, Model
from benchmarks.streams import StreamInfer
from benchmarks.wires import JsonHttp, OpenInference, OpenInferenceByGrpcload, RawHttp, Wire
from inferd import dtypes

PEERS = Path(__file__).resolve().parent / "peers"
VENVS = ROOT / ".venv" / "peers"
#: Batch size of every server that has such a setting; inferd's default.
MAX_BATCH_SIZE = 64

_TRITON_TYPES = {dtype.onnx: f"TYPE_{dtype.name}" for dtype in dtypes.ALL}


@dataclass(frozen=True, slots=True)
class Setting:
    """Threads of ONNX Runtime in one run, and runs at a time. Written ``2x1``."""

    threads: int
    instances: int

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """Read ``THREADSxINSTANCES``."""
        threads, _, instances = text.partition("x")
        return cls(int(threads), int(instances))

    def __str__(self) -> str:
        """Write ``THREADSxINSTANCES``."""
        return f"{self.threads}x{self.instances}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What to serve. ``folder`` is an empty directory of the server. Without a ``setting``, it has its defaults."""

    model: Model
    setting: Setting | None
    port: int
    folder: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """How a server is started.

    ``leaves``: prefix of the files that it leaves in shared memory if it is killed.
    """

    command: list[str]
    environment: dict[str, str]
    leaves: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """A server and a protocol. ``needs`` is a file that exists if the server is installed."""

    name: str
    wire: Wire
    launch: Callable[[Job], Launch]
    needs: Path

    @property
    def ours(self) -> bool:
        """Whether this is inferd."""
        return self.launch in (launch_inferd, launch_over_http)

    @property
    def missing(self) -> str | None:
        """A message if it is not installed, else empty."""
        return None if self.needs.exists() else f"not installed: {self.needs.relative_to(ROOT)} is missing"


def launch_inferd(job: Job) -> Launch:
    """Return how to start inferd from this tree."""
    return launch_tree(ROOT, job)


def launch_tree(tree: Path, job: Job) -> Launch:
    """Return how to start inferd from ``tree``, which may be an older one."""
    command = [sys.executable, "-m", "inferd", "serve", str(job.model.folder)]
    command += ["--grpc-port", str(job.port), "--metrics-port", "0", *without_http(tree)]
    return Launch(command=command, environment=_our_environment(job) | {"PYTHONPATH": str(tree)})


def launch_over_http(job: Job) -> Launch:
    """Return how to start inferd from this tree with inference over HTTP on the port beside the given one."""
    command = [sys.executable, "-m", "inferd", "serve", str(job.model.folder), "--grpc-port", str(job.port)]
    command += ["--http-port", str(job.port + 1), "--metrics-port", "0"]
    return Launch(command=command, environment=_our_environment(job))


def _echo(job: Job) -> Launch:
    """Return how to start an echo of the library that inferd uses."""
    size = str(answer_bytes(job.model))
    command = [sys.executable, "-m", "benchmarks.baselines.http_echo", str(job.port), "--answer-bytes", size]
    return Launch(command=command, environment=_our_environment(job))


def without_http(tree: Path) -> list[str]:
    """Return the flags that switch HTTP off, which older trees do not have."""
    has_http = "http_port" in (tree / "inferd" / "config" / "server.py").read_text()
    return ["--http-port", "none"] if has_http else []


def _baseline(name: str) -> Callable[[Job], Launch]:
    """Return how to start inferd's handlers on one of grpcio's servers."""

    def launch(job: Job) -> Launch:
        command = [sys.executable, "-m", f"benchmarks.baselines.{name}", str(job.model.folder), str(job.port)]
        return Launch(command=command, environment=_our_environment(job))

    return launch


def _our_environment(job: Job) -> dict[str, str]:
    environment = {"PYTHONPATH": str(ROOT)}
    if job.setting:
        environment["INFERD_RUNTIME__INTRA_OP_THREADS"] = str(job.setting.threads)
        environment["INFERD_BATCHING__INSTANCES"] = str(job.setting.instances)
    return environment


def _python(name: str) -> Callable[[Job], Launch]:
    """Return how to start ``peers/NAME/server.py`` in its virtual environment."""

    def launch(job: Job) -> Launch:
        command = [str(_program(name, "python")), str(PEERS / name / "server.py")]
        return Launch(command=command, environment=_environment(job))

    return launch


def _mlserver(job: Job) -> Launch:
    instances = job.setting.instances if job.setting else 1
    settings = {
        "host": "127.0.0.1",
        "grpc_port": job.port,
        "http_port": job.port + 1,
        "metrics_endpoint": None,
        # 0 means in the server's process: a single worker would only add a hop.
        "parallel_workers": instances if instances > 1 else 0,
        "debug": False,
    }
    model = {
        "name": job.model.served_as,
        "implementation": "server.Inference",
        "max_batch_size": MAX_BATCH_SIZE,
        # Batching delay in seconds.
        "max_batch_time": 0.001,
    }
    (job.folder / "settings.json").write_text(json.dumps(settings))
    (job.folder / "model-settings.json").write_text(json.dumps(model))
    command = [str(_program("mlserver")), "start", str(job.folder)]
    return Launch(command=command, environment=_environment(job) | {"PYTHONPATH": f"{PEERS}:{PEERS / 'mlserver'}"})


def _bentoml(job: Job) -> Launch:
    command = [str(_program("bentoml", "bentoml")), "serve", "server:Inference", "--port", str(job.port)]
    command += ["--host", "127.0.0.1", "--working-dir", str(PEERS / "bentoml"), "-q"]
    environment = {"BENTOML_HOME": str(job.folder), "BENTOML_DO_NOT_TRACK": "true"}
    return Launch(command=command, environment=_environment(job) | environment)


def _environment(job: Job) -> dict[str, str]:
    setting = job.setting or Setting(1, 1)
    return {
        "BENCH_MODEL": str(job.model.path),
        "BENCH_MODEL_NAME": job.model.served_as,
        "BENCH_ROW_SHAPE": ",".join(map(str, next(iter(job.model.rows()[0].values())).shape)),
        "BENCH_PORT": str(job.port),
        "BENCH_THREADS": str(setting.threads),
        "BENCH_INSTANCES": str(setting.instances),
        "BENCH_MAX_BATCH_SIZE": str(MAX_BATCH_SIZE),
        "PYTHONPATH": str(PEERS),
    }


def _triton_over_http(job: Job) -> Launch:
    """Return how to start Triton with HTTP on the port beside the given one."""
    launch = _triton(job)
    http = ["--allow-http", "true", "--http-address", "127.0.0.1", "--http-port", str(job.port + 1)]
    return replace(launch, command=[*launch.command, *http])


def _triton(job: Job) -> Launch:
    home = VENVS / "triton"
    server = home / "pytriton" / "tritonserver"
    version = job.folder / "models" / job.model.served_as / "1"
    version.mkdir(parents=True)
    (version / "model.py").symlink_to(PEERS / "triton" / "model.py")
    (version.parent / "config.pbtxt").write_text(_triton_config(job))
    command = [str(server / "bin" / "tritonserver"), "--model-repository", str(job.folder / "models")]
    command += ["--backend-directory", str(server / "backends"), "--grpc-port", str(job.port)]
    shared_memory = f"benchmark_{job.port}_"
    command += [f"--backend-config=python,shm-region-prefix-name={shared_memory}"]
    command += ["--grpc-address", "127.0.0.1", "--allow-metrics", "false"]
    packages = next((home / "lib").glob("python*/site-packages"))
    environment = _environment(job) | {
        "LD_LIBRARY_PATH": f"{home / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}",
        "BENCH_PATH": f"{packages}:{PEERS}",
    }
    return Launch(command=command, environment=environment, leaves=shared_memory)


def _triton_over_grpc(job: Job) -> Launch:
    launch = _triton(job)
    return replace(launch, command=[*launch.command, "--allow-http", "false"])


def _triton_config(job: Job) -> str:
    session = onnxruntime.InferenceSession(str(job.model.path), providers=["CPUExecutionProvider"])

    def tensor(kind: str, node: onnxruntime.NodeArg) -> str:
        dims = ", ".join(str(size) if isinstance(size, int) else "-1" for size in node.shape[1:])
        # Rows are scalars here, which Triton writes like this.
        shape = f"dims: [{dims}]" if dims else "dims: [1] reshape { shape: [] }"
        return f'{kind} [{{ name: "{node.name}" data_type: {_TRITON_TYPES[node.type]} {shape} }}]'

    count = job.setting.instances if job.setting else 1
    lines = [
        f'name: "{job.model.served_as}"',
        'backend: "python"',
        f"max_batch_size: {MAX_BATCH_SIZE}",
        *(tensor("input", node) for node in session.get_inputs()),
        *(tensor("output", node) for node in session.get_outputs()),
        f"instance_group [{{ count: {count} kind: KIND_CPU }}]",
        "dynamic_batching { }",
    ]
    return "\n".join(lines) + "\n"


#: Servers without the ModelConfig call that perf_analyzer needs.
_GRPCLOAD = OpenInferenceByGrpcload()


def _program(name: str, program: str = "") -> Path:
    """Return a program of a peer's virtual environment, by default the one with the peer's name."""
    return VENVS / name / "bin" / (program or name)


_TRITON = VENVS / "triton" / "pytriton" / "tritonserver" / "bin" / "tritonserver"
_OURS = Path(sys.executable)

#: By name, in the order of measurement.
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(name="inferd", wire=OpenInference(), launch=launch_inferd, needs=_OURS),
        Contender(name="inferd-stream", wire=OpenInference(streaming=True), launch=launch_inferd, needs=_OURS),
        Contender(name="inferd-stream-own", wire=StreamInfer(packed=False), launch=launch_inferd, needs=_OURS),
        Contender(name="inferd-packed", wire=StreamInfer(packed=True), launch=launch_inferd, needs=_OURS),
        Contender(name="triton", wire=OpenInference(), launch=_triton_over_grpc, needs=_TRITON),
        Contender(name="triton-stream", wire=OpenInference(streaming=True), launch=_triton_over_grpc, needs=_TRITON),
        Contender(name="grpc.aio", wire=OpenInference(), launch=_baseline("aio"), needs=_OURS),
        Contender(name="grpc.server", wire=OpenInference(), launch=_baseline("sync"), needs=_OURS),
        Contender(name="mosec", wire=RawHttp("/inference"), launch=_python("mosec"), needs=_program("mosec")),
        Contender(name="mlserver", wire=_GRPCLOAD, launch=_mlserver, needs=_program("mlserver")),
        Contender(name="kserve", wire=_GRPCLOAD, launch=_python("kserve"), needs=_program("kserve", "uvicorn")),
        Contender(name="litserve", wire=RawHttp("/predict"), launch=_python("litserve"), needs=_program("litserve")),
        Contender(name="bentoml", wire=JsonHttp("/infer"), launch=_bentoml, needs=_program("bentoml")),
        Contender(
            name="ray-serve", wire=RawHttp("/"), launch=_python("ray_serve"), needs=_program("ray_serve", "serve")
        ),
        Contender(name="inferd-http", wire=Rest(), launch=launch_over_http, needs=_OURS),
        Contender(name="echo", wire=Echo(), launch=_echo, needs=_OURS),
        Contender(name="triton-http", wire=Rest(), launch=_triton_over_http, needs=_TRITON),
        Contender(name="kserve-http", wire=Rest(), launch=_python("kserve"), needs=_program("kserve", "uvicorn")),
        Contender(name="mlserver-http", wire=Rest(binary=False), launch=_mlserver, needs=_program("mlserver")),
    )
}


def by_grpcload(contender: Contender) -> Contender:
    """Return the same with load from grpcload, if its protocol is Open Inference."""
    wire = contender.wire
    return replace(contender, wire=wire.by_grpcload) if isinstance(wire, OpenInference) else contender
