"""Which form the recurrent layers of an int8 file get, and that the file is the one that was checked."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest

from compress.artifacts import Parity
from compress.errors import ParityError
from compress.export import Exported
from compress.export.recurrent_forms import RecurrentForm
from compress.graph import to_torch
from compress.pipeline.stages import int8_file
from compress.pipeline.stages.int8_file import (
    SIMILAR_BYTES,
    TOLERANCE,
    Candidate,
    best_candidate,
    export_checked,
    export_form,
)
from compress.quant import calibrate, prepare_qat
from compress.recipe import QuantizeStep
from tests.export import files
from tests.export import recurrent as crnn
from tests.quant import nets


def candidate(form: RecurrentForm, metric: float, size: int) -> Candidate:
    """A file of exactly so many bytes."""
    model = onnx.ModelProto()
    model.doc_string = "x" * (size - 3)  # the field's key and two bytes of length
    assert model.ByteSize() == size
    return Candidate(form, Exported(model, {}), metric)


LOW, LOWER = 0.7 - TOLERANCE + 1e-9, 0.7 - TOLERANCE - 1e-9
SIMILAR, LARGER = int(1000 * SIMILAR_BYTES), int(1000 * SIMILAR_BYTES) + 1


@pytest.mark.parametrize(
    ("sizes", "metrics", "best"),
    [
        ((4000, 1000, 1001), (0.7, 0.7, 0.7), "weights"),  # all the same: the one that reads alike in every batch
        ((4000, 1001, 1000), (0.7, 0.71, 0.709), "weights"),  # of equally small ones the better
        ((4000, 1000, 1000), (0.7, 0.69, 0.7), "dynamic"),
        ((4000, 1000, 1000), (0.7, LOW, LOW), "weights"),  # a little below the best is as good
        ((4000, 1000, 1000), (0.7, LOWER, LOWER), "float"),  # more than a little is not
        ((4000, 1000, 1000), (0.7, LOW, LOWER), "weights"),
        ((4000, SIMILAR, 1000), (0.7, 0.7, LOW), "weights"),  # 2 % more bytes are not more
        ((4000, LARGER, 1000), (0.7, 0.7, LOW), "dynamic"),
        ((4000, 1000, 1000), (0.1, 0.7, 0.7), "weights"),
        ((1000, 1000, 1000), (0.7, 0.7, 0.7), "float"),
        ((1000, 4000, 4000), (0.7, 0.7, 0.7), "float"),  # an LSTM so small that steps cost more than weights
    ],
)
def test_best_candidate(sizes: tuple[int, ...], metrics: tuple[float, ...], best: str) -> None:
    forms: tuple[RecurrentForm, ...] = ("float", "weights", "dynamic")
    made = [candidate(*values) for values in zip(forms, metrics, sizes, strict=True)]
    assert best_candidate(made).form == best


@pytest.mark.parametrize(
    ("times", "best"),
    [
        ((1.0, 3.0, 2.0), "dynamic"),
        ((1.0, 2.0, 2.0), "weights"),
        ((1.0, 2.04, 2.0), "weights"),
        ((1.0, 3.0, 1.0), "dynamic"),
    ],
)
def test_of_equally_small_ones_the_faster(times: tuple[float, ...], best: str) -> None:
    """Two hundredths are no difference: then the better one."""
    forms: tuple[RecurrentForm, ...] = ("float", "weights", "dynamic")
    made = [
        replace(candidate(form, 0.7, 4000 if form == "float" else 1000), ms=ms)
        for form, ms in zip(forms, times, strict=True)
    ]
    assert best_candidate(made).form == best


def test_a_single_candidate_is_the_best() -> None:
    only = candidate("float", 0.0, 1000)
    assert best_candidate([only]) is only


# --- with networks ----------------------------------------------------------------------------------------------


def form_of(model: onnx.ModelProto) -> str:
    """What the recurrent layers of a file look like."""
    found = files.count_ops(model)
    if found["DynamicQuantizeLSTM"]:
        return "dynamic"
    layer = next(node for node in model.graph.node if node.op_type in ("LSTM", "GRU"))
    return "float" if layer.input[1] in files.initialisers(model) else "weights"


def export(name: str, asked: str, score: Callable[[onnx.ModelProto], float]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    step = QuantizeStep(recurrent=asked, optimize="size")
    images = nets.images(3, seed=1).numpy()
    model, quantized = export_checked(crnn.prepared(name), crnn.template(name), step, score, images)
    assert (quantized.parity.count, quantized.parity.max_steps <= 1.01) == (3, True)
    return model, quantized.notes


def never(_: onnx.ModelProto) -> float:
    raise AssertionError("nothing is to be chosen")


@pytest.mark.parametrize(
    ("name", "asked", "made", "note"),
    [
        ("lstm1_both", "float", "float", "recurrent layers: float, as the recipe says"),
        ("lstm1_both", "weights", "weights", "recurrent layers: weights, as the recipe says"),
        ("lstm2", "dynamic", "dynamic", "recurrent layers: dynamic, as the recipe says"),
        ("gru1", "weights", "weights", "recurrent layers: weights, as the recipe says"),
        ("gru1", "dynamic", "weights", "recurrent layers: weights; dynamic exists for LSTM layers only"),
    ],
)
def test_a_form_that_is_asked_for_is_what_one_gets(name: str, asked: str, made: str, note: str) -> None:
    """Or one is told: nothing is scored, since nothing is chosen."""
    model, notes = export(name, asked, never)
    assert (form_of(model), notes) == (made, (note,))


@pytest.mark.parametrize(
    ("metrics", "best"),
    [
        ({"float": 0.8, "weights": 0.8, "dynamic": 0.81}, "dynamic"),
        ({"float": 0.8, "weights": 0.8, "dynamic": 0.8}, "weights"),
        ({"float": 0.8, "weights": 0.8, "dynamic": 0.7}, "weights"),
        ({"float": 0.8, "weights": 0.7, "dynamic": 0.6}, "float"),
    ],
)
def test_every_form_is_scored_and_the_note_says_so(metrics: dict[str, float], best: str) -> None:
    seen = []

    def score(model: onnx.ModelProto) -> float:
        seen.append(form_of(model))
        return metrics[form_of(model)]

    model, notes = export("lstm2_both", "auto", score)
    assert seen == ["float", "weights", "dynamic"]
    assert form_of(model) == best
    (note,) = notes
    assert note.startswith(f"recurrent layers: {best}, of float 0.8000 in ")
    assert f"{model.ByteSize() / 1000:.1f} KB" in note


def test_a_gru_has_two_forms() -> None:
    model, (note,) = export("gru2_both", "auto", lambda _: 0.5)
    assert form_of(model) == "weights"
    assert "dynamic" not in note


@pytest.mark.parametrize(
    ("asked", "notes"),
    [("auto", ()), ("dynamic", ("recurrent: dynamic changes nothing: the model has no LSTM or GRU layer",))],
)
def test_without_recurrent_layers(asked: str, notes: tuple[str, ...]) -> None:
    step = QuantizeStep(recurrent=asked, optimize="size")
    module, images = nets.prepared("plain"), nets.images(3, seed=1).numpy()
    model, quantized = export_checked(module, nets.template("plain"), step, never, images)
    assert quantized.notes == notes
    assert model.SerializeToString() == export_form(module, nets.template("plain"), step).model.SerializeToString()


def test_epochs_are_scored_with_int8_weights_while_the_form_is_open() -> None:
    """The form that computes in float, so that readings do not depend on the batch while training."""
    for asked, form in (("auto", "weights"), ("float", "float"), ("dynamic", "dynamic")):
        made = export_form(
            crnn.prepared("lstm1"), crnn.template("lstm1"), QuantizeStep(recurrent=asked, optimize="size")
        )
        assert form_of(made.model) == form


@pytest.mark.parametrize("bits", [7, 8])
def test_weight_bits_reach_the_integers(bits: int) -> None:
    template = crnn.template("lstm1")
    module = prepare_qat(to_torch(template), weight_bits=bits)
    calibrate(module, [nets.images().numpy()])
    made = export_form(module, template, QuantizeStep(recurrent="dynamic", weight_bits=bits))
    (layer,) = (node for node in made.model.graph.node if node.op_type == "DynamicQuantizeLSTM")
    stored = files.initialisers(made.model)
    for name in layer.input[1:3]:
        assert np.abs(onnx.numpy_helper.to_array(stored[name]).astype(int)).max() == 2 ** (bits - 1) - 1


def fails_for(forms: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def check(module: object, exported: Exported, images: np.ndarray, *, reading: object) -> Parity:
        if form_of(exported.model) in forms:
            raise ParityError("the LSTM differs by 0.5")
        return Parity(0, 0, 0, 0, 1, 1, len(images))

    monkeypatch.setattr(int8_file, "check_parity", check)


def test_integers_too_coarse_for_the_network_are_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next best is, and the report says why."""
    fails_for({"dynamic"}, monkeypatch)
    metrics = {"float": 0.8, "weights": 0.8, "dynamic": 0.9}
    model, notes = export("lstm1", "auto", lambda made: metrics[form_of(made)])
    assert form_of(model) == "weights"
    assert notes[0].startswith("recurrent layers: weights, of float 0.8000 in ")
    assert notes[1] == "recurrent layers: not dynamic, the LSTM differs by 0.5"


@pytest.mark.parametrize(("asked", "wrong"), [("auto", {"weights", "dynamic"}), ("dynamic", {"dynamic"})])
def test_a_file_that_is_wrong_is_no_choice(asked: str, wrong: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What computes in float must agree, and so must what was requested: nothing else is given instead."""
    fails_for(wrong, monkeypatch)
    with pytest.raises(ParityError, match=r"differs by 0\.5"):
        export("lstm1", asked, lambda _: 0.8)
