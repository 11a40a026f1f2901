"""Language models under loads that they cannot serve: overload, cancels, callers that do not read, a stop signal.

Without ``--model`` a tiny random one is served. Trials:

- *overload*: ten times as many requests as can be served, in an open loop with deadlines. Of those that were admitted,
  how many were complete in time; by how much the resident set grew; what retries found that came after their hints.
- *cancels*: callers that go away at random moments, over gRPC and HTTP, and what is left of them.
- *readers*: tokens per second of others beside callers that never read, over those beside callers that read, in pairs.
- *drain*: a stop signal while answers are streamed over gRPC, server-sent events and Triton's stream.
"""

import argparse
import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import machine
from benchmarks.bounded import cancels, drains, overload, slow_readers
from benchmarks.bounded.target import Target, serving
from benchmarks.report import RESULTS, console
from tests.decoder_models import write_tiny_decoder

_TRIALS = ("overload", "cancels", "readers", "drain")
_CONTEXT = 4096
#: Of the tiny model: so many that one process can ask for ten times what is served, or few, for many quick answers.
_LAYERS, _FEW_LAYERS = 16, 2


def main() -> None:
    """Run the trials, print their figures and write ``results/generation_overload.json``."""
    options = _options()
    output, figures = console(), {}
    with TemporaryDirectory() as folder:
        for trial in options.only or _TRIALS:
            model = options.model or _tiny(Path(folder) / trial, _FEW_LAYERS if trial == "cancels" else _LAYERS)
            # Each has a server of its own, so that what one leaves does not count as another's.
            with serving(model, *options.set) as target:
                figures[trial] = asyncio.run(_measure(trial, target, options))
            output.print(trial, figures[trial])
    content = {"machine": machine.describe(), "model": str(options.model or "tiny"), "trials": figures}
    (RESULTS / f"{options.name}.json").write_text(json.dumps(content, indent=1) + "\n")


def _tiny(folder: Path, layers: int) -> Path:
    write_tiny_decoder(folder, context=_CONTEXT, layers=layers)
    return folder


async def _measure(trial: str, target: Target, options: argparse.Namespace) -> dict[str, object]:
    if trial == "overload":
        return await overload.measure(
            target,
            seconds=options.seconds,
            times=options.times,
            timeout_s=options.timeout_s,
            capacity_s=options.capacity_s,
        )
    if trial == "cancels":
        return await cancels.measure(target, count=options.cancels)
    if trial == "readers":
        return await slow_readers.measure(
            target, rounds=options.rounds, seconds=options.round_s, tokens=options.unread_tokens
        )
    return await drains.measure(target, callers=options.callers)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a version of a language model")
    parser.add_argument("--only", action="append", choices=_TRIALS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload")
    parser.add_argument("--times", type=int, default=1, help="that the overload is repeated, for the resident set")
    parser.add_argument("--timeout-s", type=float, default=5.0, help="deadline of each request then")
    parser.add_argument("--capacity-s", type=float, default=12.0, help="for finding out how much can be served")
    parser.add_argument("--cancels", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5, help="pairs beside callers that read, and that do not")
    parser.add_argument("--round-s", type=float, default=4.0)
    parser.add_argument("--unread-tokens", type=int, default=4000, help="of each answer that nobody reads")
    parser.add_argument("--callers", type=int, default=16, help="over each protocol at the stop signal")
    parser.add_argument("--name", default="generation_overload", help="of the file with the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
