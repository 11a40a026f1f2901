"""Triton's model configuration: read a config.pbtxt, and translate it to the settings of a model.yaml.

The only package below the API that knows Triton's protos.
"""

from inferd.models.triton.draft import Translation
from inferd.models.triton.errors import TritonConfigError
from inferd.models.triton.origins import FIELD_OF
from inferd.models.triton.own_files import require_own_files
from inferd.models.triton.parsing import config_from_json, read_config
from inferd.models.triton.translation import translate, translate_file

__all__ = [
    "FIELD_OF",
    "Translation",
    "TritonConfigError",
    "config_from_json",
    "read_config",
    "require_own_files",
    "translate",
    "translate_file",
]
