"""Settings of models in remote storage, and the form of their addresses."""

import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from inferd.config.section import Section, validation_error

#: What comes before :// in addresses of models, and the package that reads it.
PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
    "https": "aiohttp",
    "http": "aiohttp",
}

#: The extra of a package that is not in the extra remote.
EXTRAS = {"adlfs": "azure"}

#: An address with or without NAME= before it.
_ADDRESS = re.compile(r"(?:([^/=]*)=)?(([A-Za-z][A-Za-z0-9+.-]*)://.*)", re.DOTALL)

_GIB = 1024**3


def split_address(address: str) -> tuple[str, str]:
    """Return name and URL of ``NAME=URL`` or ``URL``; two empty texts for what is no address."""
    found = _ADDRESS.fullmatch(address)
    return (found[1] or "", found[2]) if found else ("", "")


def _path_or_address(value: object) -> Path | str:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("path_type", "expected a path")
    found = _ADDRESS.fullmatch(value)
    if found is None or os.path.lexists(value):
        return Path(value)
    if found[3] not in PACKAGES:
        text = f"expected a path, or an address with one of {', '.join(PACKAGES)}, got {found[3]}://"
        raise validation_error(text)
    try:
        urlsplit(found[2])
    except ValueError as error:
        raise validation_error(f"expected a path or an address, got one that is not valid: {error}") from error
    return value


#: Where models are: a path, or the text of an address in remote storage.
ModelPlace = Annotated[Path | str, PlainValidator(_path_or_address), WithJsonSchema({"type": "string"})]


class RemoteSettings(Section):
    """Models in remote storage: s3://, gs://, az://, hf:// and https://. Needs the extra remote."""

    cache: Path = Path("~/.cache/inferd/files")
    """Directory for the files of these models, by their content. Several servers may share it."""
    cache_bytes: int | None = Field(default=20 * _GIB, ge=1)
    """Maximum size of the cache: the files that have not been loaded for longest are deleted. Those of loaded models \
stay, even if they are larger. Null: no limit."""
    timeout_s: float = Field(default=30.0, gt=0.0, le=3600.0)
    """Maximum time for a listing, and for each part of a file."""
    checksums: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = Field(default_factory=dict)
    """SHA-256 of files by their addresses. A file with other content is not loaded."""
