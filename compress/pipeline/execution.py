"""How a stage is run, whatever it computes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from compress.compute.device import CPU
from compress.compute.processes import Team
from compress.progress import Note, Progress


@dataclass(frozen=True)
class Execution:
    """What a stage computes with, and whom it tells. Of all this `seed` alone changes results by more than rounding."""

    seed: int = 0
    """Of everything random."""
    threads: int | None = None
    """For training and scoring; default every core."""
    device: torch.device = CPU
    """What trains, reconstructs and calibrates. Files are scored on the CPU, in onnxruntime."""
    checkpoint: Path | None = None
    """File that a training goes on from. It stays: with it the same call gives the finished file again. Whoever keeps
    the result removes it."""
    team: Team | None = None
    """The processes that share the stage."""
    on_progress: Progress | None = None
    """Called as (done, in all, message)."""
    on_note: Note | None = None
    """Receives what is to be known on the way."""
    on_speed: Callable[[float], None] | None = None
    """Receives how many images per second were trained on, 0 if the checkpoint left nothing to do."""

    def note(self, text: str) -> None:
        """Tell a line, if anybody listens."""
        if self.on_note is not None:
            self.on_note(text)


HERE = Execution()
"""Every core of the CPU, nobody told."""
