"""How models of other projects are fed, against the formulas of those projects in numpy."""

import re
from typing import Any

import cv2
import numpy as np
import pytest

from compress.data.processing import (
    PRESETS,
    Processing,
    check_channels,
    find_preset,
    fingerprint_parts,
    make_processing,
)
from compress.data.transforms import Placed, fit_scene, normalise_scenes, place_scene, preprocess_crop
from compress.errors import DataError

CROP = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
SCENE = np.random.default_rng(1).integers(0, 256, (60, 120, 3), np.uint8)


def test_doctr_pads_with_black_before_it_normalises() -> None:
    preset = find_preset("doctr", "recognition")
    canvas = np.zeros((32, 128, 3), np.uint8)
    canvas[:, :48] = cv2.resize(CROP, (48, 32))[:, :, ::-1]  # RGB
    wanted = (canvas / 255 - [0.694, 0.695, 0.693]) / [0.299, 0.296, 0.301]
    found = preprocess_crop(CROP, preset.input, preset.processing)
    np.testing.assert_allclose(found, wanted.transpose(2, 0, 1), atol=1e-5)
    assert (preset.processing.outputs, preset.processing.blank, preset.use_space) == ("logits", "last", False)


def test_easyocr_is_gray_and_repeats_the_last_column() -> None:
    preset = find_preset("easyocr", "recognition")
    gray = cv2.cvtColor(cv2.resize(CROP, (96, 64), interpolation=cv2.INTER_CUBIC), cv2.COLOR_BGR2GRAY)
    found = preprocess_crop(CROP, preset.input, preset.processing)
    assert found.shape == (1, 64, 320)
    np.testing.assert_allclose(found[0, :, :96], (gray / 255 - 0.5) / 0.5, atol=1e-5)
    np.testing.assert_array_equal(found[0, :, 96:], np.repeat(found[0, :, 95:96], 224, axis=1))


def test_mmocr_stretches_to_its_size() -> None:
    preset = find_preset("mmocr", "recognition")
    gray = cv2.cvtColor(cv2.resize(CROP, (100, 32)), cv2.COLOR_BGR2GRAY).astype(float)
    np.testing.assert_allclose(preprocess_crop(CROP, preset.input, preset.processing)[0], (gray - 127) / 127, atol=1e-5)


@pytest.mark.parametrize(("side", "left"), [("right", 0), ("left", 72), ("center", 36)])
def test_where_the_padding_goes_and_what_it_is(side: str, left: int) -> None:
    processing = make_processing("recognition", changes={"pad_side": side, "pad_value": 255, "mean": 0.25, "std": 0.5})
    found = preprocess_crop(CROP, (3, 32, 120), processing)
    whole = preprocess_crop(CROP, (3, 32, 48), processing)
    np.testing.assert_array_equal(found[:, :, left : left + 48], whole)
    rest = np.delete(found, range(left, left + 48), axis=2)
    assert rest.shape[2] == 72
    assert np.allclose(rest, 1.5)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"resize": "pad"}, Placed((64, 64), 0, 0, 32, 64)),
        ({"resize": "pad", "pad_side": "center"}, Placed((64, 64), 16, 0, 32, 64)),
        ({"resize": "pad", "pad_side": "left"}, Placed((64, 64), 32, 0, 32, 64)),
        ({"resize": "stretch"}, Placed((64, 64), 0, 0, 64, 64)),
        ({"resize": "limit"}, Placed((64, 128), 0, 0, 64, 128)),
    ],
)
def test_scenes_in_an_input_of_fixed_size(changes: dict[str, Any], place: Placed) -> None:
    processing = make_processing("detection", changes={**changes, "pad_value": 0})
    assert place_scene(60, 120, 640, (3, 64, 64), processing) == place
    found = normalise_scenes([fit_scene(SCENE, place, processing)], processing, place)[0]
    resized = cv2.resize(SCENE, (place.width, place.height))
    canvas = np.zeros((*place.input, 3), np.uint8)
    place.cut(canvas.transpose(2, 0, 1))[:] = resized.transpose(2, 0, 1)
    wanted = (canvas / 255 - processing.mean) / processing.std
    np.testing.assert_allclose(found, wanted.transpose(2, 0, 1), atol=1e-5)
    np.testing.assert_array_equal(
        place.cut(np.arange(np.prod(place.input)).reshape(place.input)).shape, resized.shape[:2]
    )


def test_every_preset_is_consistent() -> None:
    for name, kinds in PRESETS.items():
        for kind, preset in kinds.items():
            assert make_processing(kind, name) == preset.processing
            check_channels(preset.input, preset.processing)
    assert find_preset("ppocr", "recognition").processing == Processing()


def test_one_figure_is_for_every_channel_and_gray_averages_the_preset_s() -> None:
    assert make_processing("recognition", changes={"mean": 0.4}).mean == (0.4, 0.4, 0.4)
    assert make_processing("recognition", "doctr", {"color": "gray"}).mean == pytest.approx((0.694,))


@pytest.mark.parametrize(
    ("kind", "preset", "changes", "message"),
    [
        ("recognition", "paddle", {}, "preset: got 'paddle'. Must be one of ppocr, doctr, easyocr, mmocr."),
        ("classification", "easyocr", {}, "preset: 'easyocr' has no settings for classification. Use ppocr, doctr"),
        ("recognition", "ppocr", {"color": "cmyk"}, "color: got 'cmyk'. Must be one of bgr, rgb, gray."),
        ("recognition", "ppocr", {"resize": "limit"}, "resize: got 'limit'. Must be one of pad, stretch."),
        ("recognition", "ppocr", {"mean": 127}, "mean: got [127, 127, 127]. Must be 3 numbers of values in [0, 1]"),
        ("recognition", "ppocr", {"mean": (0.5, 0.5)}, "mean: got [0.5, 0.5]. Must be 3 numbers"),
        ("recognition", "ppocr", {"std": 0}, "std: got [0, 0, 0]. Must be 3 numbers"),
        ("recognition", "ppocr", {"blank": -1}, "blank: got -1. Must be first, last, or the number"),
        ("recognition", "ppocr", {"blank": "middle"}, "blank: got 'middle'."),
        ("detection", "ppocr", {"blank": "last"}, "blank: not for detection. Remove it."),
        ("detection", "ppocr", {"pad_value": "edge"}, "pad_value: got 'edge'. Not for detection"),
        ("recognition", "ppocr", {"pad_value": 300}, "pad_value: got 300. Must be mean, edge, or a gray"),
        ("recognition", "ppocr", {"pad_value": True}, "pad_value: got True."),
    ],
)
def test_what_is_not_allowed(kind: str, preset: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        make_processing(kind, preset, changes)


def test_only_what_is_not_as_usual_is_part_of_an_identity() -> None:
    assert fingerprint_parts(Processing(), Processing()) == {}
    assert fingerprint_parts(Processing(blank="last"), Processing())["processing"]["blank"] == "last"
