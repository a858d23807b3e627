"""PyTorch's two exporters side by side, on the look-alikes and the reference networks; what `from_torch` decides by.

python -m tests.lookalikes.exporters               a quarter of an hour on one core: dynamo's is slow with LSTMs
python -m tests.lookalikes.exporters --write       write the table into docs/presets.md
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from compress.compute.modes import evaluating
from compress.errors import ModelError
from compress.graph import entry, to_torch
from compress.graph.exporters import Export, Names, exportable_pooling
from compress.prune.groups import find_groups
from compress.zoo.classifier import build_classifier
from compress.zoo.detector import build_detector
from compress.zoo.recogniser import build_recogniser
from tests.graph.networks import randomise
from tests.lookalikes import networks

PAGE = Path(__file__).parents[2] / "docs" / "presets.md"
START, END = "<!-- exporters -->", "<!-- end of exporters -->"
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "classifier, MobileNetV3 (zoo)": (build_classifier, (3, 48, 192)),
    "classifier, ShuffleNetV2": (networks.ShuffleNet, (3, 48, 192)),
    "recogniser, MobileNetV3, LSTM (zoo)": (build_recogniser, (3, 32, 128)),
    "recogniser, SVTR": (networks.Svtr, (3, 32, 128)),
    "recogniser, docTR's CRNN": (networks.DoctrCrnn, (3, 32, 128)),
    "recogniser, EasyOCR's CRNN": (networks.EasyCrnn, (1, 64, 128)),
    "detector, MobileNetV3-DBNet (zoo)": (build_detector, (3, 64, 64)),
    "detector, ResNet18-DBNet": (networks.ResNetDbnet, (3, 64, 64)),
}
HEADER = """| network | exporter | serves | open sizes | nodes | prunable groups | seconds |
|---|---|---|---|---|---|---|
"""


def row(name: str, exporter: str, export: Export) -> str:
    """What one exporter makes of one network; seconds are of processor time."""
    make, shape = NETWORKS[name]
    module, inputs = randomise(make()), (torch.zeros(1, *shape),)
    start = time.process_time()
    with evaluating(module), exportable_pooling(module):
        try:
            found = entry._most_open(export, module, inputs, Names(), entry._trials(module, inputs))
        except ModelError as error:
            return f"| {name} | {exporter} | no: {error} | | | | {time.process_time() - start:.1f} |"
    seconds = time.process_time() - start
    dims = found.model.graph.input[0].type.tensor_type.shape.dim
    opened = ", ".join(dim.dim_param for dim in dims if dim.dim_param)
    groups = len(find_groups(to_torch(found.model), shape)) if found.serves else 0
    cells = (name, exporter, found.problem or "yes", opened, len(found.model.graph.node), groups, f"{seconds:.1f}")
    return f"| {' | '.join(map(str, cells))} |"


def rows() -> Iterator[str]:
    """A row of the table for each network and exporter."""
    for name in NETWORKS:
        for exporter, export in entry.EXPORTERS.items():
            yield row(name, exporter.removesuffix("'s"), export)


def main() -> None:
    """Measure and print, and write with --write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into docs/presets.md")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    found = []
    for line in rows():
        print(line, flush=True)
        found.append(line)
    if write:
        text = PAGE.read_text(encoding="utf-8")
        before, rest = text.split(START)
        table = HEADER + "".join(f"{line}\n" for line in found)
        PAGE.write_text(f"{before}{START}\n{table}{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
