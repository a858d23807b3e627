"""The studies behind docs/sensitivity.md, on a network that is scanned in seconds."""

from pathlib import Path

import pytest

from benchmarks.studies import rank_channels, rank_measures, rank_ranges, time_scan
from tests.pipeline import tiny


def test_equal_values_share_a_rank() -> None:
    """By hand: ranks 2.5, 1, 2.5 and 1, 2, 3."""
    assert rank_measures.ranks([0.5, 0.1, 0.5]).tolist() == [2.5, 1.0, 2.5]
    assert rank_measures.spearman([0.5, 0.1, 0.5], [1.0, 2.0, 3.0]) == pytest.approx(0.0)
    assert rank_measures.spearman([1, 2, 9], [0.1, 0.2, 0.3]) == pytest.approx(1.0)


def test_both_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_inputs(tmp_path, crops=12)
    tiny.recipe(tmp_path, steps={"sensitivity": {"ratios": [0.5]}})
    recipe = str(tmp_path / "recipe.yaml")
    rank_measures.main([recipe, "--images", "8", "--out", str(tmp_path / "rank")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| metric", "| divergence", "| agreement"]
    time_scan.main([recipe, "--measure", "divergence", "--images", "8"])
    assert capsys.readouterr().out.startswith("3 cells of 3 groups, divergence: from scratch ")


def test_what_each_criterion_leaves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_inputs(tmp_path, crops=12)
    tiny.recipe(tmp_path, steps={"sensitivity": {"ratios": [0.5]}})
    rank_channels.main([str(tmp_path / "recipe.yaml"), "--ratio", "0.5"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["0", "-"], *(["0.5", name] for name in ("fpgm", "l1", "l2", "obs"))]
    assert rows[0][3] == rows[0][4]


def test_by_what_ranges_are_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_inputs(tmp_path, crops=12)
    tiny.recipe(tmp_path, steps={"quantize": {"epochs": 0, "calibration": 8}})
    given = [
        str(tmp_path / "recipe.yaml"),
        "--held",
        str(tmp_path / "train" / "labels.txt"),
        "--images",
        "8",
        "--elsewhere",
        "6",
    ]
    rank_ranges.main(given)
    ways, chosen = capsys.readouterr().out.split("\n\n")
    names = [line.split(" | ")[0].strip("| ") for line in ways.splitlines()]
    assert names[:2] == ["least squared error, symmetric", "percentile 99.99, symmetric"]
    assert names[-1] == "percentile 99.5, two-sided"
    assert len(names) == 8
    rows = [line.strip("| ").split(" | ") for line in chosen.splitlines()[2:]]
    assert [row[0] for row in rows] == ["divergence, 8", "agreement, 8", "nearness, 8", rank_ranges.HELD]
    held = [float(line.split(" | ")[-1].strip("| ")) for line in ways.splitlines()]
    assert float(rows[-1][3]) == max(held)
