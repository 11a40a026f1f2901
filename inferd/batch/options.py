"""The options of a job. Those that its answers depend on are part of its identity."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: Formats of inputs, and those of them that outputs have too.
InputFormat = Literal["parquet", "arrow", "csv", "jsonl", "npy", "npz", "images", "tar"]
OutputFormat = Literal["parquet", "arrow", "csv", "jsonl", "npy", "npz"]

#: What to do about rows without an answer: go on, stop at the first, or stop when there are more than so many.
OnError = Literal["skip", "stop"] | int


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeOptions:
    """How the texts of ``column`` become tokens.

    ``column`` None is the only column of texts. ``max_length`` in tokens, special ones included; longer texts are cut,
    or are errors with ``truncate`` False. ``pad_to`` a multiple of this, 1 for no padding. ``fields``: the input of the
    model for each of ``ids``, ``attention_mask`` and ``type_ids``; empty for those with the usual names.
    """

    file: str
    column: str | None = None
    max_length: int | None = None
    truncate: bool = True
    pad_to: int = 1
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageOptions:
    """How the encoded pictures of ``column`` become the tensors of ``input``; None for the only one there is.

    ``size`` is height and width. ``crop`` "center" scales the shorter side and cuts, "none" scales both. Values are
    ``(value * scale - mean) / std`` per channel of ``color``.
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
    """What a job is asked to do.

    ``version`` is that of a model on a server; empty for the highest. ``inputs`` are paths, addresses and globs;
    ``output`` is a file, by its suffix, or a folder. ``mapping`` has the column of each input that has another
    name, and ``outputs`` the column of each wanted output; empty for all, under their names. ``join`` are the input
    columns to keep: None for none, empty for all. ``row_ids`` adds the columns ``source`` and ``row``. ``columns``
    are the input columns to look at; empty for all. ``types`` are the types of columns of CSV and JSONL files, by
    name, as pyarrow's aliases. ``delimiter`` is between the fields of CSV; None for a comma, in .tsv files a tab.
    ``sample`` is a share from 0 to 1, drawn by ``seed``. ``batch_rows`` and ``batch_bytes`` are chosen unless given,
    and ``look_ahead`` and ``part_rows``, in rows, too.
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
    """How a job is run, which its answers do not depend on.

    ``index`` of ``indexes`` processes that share the parts. ``workers`` prepare texts and pictures; ``in_flight`` are
    the batches that run or are on their way at a time; None is chosen. ``errors`` is the file for error rows; None puts
    it beside the manifest.
    """

    errors: str | None = None
    on_error: OnError = "skip"
    overwrite: bool = False
    workers: int | None = None
    in_flight: int | None = None
    index: int = 0
    indexes: int = 1
    metrics_file: str | None = None
