"""Compare a configuration with the tensors that its ONNX file declares, without opening the file in ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from inferd.config.settings import ModelSettings
from inferd.models.triton.errors import TritonConfigError
from inferd.runtime.batch_axes.inference import infer_batch_axes
from inferd.runtime.declared_tensors import declared_in
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.onnx_file import read_model_file
from inferd.runtime.served_tensors import TensorSettingError, served_tensors

#: The fields of ``input`` and ``output`` by the settings that come of them.
_FIELDS: Mapping[str, str] = {
    "datatype": "data_type",
    "shape": "dims",
    "model_shape": "reshape",
    "optional": "optional",
}


def require_agreement(file: Path, settings: ModelSettings, config_name: str) -> str:
    """Require that ``settings``, from the configuration of ``config_name``, fit the ONNX ``file``.

    Return a sentence about outputs that cannot be served, or an empty text. Raises `TritonConfigError` that names the
    field and both files, or only the ONNX file if the fault is there.
    """
    shown = f"{file.parent.name}/{file.name}"
    try:
        declared = declared_in(read_model_file(file))
    except ModelLoadError as error:
        raise TritonConfigError(f"{shown}: {error}") from error
    try:
        tensors = served_tensors(declared.inputs, declared.outputs, settings)
        infer_batch_axes(tensors.inputs, tensors.outputs, settings)
    except TensorSettingError as error:
        has_rows = settings.batch_axes == "first" and error.setting[-1] in ("shape", "model_shape")
        rows = ", with a dimension for max_batch_size before them" if has_rows else ""
        raise TritonConfigError(f"{config_name}: {_field(error.setting)}{rows}: {error.text} ({shown})") from error
    except ModelLoadError as error:
        raise TritonConfigError(f"{config_name}: max_batch_size: {error} ({shown})") from error
    return declared.left_out


def _field(setting: Sequence[str]) -> str:
    kind, name, *fields = setting
    return ": ".join([f'{kind.removesuffix("s")} "{name}"', *(_FIELDS[field] for field in fields)])
