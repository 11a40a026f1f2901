"""Compare greedy answers in fp32 with those of llama.cpp on the same weights, which were dequantized for both.

``benchmarks/peers/llama_cpp/setup.sh`` installs llama.cpp; the weights are fetched and built where they are missing.
Prompts are pieces of the documentation. Prints how many answers are equal and, for each other one, how far the logits
of the two tokens are apart where it first differs: close ones are decided by the order of summation.
"""

import argparse
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from benchmarks.models import ROOT
from benchmarks.report import RESULTS, console
from benchmarks.servers import PEERS, VENVS
from inferd.config.settings import ModelSettings
from inferd.runtime.decoder import OnnxDecoder
from inferd.runtime.decoder_graph import read_decoder
from inferd.runtime.decoder_opening import open_decoder
from scripts.build_smollm2 import build, gguf_file
from scripts.llama_graph import GraphForm

_PROMPTS = 20
_TOKENS = 64
_CHUNK_TOKENS = 64

#: What llama.cpp ends an answer with: the end of a message and the end of a text.
_END_TOKENS = frozenset({0, 2})

_FOLDER = ROOT / ".cache" / "models" / "smollm2-fp32"


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two answers differ first: our logits of both tokens, and of our best two."""

    prompt: int
    position: int
    gap: float
    gap_of_best: float


def main() -> None:
    """Compare, print the result and write ``results/generation_exactness.json``."""
    options = _options()
    folder = build(options.model, GraphForm(weights="fp32"))
    prompts = _prompts(folder, options.prompts)
    theirs = _theirs(_dequantized(), prompts)
    decoder = _opened(folder)
    found = [_difference(decoder, number, prompts[number], theirs[number]) for number in range(len(prompts))]
    differences = [each for each in found if each is not None]
    output = console()
    output.print(f"{len(prompts) - len(differences)} of {len(prompts)} answers of up to {_TOKENS} tokens are equal")
    for each in differences:
        output.print(
            f"prompt {each.prompt} differs from token {each.position} on: the logits are {each.gap:.2g} apart, the "
            f"best two {each.gap_of_best:.2g}"
        )
    content = {
        "prompts": len(prompts),
        "equal": len(prompts) - len(differences),
        "tokens": sum(map(len, theirs)),
        "gaps": [each.gap for each in differences],
    }
    (RESULTS / "generation_exactness.json").write_text(json.dumps(content, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=_FOLDER, help="folder of the model in fp32")
    parser.add_argument("--prompts", type=int, default=_PROMPTS)
    return parser.parse_args()


def _prompts(folder: Path, count: int) -> list[list[int]]:
    """Return pieces of the documentation, from all over it."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "\n".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    ids = tokenizer.encode(text).ids
    step = (len(ids) - _TOKENS) // count
    return [ids[start : start + _TOKENS] for start in range(0, count * step, step)]


def _dequantized() -> Path:
    """Return the GGUF file with weights of 32 bits, which is written beside the other one once."""
    source = gguf_file()
    target = source.with_name(f"{source.stem}.converted.F32.gguf")
    if not target.exists():
        _run("convert.py", str(source), str(target), "F32")
    return target


def _theirs(gguf: Path, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    answers: list[list[int]] = json.loads(_run("greedy.py", str(gguf), str(_TOKENS), content=json.dumps(prompts)))
    return answers


def _run(script: str, *arguments: str, content: str = "") -> str:
    command = [str(VENVS / "llama_cpp" / "bin" / "python"), str(PEERS / "llama_cpp" / script), *arguments]
    done = subprocess.run(command, input=content, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1] if done.stdout else ""


def _opened(folder: Path) -> OnnxDecoder:
    path = folder / "model.onnx"
    form = read_decoder(path)
    assert form is not None, "a language model"
    settings = ModelSettings.model_validate({"generation": {"max_sequences": 1, "max_context_tokens": 512}})
    return open_decoder(path, settings, form)


def _difference(decoder: OnnxDecoder, number: int, prompt: Sequence[int], theirs: Sequence[int]) -> Difference | None:
    """Generate as inferd does, and return where the answer differs from ``theirs``; None if it does not."""
    ids = np.array(prompt)
    for start in range(0, len(ids), _CHUNK_TOKENS):
        logits = decoder.prefill(0, ids[start : start + _CHUNK_TOKENS], start)
    for position in range(_TOKENS):
        ours = int(logits.argmax())
        # They leave the end token out, and which one it would have been.
        their = theirs[position] if position < len(theirs) else min(_END_TOKENS, key=lambda token: -logits[token])
        if ours != their:
            best = np.sort(logits)[-2:]
            return Difference(number, position, float(logits[ours] - logits[their]), float(best[1] - best[0]))
        if ours in _END_TOKENS:
            return None
        logits = decoder.decode([ours], [len(prompt) + position])[0]
    return None


if __name__ == "__main__":
    main()
