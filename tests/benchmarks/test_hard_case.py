"""`hard_case`: the network is the published one, and its rows differ in the plan alone."""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.studies import hard_case
from compress import artifacts
from compress.artifacts import Score, Scored
from compress.recipe import SensitivityStep, load_recipe
from tests.scripts.running import run_module

RULES = ("price", "threshold", "product")


def test_the_network_has_as_many_weights_as_the_published_one():
    network = hard_case.ResNetCrnn(classes=3939)
    weights = sum(value.numel() for name, value in network.state_dict().items() if "num_batches" not in name)
    # lightweight-OCR, output/resnet18_64_prune_0.9/README.md; Paddle counts BatchNorm's statistics, too.
    assert weights == 12_014_403
    with_se = hard_case.ResNetCrnn(classes=3939, se=True)
    assert sum(value.numel() for value in with_se.parameters()) > 12_014_403


def test_a_column_of_output_is_four_of_the_image():
    network = hard_case.ResNetCrnn(classes=37, scale=0.125, se=True).eval()
    with torch.no_grad():
        outputs = network(torch.randn(2, 3, 32, 100))
    assert outputs.shape == (2, 25, 37)
    torch.testing.assert_close(outputs.sum(dim=2), torch.ones(2, 25))


def test_words_are_letters_and_digits_in_lower_case():
    for number in range(20):
        data, text = hard_case.word(np.random.default_rng(number))
        assert text.isalnum()
        assert len(text) <= 5
        assert text == text.lower()
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).ndim == 3


def test_rows_differ_in_the_plan_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(hard_case, "load_recipe", lambda path, sets=(): load_recipe(path, sets, check_files=False))
    options = argparse.Namespace(work=tmp_path, set=["sensitivity.images=8"])
    rows = {name: hard_case.row_recipe(name, options) for name in hard_case.ROWS}
    for name, recipe in rows.items():
        prune = next(step for step in recipe.steps if step.name == "prune")
        assert prune.target.as_dict() == {"macs": 0.1}
        assert (prune.search is not None) == (name == "search")
        assert prune.allocation == {"recovered": "threshold"}.get(name, name if name in RULES else "price")
        assert (recipe.find_step(SensitivityStep) is None) == (name == "uniform")
        others = [step for step in recipe.steps if step.name in ("teacher", "finetune")]
        assert others == [step for step in rows["price"].steps if step.name in ("teacher", "finetune")]
        assert recipe.out == tmp_path / name


def test_rows_share_a_scan_made_in_the_same_way_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(hard_case, "load_recipe", lambda path, sets=(): load_recipe(path, sets, check_files=False))
    options = argparse.Namespace(work=tmp_path, set=[])
    for name in ("report", "teacher", "sensitivity"):
        artifacts.write_atomic(tmp_path / "price" / f"{name}.json", b"{}")
    for row, scan in {"search": True, "recovered": False, "uniform": False}.items():
        recipe = hard_case.take_shared(hard_case.row_recipe(row, options), options)
        assert (recipe.out / "teacher.json").exists()
        assert (recipe.out / "sensitivity.json").exists() == scan


def test_a_kept_score_is_read_back(tmp_path):
    kept = Scored("f", Score(0.5, "exact", 2), {"exact": ((1.0, 1.0), (0.0, 1.0))})
    artifacts.save(kept, tmp_path / "scores" / "test.finetuned.json")
    found = hard_case.scored(Path(tmp_path), "test", "finetuned")
    assert found.score.metric == 0.5
    np.testing.assert_array_equal(found.tallies["exact"], [[1, 1], [0, 1]])


def test_help_has_examples():
    result = run_module("benchmarks.studies.hard_case", "--help")
    assert result.returncode == 0, result.stderr
    assert "python -m benchmarks.studies.hard_case --out runs/hard_case" in result.stdout
