"""Write the weights of a GGUF in another format of llama.cpp: convert.py GGUF OUT Q4_0|Q8_0|F32."""

import sys

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType, dequantize, quants

_NOT_COPIED = ("general.architecture", "general.file_type")
#: OpenVINO reads it.
_FILE_TYPES = {"F32": LlamaFileType.ALL_F32, "Q4_0": LlamaFileType.MOSTLY_Q4_0, "Q8_0": LlamaFileType.MOSTLY_Q8_0}


def main() -> None:
    """Write the file."""
    source, target, kind = GGUFReader(sys.argv[1]), sys.argv[2], GGMLQuantizationType[sys.argv[3]]
    writer = GGUFWriter(target, "llama")
    for name, field in source.fields.items():
        if not name.startswith("GGUF.") and name not in _NOT_COPIED:
            _copy(writer, name, field)
    writer.add_file_type(_FILE_TYPES[kind.name])
    for tensor in source.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape([int(size) for size in reversed(tensor.shape)])
        own = _kind(tensor.name, values, kind)
        if own is GGMLQuantizationType.F32:
            writer.add_tensor(tensor.name, values)
        else:
            writer.add_tensor(tensor.name, quants.quantize(values, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy(writer: GGUFWriter, name: str, field: object) -> None:
    if field.types[0] is GGUFValueType.ARRAY:
        writer.add_array(name, field.contents())
    else:
        writer.add_key_value(name, field.contents(), field.types[0])


def _kind(name: str, values: np.ndarray, kind: GGMLQuantizationType) -> GGMLQuantizationType:
    """Return the format of one tensor: vectors stay as they are, and embeddings have 8 bits at least."""
    if values.ndim == 1:
        return GGMLQuantizationType.F32
    if name.startswith("token_embd") and kind is not GGMLQuantizationType.F32:
        return GGMLQuantizationType.Q8_0
    return kind


if __name__ == "__main__":
    main()
