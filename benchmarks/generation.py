"""Measure language models: inferd over gRPC and HTTP, beside llama.cpp, onnxruntime-genai, OpenVINO and a static batch.

``benchmarks/peers/setup_all.sh`` installs the peers, and ``scripts/build_smollm2.py`` writes the model, whose weights
all of them have. Cases are those of ``benchmarks/peers/generation_load.py``. Each round visits all systems, and each
system runs all cases. ``--program NAME COMMAND`` adds another one: a command that prints a line of JSON for each case,
with the cases appended.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.table import Table

from benchmarks import generation_clients, machine
from benchmarks.generation_clients import MODEL
from benchmarks.models import ROOT
from benchmarks.peers.generation_load import WARM_UP, Case, Start, run
from benchmarks.process import Server, free_port
from benchmarks.report import RESULTS, console
from benchmarks.servers import PEERS, VENVS

_CASES = ("1", "16", "mix16")
_TIMEOUT_S = 900

Figures = dict[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """The same weights for all: the folder of inferd's model, and GGUF files."""

    folder: Path
    q4_0: Path
    q8_0: Path


#: Runs cases and returns their figures.
Runner = Callable[[Weights, Sequence[str]], list[Figures]]


@dataclass(frozen=True, slots=True)
class System:
    """Something that generates; ``needs`` exists if it is installed."""

    name: str
    run: Runner
    needs: Path = ROOT


