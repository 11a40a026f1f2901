"""A random model with its known properties, and ONNX Runtime to run it."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from tests.random_graphs.graph import Input
from tests.random_graphs.requests import Arrays, Scene, draw_request, draw_scene


@dataclass(frozen=True, kw_only=True)
class RandomModel:
    """A model with its known properties.

    ``recipe`` lists its parts in order. ``blocks`` are the names of its blocks, and ``mixing`` those that mix rows,
    with how they are hidden: "" for not at all, "rare" or "dead". ``input_axes`` and ``output_axes`` are the batch
    axes; None is a tensor without rows.
    """

    model: onnx.ModelProto
    recipe: list[str]
    blocks: list[str]
    mixing: dict[str, str]
    inputs: tuple[Input, ...]
    output_axes: dict[str, int | None]
    least_length: int

    @property
    def input_axes(self) -> dict[str, int | None]:
        """The batch axis of each input."""
        return {spec.value.name: spec.value.axis for spec in self.inputs}

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw what requests of a batch must share."""
        return draw_scene(self.inputs, rng, self.least_length)

    def request(self, rng: np.random.Generator, rows: int, scene: Scene | None = None) -> Arrays:
        """Draw a request of ``rows`` rows that the model accepts."""
        return draw_request(self.inputs, rng, rows, self.scene(rng) if scene is None else scene)


def open_plain(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open a model in ONNX Runtime, with one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_plain(session: onnxruntime.InferenceSession, request: Arrays) -> list[np.ndarray] | None:
    """Run a request; None if that fails."""
    try:
        return [np.asarray(output) for output in session.run(None, request)]
    except Exception:  # noqa: BLE001  (ONNX Runtime raises many kinds, and any of them means the same here)
        return None
