"""Which options of ONNX Runtime's providers reach outside of a model: libraries, files and addresses in memory."""

import re

#: Words in the names of such options, as in trt_extra_plugin_lib_paths, backend_path and gpu_external_alloc.
_WORDS = frozenset({"dir", "dump", "external", "file", "folder", "lib", "library", "path", "paths", "plugin", "prefix"})
_ADDRESSES = frozenset({"user_compute_stream"})

#: TensorRT keeps what it has built, in directories that many configurations name.
_CACHE = "cache"


def names_files(option: str) -> bool:
    """Whether an option names a file, a directory or a library."""
    return not _WORDS.isdisjoint(_words(option))


def reaches_outside(option: str) -> bool:
    """Whether an option names a library, a file that is no cache, or an address."""
    return option in _ADDRESSES or (names_files(option) and _CACHE not in _words(option))


def _words(option: str) -> list[str]:
    return re.split(r"[._\W]+", option.lower())
