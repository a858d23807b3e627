"""Show for several models what `quantize --optimize latency` would run in integers here, and how fast that is.

    python scripts/time_placement.py --shipped --plain
    python scripts/time_placement.py --model det.onnx=3,640,640 --model cls.onnx=3,48,192

Nothing is calibrated or trained, since times do not depend on the values. For each model: the chosen assignment, its
median and the canonical float model's of the same interleaved run, one thread, and what everything in integers and
everything in float would take. `--shipped` adds the models that ship, `--plain` two networks of random weights as
everyone has them: MobileNetV3 and a ResNet of basic blocks, 3x224x224.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from compress.errors import CompressError
from compress.graph import from_torch, load_model
from compress.measure.latency_table import LatencyTable
from compress.measure.machine import machine_info
from compress.pipeline.stages.placement import ALL_FLOAT, ALL_INTEGER, CANONICAL, place
from compress.recipe import QuantizeStep
from compress.zoo.classifier import build_classifier

ZOO = Path(__file__).resolve().parent.parent / "compress" / "zoo" / "models"
SHIPPED = {"text_detector": (3, 640, 640), "text_recogniser": (3, 32, 320), "direction_classifier": (3, 48, 192)}
PLAIN = (3, 224, 224)
Shape = tuple[int, int, int]


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut, as in ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet() -> nn.Module:
    """Half as wide as ResNet-18."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 32, 7, 2, 3, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    for inputs, outputs, stride in ((32, 32, 1), (32, 64, 2), (64, 128, 2), (128, 256, 2)):
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 100), nn.Softmax(1)).eval()


def main() -> int:
    options = parse_arguments()
    machine = machine_info()
    print(f"{machine.cpu} ({', '.join(machine.flags)}), onnxruntime {machine.versions['onnxruntime']}, 1 thread.\n")
    print("| model | canonical ms | chosen ms | speed | int8 throughout ms | float, int8 weights ms | chosen |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    table = LatencyTable()
    try:
        for name, model, shape in models(options):
            print(line(name, model, shape, table), flush=True)
    except CompressError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    finally:
        table.save()
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", action="append", default=[], metavar="FILE=C,H,W", help="a float model and its input"
    )
    parser.add_argument("--shipped", action="store_true", help="the models that ship")
    parser.add_argument("--plain", action="store_true", help="a MobileNetV3 and a ResNet of random weights")
    options = parser.parse_args()
    if not (options.model or options.shipped or options.plain):
        parser.error("nothing to time: give --model, --shipped or --plain")
    return options


def models(options: argparse.Namespace) -> Iterator[tuple[str, onnx.ModelProto, Shape]]:
    """Name, canonical model and input of all that is requested."""
    for given in options.model:
        file, _, size = given.rpartition("=")
        numbers = tuple(int(part) for part in size.split(",") if part.isdigit())
        if not file or len(numbers) != 3:
            raise CompressError(f"--model: got {given!r}. Must be FILE=C,H,W, e.g. det.onnx=3,640,640.")
        yield Path(file).name, load_model(Path(file)), (numbers[0], numbers[1], numbers[2])
    for name, shape in SHIPPED.items() if options.shipped else ():
        yield name, load_model(ZOO / f"{name}.onnx"), shape
    if options.plain:
        torch.manual_seed(0)
        for name, module in (("MobileNetV3-small", build_classifier(1.0, 100).eval()), ("ResNet", resnet())):
            yield name, from_torch(module, torch.zeros(1, *PLAIN)), PLAIN


def line(name: str, model: onnx.ModelProto, shape: Shape, table: LatencyTable) -> str:
    """A model's row."""
    found = place(model, QuantizeStep(), shape, lambda _: (), table=table).placement
    assert found is not None
    tried = found.tried
    others = (f"{tried[key]:.2f}" if key in tried else "-" for key in (ALL_INTEGER, ALL_FLOAT))
    chosen, baseline = tried[found.chosen], tried[CANONICAL]
    cells = (name, f"{baseline:.2f}", f"{chosen:.2f}", f"{baseline / chosen:.2f}x", *others, found.chosen)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
