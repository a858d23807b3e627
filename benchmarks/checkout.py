"""Which commit a figure is of."""

import subprocess
from pathlib import Path


def commit() -> str:
    """The commit of this checkout, with + where files differ from it; `unknown` outside of one."""
    try:
        head, changed = (
            subprocess.run(
                ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")
