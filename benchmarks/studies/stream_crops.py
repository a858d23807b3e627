"""Time and memory of training on a very large recognition list: one set of rendered crops, named again and again.

    python -m benchmarks.studies.stream_crops --images 1000000 --workers 2 --steps 200

Prints how long the list takes to open, the memory of this process and of its workers, crops per second that are made,
and that the network alone learns from: the shipped recogniser, one thread.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch

from compress.data.synthetic import write_dataset
from compress.graph import load_model, to_torch
from compress.tasks.recognition import RecognitionTask
from compress.zoo import models_folder, shipped

CROPS = 2000
BATCH = 32


def write_list(folder: Path, images: int) -> Path:
    """A label list of so many lines on `CROPS` rendered crops."""
    if not (folder / "labels.txt").exists():
        write_dataset(folder, CROPS, 1)
    lines = (folder / "labels.txt").read_text().splitlines(keepends=True)
    large = folder / f"labels_{images}.txt"
    if not large.exists():
        with large.open("w") as file:
            for start in range(0, images, len(lines)):
                file.writelines(lines[: images - start])
    return large


def memory_mb() -> float:
    """Resident memory of this process and its children that they do not share, in MB."""
    total = 0
    for pid in [os.getpid(), *map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())]:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_streaming"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    train, val = write_list(given.folder, given.images), given.folder / "val" / "labels.txt"
    if not val.exists():
        write_dataset(val.parent, 50, 2)
    started = time.monotonic()
    task = RecognitionTask(
        [train], [val], charset=models_folder() / "latin.txt", widths=[96, 160, 320], workers=given.workers
    )
    opened = time.monotonic() - started
    print(f"{given.images} crops: opened in {opened:.1f} s, {memory_mb():.0f} MB", flush=True)
    module = to_torch(load_model(shipped("text_recogniser"))).train()
    tuner = torch.optim.Adam(module.parameters(), lr=1e-5)

    def learn(batch: object) -> None:
        tuner.zero_grad()
        task.loss(module(batch.images), batch).backward()
        tuner.step()

    batches = task.train_batches(epoch=1, batch_size=BATCH, seed=0)
    first = next(batches)
    print(f"first batch after {time.monotonic() - started - opened:.1f} s more")
    kept = [first, *islice(batches, 15)]
    started = time.monotonic()
    for batch in islice(batches, given.steps):
        learn(batch)
    both, most = time.monotonic() - started, memory_mb()
    started = time.monotonic()
    for step in range(given.steps):
        learn(kept[step % len(kept)])
    alone = time.monotonic() - started
    print(f"{given.steps} steps of {BATCH}: {given.steps * BATCH / both:.0f} crops/s, {most:.0f} MB with the workers")
    print(f"the network alone: {given.steps * BATCH / alone:.0f} crops/s; with the data {alone / both:.0%} of that")
    return 0


if __name__ == "__main__":
    sys.exit(main())
