"""Settings of the log."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from inferd.config.section import Section

Level = Literal["debug", "info", "warning", "error"]

#: The name of a logger, which is that of a module or of a package.
_LoggerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.\w+)*$")]


class LogFormat(StrEnum):
    """How log lines look."""

    AUTO = "auto"
    JSON = "json"
    HUMAN = "human"


class LogSettings(Section):
    """What is logged, and how. On SIGHUP, level, levels and access are read again from the configuration file."""

    level: Level = "info"
    """Least severe level that is written; debug adds a line per result of a stream."""
    levels: dict[_LoggerName, Level] = Field(default_factory=dict)
    """Other levels for modules and what is below them, for example {inferd.batching: debug}."""
    format: LogFormat = LogFormat.AUTO
    """json, one object per line; human; or auto: human on a terminal, json elsewhere."""
    access: bool = True
    """Write a line for each RPC: at info, at warning if it was refused or late, at error if the server failed."""
    repeats: int = Field(default=20, ge=0, le=1_000_000)
    """Warnings and errors of the same kind that are written in repeats_interval_s; what comes beyond is counted, and \
told in one line. 0 writes all. Access lines are never left out."""
    repeats_interval_s: float = Field(default=10.0, gt=0.0, le=3600.0)
    """See repeats."""
