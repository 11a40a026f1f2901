"""Runs cases through onnxruntime-genai's engine: run.py MODEL_FOLDER CASE..."""

import sys
import threading
import time
from collections.abc import Sequence

import generation_load
import numpy as np
import onnxruntime_genai as genai

_EVENTS = 64
_IDLE_S = 0.001

Waiting = list[tuple[Sequence[int], int, generation_load.Record]]


class Loop:
    """The thread of an engine, which may be used by the thread only that has made it."""

    def __init__(self, model: genai.Model) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._waiting: Waiting = []
        self._open: dict[int, tuple[object, generation_load.Record]] = {}
        self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def start(self, prompt: Sequence[int], new: int, record: generation_load.Record) -> None:
        """Begin a request."""
        with self._lock:
            self._waiting.append((prompt, new, record))

    def stop(self) -> None:
        """End the thread."""
        self._is_over = True
        self._thread.join()

    def _run(self) -> None:
        engine = genai.Engine(self._model)
        events = engine.create_event_buffer(_EVENTS)
        while not self._is_over:
            with self._lock:
                waiting, self._waiting = self._waiting, []
            for prompt, new, record in waiting:
                self._begin(engine, prompt, new, record)
            if not engine.has_pending_requests():
                time.sleep(_IDLE_S)
                continue
            for event in engine.run(events) or []:
                self._take(event)

    def _begin(self, engine: genai.Engine, prompt: Sequence[int], new: int, record: generation_load.Record) -> None:
        request = engine.create_request()
        turn = genai.TurnOptions(request)
        turn.set_max_generated_tokens(new)
        turn.set_min_generated_tokens(new)
        turn.set_do_sample(False)
        request.begin_turn(np.array(prompt, np.int32), turn)
        self._open[len(self._open)] = request, record

    def _take(self, event: object) -> None:
        request, record = next(each for each in self._open.values() if each[0] == event.request)
        flags = int(event.flags)
        if flags & int(genai.EngineEventFlags.TOKEN):
            record.tokens(1)
        if flags & int(genai.EngineEventFlags.TURN_FINISHED):
            request.close()
            record.done()
        if flags & int(genai.EngineEventFlags.FAILED):
            raise RuntimeError(f"a request failed with {event.error_code}")


def main() -> None:
    """Print the figures of each case."""
    model = genai.Model(sys.argv[1])
    _run(model, generation_load.WARM_UP)
    for name in sys.argv[2:]:
        generation_load.report(_run(model, name))


def _run(model: genai.Model, name: str) -> dict[str, object]:
    loop = Loop(model)
    result = generation_load.run(generation_load.Case.named(name), loop.start)
    loop.stop()
    return result


if __name__ == "__main__":
    main()
