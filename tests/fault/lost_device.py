"""``inferd``; runs of ``x`` fail as on a device in error while the file exists that ``LOST_DEVICE`` names."""

import os
import sys
from pathlib import Path

from inferd.cli import main
from inferd.runtime.runners import DirectRunner

_TEXT = (
    "Error in execution: Non-zero status code returned while running Mul node. Name:'m' Status Message: "
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 bool onnxruntime::CudaCall(ERRTYPE) "
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=gpu ; expr=cudaStreamSynchronize"
)
_run = DirectRunner.run


def _run_or_fail(self, inputs, outputs, options=None):
    if "x" in inputs and Path(os.environ["LOST_DEVICE"]).exists():
        raise RuntimeError(_TEXT)
    return _run(self, inputs, outputs, options)


if __name__ == "__main__":
    DirectRunner.run = _run_or_fail
    sys.exit(main())
