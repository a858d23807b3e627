"""Models that ship with the package are found by name."""

import pytest

from compress.data.synthetic import write_dataset
from compress.data.synthetic_scenes import write_scenes
from compress.errors import ModelError
from compress.graph import load_model, to_torch
from compress.measure.session import Session
from compress.tasks.classification import DirectionTask
from compress.tasks.detection import DetectionTask
from compress.tasks.recognition import RecognitionTask
from compress.zoo import models_folder, shipped, shipped_names


def test_every_shipped_model_is_a_file():
    assert all(shipped(name).is_file() for name in shipped_names())


def test_an_unknown_name_is_refused_with_the_allowed_ones():
    with pytest.raises(ModelError, match=r"'no_such_model' is no shipped model. Allowed: "):
        shipped("no_such_model")


def test_the_classifier_tells_directions_of_crops_it_has_not_seen(tmp_path):
    """It scores .8805 on 2000 images; on these 240 three standard deviations (6 points) less still pass."""
    labels = write_dataset(tmp_path, 120, seed=987)
    score = DirectionTask([], [labels], directions=True).evaluate(Session(shipped("direction_classifier")).run)
    assert score.metric > 0.82


def test_the_classifier_is_small_and_can_be_trained_on():
    path = shipped("direction_classifier")
    assert path.stat().st_size < 620_000
    kinds = [type(module).__name__ for module in to_torch(load_model(path)).modules()]
    assert kinds.count("BatchNorm2d") == 35


def test_the_recogniser_reads_crops_it_has_not_seen(tmp_path):
    """It reads .5200 of 1000 crops exactly; on these 120 three standard deviations (14 points) less still pass."""
    labels = write_dataset(tmp_path, 120, seed=987)
    task = RecognitionTask([], [labels], charset=models_folder() / "latin.txt", widths=(96, 160, 320))
    score = task.evaluate(Session(shipped("text_recogniser")).run)
    assert score.metric > 0.38
    assert score.details["ned"] > 0.7


def test_the_recogniser_is_small_and_can_be_trained_on():
    path = shipped("text_recogniser")
    assert path.stat().st_size < 2_000_000
    kinds = [type(module).__name__ for module in to_torch(load_model(path)).modules()]
    assert (kinds.count("BatchNorm2d"), kinds.count("LSTM")) == (35, 2)


@pytest.mark.slow
def test_the_detector_finds_text_in_scenes_it_has_not_seen(tmp_path):
    """It scores .9328 on 100 scenes; on these 16 it may be 10 points less."""
    labels = write_scenes(tmp_path, 16, seed=987)
    score = DetectionTask([], [labels], side=640).evaluate(Session(shipped("text_detector")).run)
    assert score.metric > 0.83


def test_the_detector_is_small_and_can_be_trained_on():
    path = shipped("text_detector")
    assert path.stat().st_size < 2_400_000
    kinds = [type(module).__name__ for module in to_torch(load_model(path)).modules()]
    assert (kinds.count("BatchNorm2d"), kinds.count("ConvTranspose2d")) == (49, 2)
