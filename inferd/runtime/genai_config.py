"""Read the files beside a language model: names of its tensors, end tokens, context length, sampling defaults.

From ``genai_config.json``, which onnxruntime-genai's builder writes; or else, without names, from ``config.json`` and
``generation_config.json``, which Hugging Face's exporters write.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from inferd.runtime.errors import ModelLoadError
from inferd.runtime.model_folder import GENAI_CONFIG, has_genai_config, model_folder, read_model_text

_HUGGING_FACE, _HUGGING_FACE_GENERATION = "config.json", "generation_config.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorNames:
    """The names of a decoder's inputs and outputs; %d stands for the layer."""

    input_ids: str = "input_ids"
    attention_mask: str = "attention_mask"
    position_ids: str = "position_ids"
    past_key: str = "past_key_values.%d.key"
    past_value: str = "past_key_values.%d.value"
    logits: str = "logits"
    present_key: str = "present.%d.key"
    present_value: str = "present.%d.value"


@dataclass(frozen=True, kw_only=True, slots=True)
class GenaiConfig:
    """The configuration of a language model; None for what its files do not say.

    ``temperature`` is 0 without sampling. ``filename`` is that of the decoder's ONNX file.
    """

    filename: str | None = None
    names: TensorNames = field(default_factory=TensorNames)
    end_token_ids: tuple[int, ...] = ()
    context_length: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None


def is_described(model: Path) -> bool:
    """Whether genai's configuration lies beside the file ``model``, or above its version directory."""
    return any(map(has_genai_config, _folders(model)))


def read_genai_config(model: Path) -> GenaiConfig:
    """Read what lies beside the file ``model``, or above its version directory. Raises `ModelLoadError`."""
    for folder in _folders(model):
        if has_genai_config(folder):
            return _from_genai(folder / GENAI_CONFIG)
        if (folder / _HUGGING_FACE).exists():
            return _from_hugging_face(folder)
    return GenaiConfig()


def _folders(model: Path) -> Sequence[Path]:
    return list(dict.fromkeys((model.parent, model_folder(model))))


def _listed(value: object) -> object:
    """Return ``value`` as a list: configurations have one token or several."""
    return [] if value is None else value if isinstance(value, list) else [value]


class _Part(BaseModel):
    """A part of a configuration; what inferd does not use is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


_Tokens = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_listed)]
_Length = Annotated[int, Field(ge=1)]


class _Search(_Part):
    do_sample: bool | None = None
    temperature: Annotated[float, Field(ge=0.0)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    # 0 is written by some for what is not set.
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0.0)] | None = None


class _Inputs(_Part):
    input_ids: str = TensorNames().input_ids
    attention_mask: str = TensorNames().attention_mask
    position_ids: str = TensorNames().position_ids
    past_key_names: str = TensorNames().past_key
    past_value_names: str = TensorNames().past_value


class _Outputs(_Part):
    logits: str = TensorNames().logits
    present_key_names: str = TensorNames().present_key
    present_value_names: str = TensorNames().present_value


class _Decoder(_Part):
    filename: Annotated[str, Field(pattern=r"^[^/]+$")] | None = None
    inputs: _Inputs = _Inputs()
    outputs: _Outputs = _Outputs()


class _Model(_Part):
    eos_token_id: _Tokens = ()
    context_length: _Length | None = None
    decoder: _Decoder = _Decoder()


class _Genai(_Part):
    model: _Model
    search: _Search = _Search()


class _HuggingFace(_Part):
    eos_token_id: _Tokens = ()
    max_position_embeddings: _Length | None = None


class _HuggingFaceGeneration(_Search):
    eos_token_id: _Tokens = ()


def _from_genai(path: Path) -> GenaiConfig:
    found = _read(path, _Genai)
    inputs, outputs = found.model.decoder.inputs, found.model.decoder.outputs
    names = TensorNames(
        input_ids=inputs.input_ids,
        attention_mask=inputs.attention_mask,
        position_ids=inputs.position_ids,
        past_key=inputs.past_key_names,
        past_value=inputs.past_value_names,
        logits=outputs.logits,
        present_key=outputs.present_key_names,
        present_value=outputs.present_value_names,
    )
    config = _config(found.search, names, found.model.eos_token_id, found.model.context_length)
    return replace(config, filename=found.model.decoder.filename)


def _from_hugging_face(folder: Path) -> GenaiConfig:
    model = _read(folder / _HUGGING_FACE, _HuggingFace)
    generation = _HuggingFaceGeneration()
    if (folder / _HUGGING_FACE_GENERATION).exists():
        generation = _read(folder / _HUGGING_FACE_GENERATION, _HuggingFaceGeneration)
    end = generation.eos_token_id or model.eos_token_id
    return _config(generation, TensorNames(), end, model.max_position_embeddings)


def _config(search: _Search, names: TensorNames, end: Sequence[int], context: int | None) -> GenaiConfig:
    return GenaiConfig(
        names=names,
        end_token_ids=tuple(end),
        context_length=context,
        temperature=search.temperature if search.do_sample else 0.0,
        top_k=search.top_k,
        top_p=search.top_p or None,
        repetition_penalty=search.repetition_penalty,
    )


_PartT = TypeVar("_PartT", bound=_Part)


def _read(path: Path, part: type[_PartT]) -> _PartT:
    try:
        return part.model_validate(json.loads(read_model_text(path)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        msg = f"{path.name}: {place}: {first['msg']}, got {first['input']!r}"
        raise ModelLoadError(msg) from error
    except ValueError as error:
        msg = f"{path.name}: expected JSON: {error}"
        raise ModelLoadError(msg) from error
