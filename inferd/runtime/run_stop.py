"""Ending a run from outside."""

import onnxruntime

from inferd.runtime.runners import OrtObject


class RunStop:
    """What ends one run, in any thread; of no use for a second run.

    ONNX Runtime ends a run between two of its operators, also in a loop; an operator that is running comes to its own
    end. The run then fails.
    """

    __slots__ = ("options",)

    def __init__(self) -> None:
        self.options: OrtObject = onnxruntime.RunOptions()

    def stop(self) -> None:
        """End the run soon; nothing if it has ended."""
        self.options.terminate = True

    @property
    def is_stopped(self) -> bool:
        """Whether the run was told to end."""
        return bool(self.options.terminate)
