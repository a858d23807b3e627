"""docs/getting-started.md and README.md: their commands, in order and as written, on the models that ship."""

import re
import shlex
import shutil
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compress.cli import app
from compress.data.synthetic import write_dataset
from compress.data.synthetic_scenes import write_scenes
from compress.pipeline.stages import measure, placement
from compress.zoo import models_folder
from tests.documents import ROOT, shown_commands

pytestmark = pytest.mark.slow
GUIDE = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", GUIDE, flags=re.MULTILINE | re.DOTALL))
MODELS = {
    "cls": "direction_classifier",
    "rec": "text_recogniser",
    "det": "text_detector",
    "model": "direction_classifier",
}
FEWER = {
    "shrink": "--epochs 1 --threads 1 --macs 0.9",
    "run": "--set compare.rounds=3",
}
"""Put behind a command, so that it takes seconds."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, charset and images that the pages name, without the labels where the page does without."""
    folder = tmp_path_factory.mktemp("first_steps")
    for name, model in MODELS.items():
        shutil.copy(models_folder() / f"{model}.onnx", folder / f"{name}.onnx")
    shutil.copy(models_folder() / "latin.txt", folder / "dict.txt")
    for seed, name in enumerate(("crops", "words", "train")):
        write_dataset(folder / name, 24, seed)
    (write_scenes(folder / "scenes", 8, 0)).rename(folder / "scenes" / "Label.txt")
    return folder


@pytest.fixture
def workplace(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(placement, "BUDGET_S", 1.0)
    monkeypatch.setattr(placement, "SLACK", 1.0)  # the fastest, without comparing others
    monkeypatch.setattr(placement, "padded_form", lambda *_: None)
    monkeypatch.setattr(measure, "measure_latency", partial(measure.measure_latency, budget_s=1.0))
    monkeypatch.chdir(shutil.copytree(inputs, tmp_path / "here"))
    return Path()


def run(line: str) -> None:
    """Run a command as it is written, with next to no training; what it says is shown where it fails."""
    _, name, *given = shlex.split(line)
    more = shlex.split(FEWER.get(name, ""))
    if name == "shrink" and "scenes/" in given:
        more += ["--side", "320"]
    if name == "shrink" and "--charset" in given:
        more += ["--rendered", "0", "--spliced", "0"]
    result = CliRunner().invoke(app, [name, *given, *more], prog_name="compress")
    missed = name == "run" and "Gates missed: " in result.stderr  # after one epoch
    assert result.exit_code == int(missed), result.output
    if name == "init":
        recipe = Path(given[given.index("--out") + 1])
        recipe.write_text(re.sub(r"\bepochs: \d+", "epochs: 2", recipe.read_text()))


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    "title",
    [title for title, text in SECTIONS.items() if shown_commands(text) and title != "A direction classifier"],
)  # its commands are README's
def test_getting_started(title: str) -> None:
    for line in shown_commands(SECTIONS[title]):
        run(line)
        if line.startswith("compress shrink"):
            assert Path("small.onnx").stat().st_size < 0.5 * Path(shlex.split(line)[2]).stat().st_size


def test_readme(workplace: Path) -> None:
    """All but the demo, which `make test-wheel` runs."""
    lines = [line for line in shown_commands(README) if not line.startswith("compress demo")]
    assert len(lines) == len(shown_commands(README)) - 1
    for line in lines:
        run(line)
    assert (workplace / "small.onnx").stat().st_size < 0.5 * (workplace / "model.onnx").stat().st_size
    assert list((workplace / "runs").glob("*/int8.onnx"))
    assert list((workplace / "runs").glob("*/report.html"))
