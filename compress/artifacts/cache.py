"""Where what is worth keeping between runs lies, whatever folder they write to."""

import os
from pathlib import Path

CACHE_VARIABLE = "COMPRESS_CACHE"


def cache_folder() -> Path:
    """The folder in COMPRESS_CACHE, else `compress` in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "compress"
