"""What PyTorch's launcher, torchrun, tells the processes that it starts; without PyTorch."""

import os

_COUNT = "WORLD_SIZE"


def process_count() -> int:
    """Processes that the launcher started, on all machines; 1 without it."""
    return int(os.environ.get(_COUNT, "1"))


def is_alone() -> bool:
    """Whether there is one process; said without an error where the launcher's number cannot be read."""
    return os.environ.get(_COUNT, "1") == "1"


def process_number() -> int:
    """Which of them this is; 0 writes the results."""
    return int(os.environ.get("RANK", "0"))


def local_count() -> int:
    """Processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def restarts() -> str:
    """How often the launcher restarted the processes, as part of a name; empty where several machines are at work, of
    which each counts for itself."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "") if local_count() == process_count() else ""


def local_number() -> int | None:
    """Which of those on its machine this is; None where there is one process in all."""
    return int(os.environ.get("LOCAL_RANK", "0")) if process_count() > 1 else None
