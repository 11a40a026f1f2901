"""The options of a job, which are part of its identity, and those of a run, which change no answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: The formats of inputs, and of outputs.
InputFormat = Literal["parquet", "arrow", "csv", "jsonl", "npy", "npz", "images", "tar"]
OutputFormat = Literal["parquet", "arrow", "csv", "jsonl", "npy", "npz"]

#: The reaction to rows without an answer: continue, stop at the first, or stop if there are more than this number.
OnError = Literal["skip", "stop"] | int


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeOptions:
    """The options of --tokenize, which makes tokens of the texts of ``column``; None for the only column of texts.

    ``max_length`` is in tokens, special ones included; longer texts are cut, or are errors if not ``truncate``. Rows
    are padded to a multiple of ``pad_to`` tokens; 1 pads none. ``fields`` has the input of the model for each of
    ``ids``, ``attention_mask`` and ``type_ids``; those left out are found by their usual names.
    """

    file: str
    column: str | None = None
    max_length: int | None = None
    truncate: bool = True
    pad_to: int = 1
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageOptions:
    """The options of --image, which makes tensors for ``input`` of the pictures of ``column``; None for the only one.

    ``size`` is height and width in pixels; None for the model's. ``crop`` "center" scales the shorter side and cuts,
    "none" scales both sides. Values are ``(value * scale - mean) / std`` per channel of ``color``.
    """

    column: str | None = None
    input: str | None = None
    size: tuple[int, int] | None = None
    crop: Literal["center", "none"] = "none"
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions:
    """The options that determine the answers of a job.

    ``version`` is the version of a model on a server; empty for the highest. ``inputs`` are paths, addresses and globs;
    ``output`` is a file, by its suffix, or a folder. ``mapping`` has the column of each input that has another name,
    and ``outputs`` the column of each wanted output; empty for all, under their names. ``join`` has the input columns
    to copy to the output: None for none, empty for all. ``row_ids`` adds the columns ``source`` and ``row``.
    ``columns`` are the only input columns to use; empty for all. ``types`` has types of columns of CSV and JSON lines,
    as pyarrow's aliases. ``delimiter`` separates the fields of CSV; None for a comma, in .tsv files a tab. ``sample``
    is a share from 0 to 1, drawn by ``seed``. ``batch_rows``, ``batch_bytes``, ``look_ahead`` and ``part_rows`` (both
    in rows) are measured or chosen if None.
    """

    model: str
    version: str = ""
    inputs: tuple[str, ...]
    output: str
    input_format: InputFormat | None = None
    output_format: OutputFormat | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    join: tuple[str, ...] | None = None
    row_ids: bool = False
    columns: tuple[str, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    delimiter: str | None = None
    where: str | None = None
    limit: int | None = None
    sample: float | None = None
    seed: int = 0
    tokenize: TokenizeOptions | None = None
    image: ImageOptions | None = None
    batch_rows: int | None = None
    batch_bytes: int | None = None
    look_ahead: int | None = None
    part_rows: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """The options of a run, without effect on answers.

    This process has ``index`` among ``indexes`` that share the parts. ``workers`` processes prepare texts and pictures;
    ``in_flight`` batches run, or are at the server, at the same time; None chooses both. ``errors`` is the file for
    error rows; None puts it beside the manifest.
    """

    errors: str | None = None
    on_error: OnError = "skip"
    overwrite: bool = False
    workers: int | None = None
    in_flight: int | None = None
    index: int = 0
    indexes: int = 1
    metrics_file: str | None = None
