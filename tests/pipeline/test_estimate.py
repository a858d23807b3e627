"""What a run will take: counts by hand times a pace, and the lines that say so."""

from pathlib import Path

import pytest
import torch

from compress.data.headers import Header
from compress.pipeline.preparing.estimate import (
    CHECKPOINT_COPIES,
    DONE,
    MUTUAL_FACTOR,
    QAT_MEMORY,
    Estimate,
    Stage,
    count_files,
    count_images,
    estimate,
    estimate_lines,
)
from compress.pipeline.preparing.readiness import Images, find_problems
from compress.pipeline.preparing.shrink_cost import (
    CALIBRATION_FACTOR,
    QAT_FACTOR,
    TIMING_S,
    Counts,
    Pace,
    saved_for_gradients,
    work_of,
)
from compress.pipeline.preparing.sources import Source
from compress.recipe import Recipe
from tests.pipeline import tiny

PACE = Pace(load=0.01, forward=0.1, train=0.5, make=0.2, saved_bytes=1000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_inputs(tmp_path_factory.mktemp("estimate"), crops=3)


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.pipeline.preparing.estimate.measure", lambda recipe, files: (PACE, 9))


def seconds_of(recipe: Recipe) -> dict[str, float | None]:
    return {stage.name: stage.seconds for stage in estimate(recipe, find_problems(recipe)).stages}


@pytest.mark.usefixtures("paced")
def test_seconds_are_counts_times_pace(folder: Path) -> None:
    # 3 crops, each upright and turned: 6 images to train on, and 6 to score.
    found = seconds_of(tiny.recipe(folder))
    assert found == pytest.approx(
        {
            "sensitivity": 10 * (0.2 + 6 * 0.1),
            "prune": TIMING_S,
            "finetune": 3 * (6 * 0.5 + 6 * 0.1),
            "quantize": TIMING_S + 6 * CALIBRATION_FACTOR * 0.1 + 2 * (QAT_FACTOR * 6 * 0.5 + 6 * 0.1),
            "report": 5 * 0.1 * (6 + 3),  # baseline, canonical, pruned, finetuned, int8; 3 rounds of timing
        }
    )


@pytest.mark.usefixtures("paced")
def test_what_cannot_be_told_is_unknown(folder: Path) -> None:
    steps = {
        "sensitivity": {"ratios": [0.5], "measure": "divergence"},
        "prune": {"target": {"macs": 0.7}, "search": {"candidates": 4}},
        "reconstruct": {"images": 5},
    }
    recipe = tiny.recipe(folder, steps=steps)
    assert seconds_of(recipe) == {
        **{"sensitivity": None, "prune": None, "reconstruct": None},
        "report": pytest.approx(4 * 0.9),
    }
    lines = estimate_lines(recipe, estimate(recipe, find_problems(recipe)))
    assert lines[0] == "stage 1 of 4, sensitivity: 9 networks on 6 training images each, by divergence, time unknown"
    assert lines[1] == "stage 2 of 4, prune: to macs 0.7, the best of 4 plans, time unknown"
    assert lines[2] == "stage 3 of 4, reconstruct: 5 images, layer by layer, time unknown"
    assert lines[4].startswith("time: about 4 s, and what is unknown, at 100 ms an image")


@pytest.mark.usefixtures("paced")
def test_other_steps(folder: Path) -> None:
    steps = {
        "teacher": {"epochs": 2},
        "replace": {"hardswish": "relu", "metric_drop": 0.1, "images": 4},
        "finetune": {"epochs": 3, "batch_size": 8, "mutual": 1.0},
    }
    recipe = tiny.recipe(folder, steps=steps)
    found = seconds_of(recipe)
    epoch = 6 * 0.5 + 6 * 0.1
    assert found["teacher"] == pytest.approx(2 * epoch)
    assert found["replace"] == pytest.approx(2 * (0.1 + 4 * 0.1)), "one hard-swish, and the network as it is"
    assert found["finetune"] == pytest.approx(MUTUAL_FACTOR * 3 * epoch)
    result = estimate(recipe, find_problems(recipe))
    assert result.step_bytes == 64 * 1000, "the teacher's batches are larger than twice those of fine-tuning"
    plain = tiny.recipe(folder)  # both train in batches of 6
    assert estimate(plain, find_problems(plain)).step_bytes == round(6 * QAT_MEMORY * 1000)
    size = (folder / "model.onnx").stat().st_size
    assert result.disk_bytes == size * (5 - 1 + CHECKPOINT_COPIES)
    assert count_files(recipe) == 5


@pytest.mark.usefixtures("paced")
def test_finished_stages_are_done(folder: Path, tmp_path: Path) -> None:
    recipe = tiny.recipe(folder, out=str(tmp_path / "out"))
    recipe.out.mkdir()
    (recipe.out / "pruned.json").touch()
    lines = estimate_lines(recipe, estimate(recipe, find_problems(recipe)))
    assert lines[0].endswith(DONE), "a scan leaves no record of its own"
    assert lines[1] == f"stage 2 of 5, prune: to macs 0.7, {DONE}"
    left = 3 * 3.6 + TIMING_S + 6 * CALIBRATION_FACTOR * 0.1 + 2 * (QAT_FACTOR * 3 + 0.6) + 4.5
    assert lines[5].startswith(f"time: about {round(left)} s, at")


def test_unlabelled_images_come_beside_labelled_ones(folder: Path) -> None:
    recipe = tiny.recipe(folder)
    labelled, others = Source(Path("a"), "lmdb", 10), Source(Path("b"), "images", 70)
    images = Images((labelled,), (labelled,), (others,), (), ())
    assert count_images(recipe, images) == Counts(2 * 10 + 20, 20, 20)
    read = recipe.model_copy(update={"task": recipe.task.model_copy(update={"directions": False})})
    assert count_images(read, images) == Counts(10 + 10, 10, 20)
    # Of 10 images without labels two are held back; all are turned.
    assert count_images(recipe, Images((), (), (), (), (labelled,))) == Counts(16, 4, 10)


def test_directions_are_told_by_labels(folder: Path) -> None:
    task = tiny.recipe(folder).task.model_copy(update={"directions": None})
    recipe = tiny.recipe(folder).model_copy(update={"task": task})
    named = Source(Path("a"), "list", 3, texts=("0", "180", "0"))
    words = Source(Path("b"), "list", 3, texts=("EXIT", "180", "NO"))
    assert count_images(recipe, Images((named,), (words,), (), (), ())) == Counts(3, 6, 6)


def test_work_of_a_recipe_without_steps_to_train(folder: Path) -> None:
    work = work_of(tiny.recipe(folder, steps={"quantize": {"epochs": 0}}), Counts(6, 6, 6), [Header(9, 9, "PNG")], 0)
    assert (work.cells, work.scan_images, work.epochs, work.qat_epochs, work.reconstructed) == (0, 0, 0, 0, 0)


def test_memory_is_in_the_line(folder: Path) -> None:
    recipe = tiny.recipe(folder)
    stages = (Stage("report", "x", 1.0),)
    lines = estimate_lines(recipe, Estimate(stages, PACE, 20_000_000, 30_000_000, 500_000_000, 1_000_000))
    assert lines[2] == ("memory: about 550 MB: 500 MB of the program, 20 MB of images, 30 MB of a training step")
    assert lines[3] == f"disk: at most about 1.0 MB in {recipe.out}, pictures and reports aside"
    lines = estimate_lines(recipe, Estimate(stages, PACE, None, 0, 0, 0))
    assert lines[2] == "memory: about 0.0 MB: images unknown"


def test_memory_for_gradients_is_what_autograd_keeps() -> None:
    layer = torch.nn.Linear(4, 8, bias=False)
    x = torch.ones(2, 4)
    # The layer keeps its input, 2 x 4 floats; ReLU its result, 2 x 8. The weight needs no gradient of the input.
    assert saved_for_gradients(lambda: torch.relu(layer(x))) == 4 * (2 * 4 + 2 * 8)


def test_a_real_model_is_measured(folder: Path) -> None:
    recipe = tiny.recipe(folder)
    found = estimate(recipe, find_problems(recipe))
    assert all(stage.seconds for stage in found.stages)
    assert found.pace.saved_bytes > 4 * 8 * 8 * 16, "at least the first layer's output"
    assert found.images_bytes
    assert not recipe.out.exists()
