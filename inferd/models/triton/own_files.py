"""Check the configuration of a call: it must not name files outside of the model's directory.

The permission to load a model is not one to read or write any file. Nor is it one to run code: like those of a
model.yaml, these settings may only name the libraries of operators that the server's own settings list.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from inferd._generated.inference import model_config_pb2 as pb
from inferd.config.runtime_options import names_files
from inferd.models.triton.errors import TritonConfigError
from inferd.plain_text import clipped


def require_own_files(config: pb.ModelConfig) -> None:
    """Raise `TritonConfigError` if ``config`` names a file that is not in the model's directory."""
    for field, name in _files(config):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            text = f'{field}: expected a file in the directory of the model, got "{clipped(name)}"'
            raise TritonConfigError(f"Invalid config override: {text}")
    accelerators = config.optimization.execution_accelerators
    for accelerator in (*accelerators.gpu_execution_accelerator, *accelerators.cpu_execution_accelerator):
        for option in accelerator.parameters:
            if names_files(option):
                text = f"execution_accelerators {clipped(accelerator.name)}: expected no files, got {clipped(option)}"
                raise TritonConfigError(f"Invalid config override: {text}")


def _files(config: pb.ModelConfig) -> Iterator[tuple[str, str]]:
    """Yield the names of files with their fields."""
    yield "default_model_filename", config.default_model_filename
    for output in config.output:
        yield "label_filename", output.label_filename
    for sample in config.model_warmup:
        for data in sample.inputs.values():
            yield "input_data_file", data.input_data_file
