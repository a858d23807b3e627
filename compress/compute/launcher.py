"""What PyTorch's launcher, torchrun, tells the processes that it starts; without PyTorch."""

import os


def process_count() -> int:
    """Processes that the launcher started, on all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """Which of them this is; 0 writes the results."""
    return int(os.environ.get("RANK", "0"))


def local_count() -> int:
    """Processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def local_number() -> int | None:
    """Which of those on its machine this is; None where there is one process in all."""
    return int(os.environ.get("LOCAL_RANK", "0")) if process_count() > 1 else None
