"""Processes that score together: their shares are what one process finds, to the last bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.data.labels import ListRules
from compress.tasks.base import SharedScoring
from compress.tasks.classification import DirectionTask
from compress.tasks.detection import DetectionTask
from compress.tasks.recognition import RecognitionTask
from tests.tasks.test_detection import dark_is_text, write_scenes
from tests.tasks.test_recognition import write_list

RULES = ListRules(max_skipped=1.0, allow_overlap=True)
SHAPE = (3, 8, 64)


def task(kind: str, folder: Path) -> Any:
    if kind == "detection":
        scenes = write_scenes(folder / "scenes", 8)
        return DetectionTask([scenes], [scenes], input_shape=(3, 64, 96), side=96, rules=RULES)
    crops = write_list(folder / "crops", ["ab", "ba", "a", "b"] * 5, [8 + 7 * (number % 16) for number in range(20)])
    if kind == "classification":
        return DirectionTask([crops], [crops], input_shape=SHAPE, eval_batch_size=3, rules=RULES)
    (folder / "dict.txt").write_text("a\nb\n")
    settings: dict[str, Any] = {"input_shape": SHAPE, "widths": [32, 64], "eval_batch_size": 3, "rules": RULES}
    return RecognitionTask([crops], [crops], charset=folder / "dict.txt", **settings)


def predict(kind: str, images: np.ndarray) -> np.ndarray:
    """Outputs that depend on the whole batch, as those of a dynamic LSTM do."""
    if kind == "detection":
        return dark_is_text(images)
    rng = np.random.default_rng(int(np.abs(images).sum() * 1000))
    outputs = rng.random((len(images), 2) if kind == "classification" else (len(images), 16, 4), np.float32)
    return outputs / outputs.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("limit", [None, 7])
@pytest.mark.parametrize("kind", ["classification", "recognition", "detection"])
def test_shares_together_are_what_one_process_finds(kind: str, limit: int | None, tmp_path: Path) -> None:
    made = task(kind, tmp_path)
    assert isinstance(made, SharedScoring)
    fed: list[bytes] = []

    def run(images: np.ndarray) -> np.ndarray:
        fed.append(images.tobytes())
        return predict(kind, images)

    whole = made.examine(run, limit)
    batches, fed[:] = list(fed), []
    shares = [made.judge_share(run, limit, (rank, 3)) for rank in range(3)]
    assert sorted(fed) == sorted(batches)  # the same batches, each once
    assert all(shares)
    combined = made.combine({place: said for share in reversed(shares) for place, said in share.items()}, limit)
    assert combined.score == whole.score == made.evaluate(run, limit)
    assert [case.index for case in combined.cases] == [case.index for case in whole.cases]
    assert [(case.found, case.error) for case in combined.cases] == [(case.found, case.error) for case in whole.cases]
    for name, rows in whole.tallies.items():
        assert np.array_equal(combined.tallies[name], rows)
