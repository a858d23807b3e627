"""Where what is worth keeping between runs lies, whatever folder they write to."""

import os
import tempfile
from pathlib import Path

CACHE_VARIABLE = "COMPRESS_CACHE"


def cache_folder() -> Path:
    """The folder in COMPRESS_CACHE, else `compress` in the user's cache folder, or among temporary files."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "compress"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"compress-{os.getuid()}"
