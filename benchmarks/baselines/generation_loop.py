"""Loops around inferd's decoder, in process: generation_loop FOLDER continuous|static CASE...

``static``: sequences begin together, when all of the batch before have ended, and those that end leave. ``continuous``:
the least that an engine has to do, without sampling, text, limits or a wire. Both greedy.
"""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.peers.generation_load import WARM_UP, Case, Record, report, run
from inferd.config.generation import GenerationSettings
from inferd.config.settings import ModelSettings
from inferd.runtime.decoder import OnnxDecoder
from inferd.runtime.decoder_graph import read_decoder
from inferd.runtime.decoder_opening import open_decoder

_CHUNK = 64
_MOST = 32


class Running:
    """A sequence in the slot of its place in the batch."""

    def __init__(self, prompt: Sequence[int], new: int, record: Record) -> None:
        self.prompt = np.array(prompt)
        self.left = new
        self.record = record
        self.past = 0
        self.last = 0

    def take(self, token: int) -> bool:
        """Add a generated token; return whether it was the last one."""
        self.last = token
        self.left -= 1
        self.record.tokens(1)
        if self.left == 0:
            self.record.done()
        return self.left == 0


class Loop:
    """A thread that generates for what waits, at most ``most`` sequences at a time."""

    def __init__(self, decoder: OnnxDecoder, most: int, *, is_static: bool) -> None:
        self._decoder = decoder
        self._most = most
        self._is_static = is_static
        self._changed = threading.Condition()
        self._waiting: list[Running] = []
        self._running: list[Running] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def start(self, prompt: Sequence[int], new: int, record: Record) -> None:
        """Begin a request."""
        with self._changed:
            self._waiting.append(Running(prompt, new, record))
            self._changed.notify()

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._running or self._is_over)
                if self._is_over:
                    return
            if not (self._is_static and self._running):
                self._admit()
            if self._running:
                self._step()

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._most:
            self._prefill(self._waiting.pop(0))
            if not self._is_static:
                return

    def _prefill(self, sequence: Running) -> None:
        for begin in range(0, len(sequence.prompt), _CHUNK):
            if begin and self._running:
                self._step()
            chunk = sequence.prompt[begin : begin + _CHUNK]
            logits = self._decoder.prefill(self._most, chunk, begin)
        sequence.past = len(sequence.prompt)
        if not sequence.take(int(logits.argmax())):
            self._decoder.move(self._most, len(self._running), sequence.past)
            self._running.append(sequence)

    def _step(self) -> None:
        running = self._running
        logits = self._decoder.decode([each.last for each in running], [each.past for each in running])
        ended = []
        for sequence, token in zip(running, logits.argmax(axis=-1).tolist(), strict=True):
            sequence.past += 1
            if sequence.take(token):
                ended.append(sequence)
        for sequence in reversed(ended):
            slot, last = running.index(sequence), running.pop()
            if last is not sequence:
                self._decoder.move(len(running), slot, last.past)
                running[slot] = last


def main() -> None:
    """Print the figures of each case."""
    folder, kind, names = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    path = folder / "model.onnx"
    # One slot is for prompts.
    settings = ModelSettings(generation=GenerationSettings(max_sequences=_MOST + 1))
    form = read_decoder(path)
    assert form is not None, "a language model"
    decoder = open_decoder(path, settings, form)
    for number, name in enumerate([WARM_UP, *names]):
        case = Case.named(name)
        loop = Loop(decoder, min(case.in_flight, _MOST), is_static=kind == "static")
        result = run(case, loop.start)
        loop.stop()
        if number:
            report(result)


if __name__ == "__main__":
    main()