def main() -> None:
    """Measure, print a table and write ``results/generation.json``."""
    options = _options()
    weights = _weights(options.model, options.gguf)
    systems = [*_systems(options.set), *(System(name, _program(command)) for name, command in options.program)]
    programs = {name for name, _ in options.program}
    chosen = [each for each in systems if not options.system or each.name in {*options.system, *programs}]
    output, samples = console(), Samples()
    for number in range(options.rounds):
        for system in chosen:
            if not system.needs.exists():
                output.print(f"{system.name}: not installed: {system.needs} is missing")
                continue
            for figures in system.run(weights, options.case):
                samples.add(system.name, figures)
                output.print(f"round {number + 1}", system.name, _text(figures))
    output.print(samples.table())
    content = {"machine": machine.describe(), "samples": samples.all}
    (RESULTS / f"{options.name}.json").write_text(json.dumps(content, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder that scripts/build_smollm2.py has written")
    parser.add_argument("--gguf", type=Path, help="the GGUF file with the same weights, for the peers")
    parser.add_argument("--case", action="append", help=f"by default {', '.join(_CASES)}")
    parser.add_argument("--system", action="append", help="measure only these")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of another server of inferd")
    parser.add_argument("--program", nargs=2, action="append", default=[], metavar=("NAME", "COMMAND"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="generation", help="of the file with the results")
    options = parser.parse_args()
    options.case = options.case or list(_CASES)
    return options


def _weights(folder: Path, gguf: Path | None) -> Weights:
    """Return the weights in the formats of the peers, which are written beside the GGUF file once."""
    if gguf is None:
        return Weights(folder=folder, q4_0=Path("none"), q8_0=Path("none"))
    made = {kind: gguf.with_name(f"{gguf.stem}.converted.{kind}.gguf") for kind in ("Q4_0", "Q8_0")}
    for kind, path in made.items():
        if not path.exists():
            python = VENVS / "llama_cpp" / "bin" / "python"
            command = [str(python), str(PEERS / "llama_cpp" / "convert.py"), str(gguf), str(path), kind]
            subprocess.run(command, check=True)
    return Weights(folder=folder, q4_0=made["Q4_0"], q8_0=made["Q8_0"])


def _systems(settings: Sequence[str]) -> list[System]:
    return [
        System("inferd", _inferd(generation_clients.over_grpc, ())),
        System("inferd, sampled", _inferd(generation_clients.over_grpc_sampled, ())),
        System("inferd, OpenAI", _inferd(generation_clients.over_openai, ())),
        *([System("inferd, set", _inferd(generation_clients.over_grpc, settings))] if settings else []),
        System("in process", _baseline("continuous")),
        System("static batching", _baseline("static")),
        System("llama.cpp Q4_0", _llama("q4_0"), VENVS / "llama_cpp"),
        System("llama.cpp Q8_0", _llama("q8_0"), VENVS / "llama_cpp"),
        System("onnxruntime-genai", _peer("onnxruntime_genai", "folder"), VENVS / "onnxruntime_genai"),
        System("OpenVINO GenAI Q8_0", _peer("openvino_genai", "q8_0"), VENVS / "openvino_genai"),
    ]


def _inferd(connect: Callable[[int, int], Start], settings: Sequence[str]) -> Runner:
    """Return a runner of inferd; ``connect`` is given the ports of gRPC and HTTP."""

    def measure(weights: Weights, cases: Sequence[str]) -> list[Figures]:
        with serving(weights.folder, settings) as (grpc_port, http_port):
            start = connect(grpc_port, http_port)
            return _all(cases, start)

    return measure


@contextmanager
def serving(folder: Path, settings: Sequence[str] = (), others: Sequence[str] = ()) -> Iterator[tuple[int, int]]:
    """Serve the model in ``folder`` and ``others``, as NAME=PATH; return the ports of gRPC and HTTP."""
    grpc_port, http_port = free_port(), free_port()
    command = [sys.executable, "-m", "inferd", "serve", f"{MODEL}={folder}", *others, "--grpc-port", str(grpc_port)]
    command += ["--http-port", str(http_port), "--metrics-port", "0", *(f"--set={setting}" for setting in settings)]
    with TemporaryDirectory() as name, Server(command, {"PYTHONPATH": str(ROOT)}, Path(name)) as server:
        server.wait_ready(lambda: generation_clients.check(grpc_port))
        yield grpc_port, http_port


def _all(cases: Sequence[str], start: Start) -> list[Figures]:
    run(Case.named(WARM_UP), start)
    return [run(Case.named(name), start) for name in cases]


def _baseline(kind: str) -> Runner:
    def measure(weights: Weights, cases: Sequence[str]) -> list[Figures]:
        command = [sys.executable, "-m", "benchmarks.baselines.generation_loop", str(weights.folder), kind]
        return _lines([*command, *cases])

    return measure


def _program(command: str) -> Runner:
    def measure(_: Weights, cases: Sequence[str]) -> list[Figures]:
        return _lines([*shlex.split(command), *cases])

    return measure


def _peer(name: str, weights_field: str) -> Runner:
    def measure(weights: Weights, cases: Sequence[str]) -> list[Figures]:
        python = VENVS / name / "bin" / "python"
        return _lines([str(python), str(PEERS / name / "run.py"), str(getattr(weights, weights_field)), *cases])

    return measure


def _llama(weights_field: str) -> Runner:
    """Return a runner of llama.cpp's server, which has as many sequences as a case has requests in flight."""

    def measure(weights: Weights, cases: Sequence[str]) -> list[Figures]:
        return [
            _llama_case(getattr(weights, weights_field), name, min(Case.named(name).in_flight, 32)) for name in cases
        ]

    return measure


def _llama_case(path: Path, name: str, sequences: int) -> Figures:
    port = free_port()
    python = VENVS / "llama_cpp" / "bin" / "python"
    command = [str(python), str(PEERS / "llama_cpp" / "server.py"), str(path), str(sequences), str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None, "a pipe"
        assert server.stdin is not None, "a pipe"
        for line in server.stdout:
            if line.startswith(b"listening"):
                break
        try:
            (figures,) = _all([name], generation_clients.over_llama_cpp(port))
        finally:
            server.stdin.close()
    return figures


def _lines(command: Sequence[str]) -> list[Figures]:
    """Return the figures that a command prints, a line of JSON for each case."""
    environment_path = f"{ROOT}:{PEERS}"
    done = subprocess.run(
        ["env", f"PYTHONPATH={environment_path}", *command],
        stdout=subprocess.PIPE,
        text=True,
        timeout=_TIMEOUT_S,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@dataclass(slots=True)
class Samples:
    """The figures of all rounds."""

    all: list[Figures] = field(default_factory=list)

    def add(self, system: str, figures: Figures) -> None:
        """Add those of one case."""
        self.all.append({"system": system, **figures})

    def median(self, system: object, case: object, name: str) -> float | None:
        """Return the median of a figure over the rounds; None if there is none."""
        values = [each[name] for each in self.all if each["system"] == system and each["case"] == case]
        found = [float(value) for value in values if isinstance(value, int | float)]
        return median(found) if found else None

    def table(self) -> Table:
        """Return the medians, and inferd's throughput over that of each system in the same rounds."""
        columns = ("case", "system", "tokens/s", "inferd over it", "first p50 ms", "p99", "between p50 ms", "p99")
        table = Table(*columns, title="generation")
        for case in dict.fromkeys(each["case"] for each in self.all):
            ours = self.median("inferd", case, "tokens_per_s")
            for system in dict.fromkeys(each["system"] for each in self.all if each["case"] == case):
                rate = self.median(system, case, "tokens_per_s")
                ratio = f"{ours / rate:.2f}" if ours and rate else ""
                names = ("first_p50_ms", "first_p99_ms", "between_p50_ms", "between_p99_ms")
                latencies = (self.median(system, case, name) for name in names)
                table.add_row(
                    str(case), str(system), f"{rate or 0:.0f}", ratio, *(f"{value or 0:.0f}" for value in latencies)
                )
        return table


def _text(figures: Figures) -> str:
    shown = (
        f"{name} {value:.1f}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
    )
    return ", ".join(shown)


if __name__ == "__main__":
    main()
