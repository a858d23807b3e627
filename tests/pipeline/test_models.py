"""Models and tasks however they are named, and one clear line where there is none."""

import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compress.errors import CompressError, DataError, InputSizeError, ModelError
from compress.graph import is_quantised
from compress.measure.session import Session
from compress.pipeline import inspect_model, make_task, open_any, open_model, score_in, score_model
from compress.pipeline.evaluation import default_threads
from compress.pipeline.models import call_factory
from compress.tasks.classification import DirectionTask
from compress.tasks.recognition import RecognitionTask
from tests.pipeline import tiny
from tests.quant import nets

FACTORY = "tests.pipeline.tiny:build"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_inputs(tmp_path_factory.mktemp("inputs"), crops=6)


def outputs(model: onnx.ModelProto) -> np.ndarray:
    return Session(model).run(np.ones((2, *tiny.SHAPE), np.float32))


# --- models -----------------------------------------------------------------------------------------------------


def test_file_and_factory_are_the_same_model(folder: Path) -> None:
    opened = open_model(FACTORY, input_shape=tiny.SHAPE)
    np.testing.assert_array_equal(outputs(opened), outputs(open_model(str(folder / "model.onnx"))))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_factory_with_weights(tmp_path: Path, suffix: str) -> None:
    module = tiny.build()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.5)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(module.state_dict(), path)
    else:
        save_file(module.state_dict(), path)
    opened = open_model(FACTORY, path, tiny.SHAPE)
    with torch.no_grad():
        expected = module(torch.ones(2, *tiny.SHAPE)).numpy()
    np.testing.assert_allclose(outputs(opened), expected, atol=1e-6)
    assert not np.allclose(outputs(open_model(FACTORY, None, tiny.SHAPE)), expected, atol=1e-4)


def refused(spec: str, weights: Path | None = None) -> str:
    """The one line that a user sees."""
    with pytest.raises(CompressError) as caught:
        open_model(spec, weights, tiny.SHAPE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_with_other_names(tmp_path: Path) -> None:
    """What is missing and what is unexpected is listed by name."""
    state = tiny.build().state_dict()
    state["backbone.weight"] = state.pop("stem.0.weight")
    save_file(state, tmp_path / "w.safetensors")
    assert refused(FACTORY, tmp_path / "w.safetensors") == (
        f"{tmp_path / 'w.safetensors'}: does not fit Tiny: 1 missing (stem.0.weight), 1 unexpected (backbone.weight). "
        "Expected the state_dict of that module."
    )
    save_file({"wrong": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"\d+ missing \(stem\.0\.weight, .* and \d+ more\), 1 unexpected \(wrong\)"):
        open_model(FACTORY, tmp_path / "w.safetensors")


def test_weights_of_other_sizes(tmp_path: Path) -> None:
    torch.save(tiny.three_classes().state_dict(), tmp_path / "w.pt")
    assert "does not fit Tiny: 2 of another size (fc.weight: [3, 128], must be [2, 128]," in refused(
        FACTORY, tmp_path / "w.pt"
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_of_distributed_data_parallel(tmp_path: Path, suffix: str) -> None:
    """`module.` before every name is left out, and that is said; a module's own name is not."""
    state = {f"module.{name}": value for name, value in tiny.build().state_dict().items()}
    path = tmp_path / f"w{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(state, path)
    said: list[str] = []
    opened = open_model(FACTORY, path, tiny.SHAPE, said.append)
    np.testing.assert_array_equal(outputs(opened), outputs(open_model(FACTORY, None, tiny.SHAPE)))
    assert said == [f"{path}: every name begins with `module.`, as DistributedDataParallel saves it: left out."]
    state["stem.0.weight"] = state.pop("module.stem.0.weight")
    save(state, path)
    assert "does not fit Tiny: " in refused(FACTORY, path)


def test_a_whole_module_in_the_place_of_weights(tmp_path: Path) -> None:
    """torch's own words, which advise to unpickle it, are not shown."""
    path = tmp_path / "w.pt"
    torch.save(tiny.build(), path)
    assert refused(FACTORY, path) == (
        f"{path}: holds a whole module or another object (tests.pipeline.tiny.Tiny), not weights alone. Save "
        "model.state_dict() with torch.save, and give that file."
    )


@pytest.mark.parametrize("name", ["w.pt", "w.PTH", "w.safetensors"])
def test_weights_in_the_place_of_a_model(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    torch.save(tiny.build().state_dict(), path)
    assert refused(str(path)) == (
        f"{path}: not an ONNX file, but PyTorch's by its name. Give package.module:factory, which makes it, "
        f"with --weights {path}; or export it as .onnx."
    )


def test_weights_inside_a_checkpoint(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": tiny.build().state_dict()}, tmp_path / "w.pt")
    assert "holds a dictionary of epoch, state_dict. Save what lies in 'state_dict' alone" in refused(
        FACTORY, tmp_path / "w.pt"
    )
    torch.save(
        {"net": {f"module.{name}": value for name, value in tiny.build().state_dict().items()}}, tmp_path / "w.pt"
    )
    assert "Save what lies in 'net' alone" in refused(FACTORY, tmp_path / "w.pt")
    torch.save(torch.zeros(2), tmp_path / "w.pt")
    assert "does not fit Tiny: it holds a Tensor." in refused(FACTORY, tmp_path / "w.pt")


def test_missing_weights(tmp_path: Path) -> None:
    assert refused(FACTORY, tmp_path / "no.pt").endswith(
        "no.pt: no such file. Expected weights as .safetensors or .pt."
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_that_are_none(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"not weights at all")
    assert "cannot be loaded into Tiny" in refused(FACTORY, path)


class Evil:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return (Path, ("made_by_unpickling",))


def test_weights_are_never_unpickled(tmp_path: Path) -> None:
    with (tmp_path / "w.pt").open("wb") as stream:
        pickle.dump(Evil(), stream)
    assert "cannot be loaded into Tiny" in refused(FACTORY, tmp_path / "w.pt")


def test_a_file_has_its_own_weights(folder: Path) -> None:
    text = refused(str(folder / "model.onnx"), Path("w.pt"))
    assert text.startswith("--weights: w.pt goes with package.module:factory; ")
    with pytest.raises(ModelError, match=r"--weights: w\.pt goes with package"):
        open_any(str(folder / "model.onnx"), Path("w.pt"))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("no.onnx", "no.onnx: no such file. Expected an .onnx file."),
        ("a:b.onnx", "a:b.onnx: no such file. Expected an .onnx file."),
        (
            "nowhere.at_all:build",
            "nowhere.at_all:build: cannot be imported (ModuleNotFoundError: No module named 'nowhere')",
        ),
        (
            "tests.pipeline.tiny:nothing",
            "cannot be imported (AttributeError: module 'tests.pipeline.tiny' has no attribute",
        ),
        (":build", ":build: cannot be imported"),
        ("tests.pipeline.tiny:broken", "failed when called (RuntimeError: no such backbone). --debug shows where."),
        ("tests.pipeline.tiny:needs_more", "failed when called (TypeError: needs_more() missing 1 required positional"),
        ("tests.pipeline.tiny:not_a_module", "returned int. Must return a torch.nn.Module."),
    ],
)
def test_no_model(spec: str, text: str) -> None:
    assert text in refused(spec)


def test_a_module_that_cannot_be_imported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in the current folder, whatever is wrong with it."""
    (tmp_path / "my_broken_net.py").write_text("def build(:\n")
    monkeypatch.chdir(tmp_path)
    assert "my_broken_net:build: cannot be imported (SyntaxError:" in refused("my_broken_net:build")


def test_a_users_own_error_keeps_its_words() -> None:
    def raises(*_: object) -> None:
        raise DataError("labels.txt: no lines.")

    tiny.raises = raises  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"^labels\.txt: no lines\.$"):
        call_factory("tests.pipeline.tiny:raises")


def test_open_any_takes_int8_files_and_factories(folder: Path, tmp_path: Path) -> None:
    assert open_any(str(folder / "model.onnx")) == (folder / "model.onnx").read_bytes()
    assert onnx.load_from_string(open_any(FACTORY, None, tiny.SHAPE)).graph.input[0].name == "x"
    from compress.export import export_int8

    int8 = export_int8(nets.prepared("plain"), nets.template("plain")).model
    onnx.save(int8, tmp_path / "int8.onnx")
    assert is_quantised(onnx.load_from_string(open_any(str(tmp_path / "int8.onnx"))))
    with pytest.raises(ModelError, match=r"already quantised\. Start from the fp32 model"):
        open_model(str(tmp_path / "int8.onnx"))


# --- tasks ------------------------------------------------------------------------------------------------------


def test_tasks(folder: Path) -> None:
    val = (folder / "val" / "labels.txt",)
    made = make_task(
        "classification", train=(), val=val, input_shape=tiny.SHAPE, directions=True, labels=["up", "down"]
    )
    assert isinstance(made, DirectionTask)
    assert (made.input_shape, made.labels) == (tiny.SHAPE, ("up", "down"))
    own = make_task("tests.pipeline.tiny:CountingTask", train=("a",), val=val, input_shape=(3, 4, 5))  # type: ignore[arg-type]
    assert own.given == (("a",), val, (3, 4, 5))  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["detecting", "Classification", ""])
def test_an_unknown_task(kind: str) -> None:
    text = (
        f"--task: got {kind!r}. Must be classification, recognition, detection, or package.module:Class for your own."
    )
    with pytest.raises(CompressError, match=re.escape(text)):
        make_task(kind, train=(), val=())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("classification", {"side": 640}, "--side: not for classification. Remove it."),
        ("recognition", {"use_space": True, "directions": False}, "--directions/--labelled: not for recognition."),
        ("detection", {"charset": Path("a"), "use_space": False}, "--charset, --space/--no-space: not for detection."),
        ("detection", {"widths": [32]}, "--widths: not for detection. Remove it."),
        ("tests.pipeline.tiny:CountingTask", {"processes": 1}, "--processes: not for tests.pipeline.tiny:CountingTask"),
    ],
)
def test_options_of_another_task_are_refused_not_ignored(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CompressError, match=re.escape(message)):
        make_task(kind, train=(), val=(), **options)


@pytest.mark.parametrize("kind", ["classification", "recognition", "detection"])
def test_images_are_fed_in_color_unless_the_model_is_for_gray(kind: str, tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=r"input: got 1 channels\. Must be 3: .* preprocess\.color gray"):
        make_task(kind, train=(), val=(), input_shape=(1, 32, 96), charset=tmp_path if kind == "recognition" else None)


def test_recognition(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "dict.txt").write_text("a\nb\n")
    val = [folder / "val" / "labels.txt"]
    made = make_task(
        "recognition", train=(), val=val, charset=tmp_path / "dict.txt", use_space=False, widths=[160, 320]
    )
    assert isinstance(made, RecognitionTask)
    assert (made.charset.characters, made.widths, made.input_shape) == (("a", "b"), (160, 320), (3, 32, 320))
    with pytest.raises(CompressError, match=r"--charset: missing. Recognition needs the charset file"):
        make_task("recognition", train=(), val=val)


def test_nothing_to_validate_on(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"empty\.txt"):
        make_task("classification", train=(), val=[tmp_path / "empty.txt"])
    with pytest.raises(DataError, match="val: no images to validate on"):
        make_task("classification", train=(), val=[])


def test_score(folder: Path) -> None:
    task = make_task(
        "classification", train=(), val=[folder / "val" / "labels.txt"], input_shape=tiny.SHAPE, directions=True
    )
    path = folder / "model.onnx"
    whole, some = score_model(path, task, 1), score_model(path.read_bytes(), task, 1, limit=5)
    assert (whole.count, some.count) == (12, 5)
    assert 0 <= whole.metric <= 1
    other = open_model("tests.pipeline.tiny:three_classes", None, tiny.SHAPE)
    with pytest.raises(DataError, match=r"output shape .* does not fit classification"):
        score_model(other, task, 1)
    assert score_in("onnxruntime", path.read_bytes(), task, 1) == whole
    with pytest.raises(DataError, match=r"output shape .* does not fit classification"):
        score_in("onnxruntime", other.SerializeToString(), task, 1)


# --- a model's description --------------------------------------------------------------------------------------


def test_inspection() -> None:
    found = inspect_model(FACTORY, None, tiny.SHAPE)
    assert found.inputs == ("x float32 [batch, 3, height, width]",)
    assert found.cost is not None
    assert found.cost.size_bytes == open_model(FACTORY, None, tiny.SHAPE).ByteSize()
    assert (found.obstacles, found.notes) == ((), ())
    assert found.ops["Conv"] == 3
    pixels = (tiny.SHAPE[1] // 2) * (tiny.SHAPE[2] // 2)
    assert found.cost.macs == pixels * (8 * 27 + 16 * 72 + 16 * 16) + 128 * 2
    prunable = [group for group in found.groups if not group.protected]
    assert [group.channels for group in prunable] == [8, 16, 16]
    assert [group.channels for group in found.groups if group.protected] == [2]
    assert all(0 < group.macs_share <= 1 for group in prunable)


def test_threads_are_those_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = default_threads()
    assert 1 <= cores <= 1024
    for wanted, threads in (("1", 1), (str(2 * cores), cores), ("0", cores), ("4,2", cores)):
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
        assert default_threads() == threads
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # torchrun sets both
    assert default_threads() == 4


def test_modules_stay_ordinary() -> None:
    assert isinstance(tiny.build(), nn.Module)


def test_a_module_is_exported_at_a_size_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a size usual ones are tried; where none fits, the first one's reason is said, and how to name one."""
    sizes: list[tuple[int, ...]] = []

    def export(module: object, image: torch.Tensor, on_note: object) -> str:
        sizes.append(tuple(image.shape[1:]))
        if image.shape[2] != wanted:
            raise InputSizeError(f"Tiny: cannot be exported to ONNX (height {image.shape[2]}).")
        return "exported"

    monkeypatch.setattr("compress.pipeline.models.from_torch", export)
    wanted = 32
    assert open_model("tests.pipeline.tiny:build") == "exported"
    assert sizes == [(3, 48, 192), (3, 32, 320)]
    wanted = 31
    with pytest.raises(ModelError, match=r"\(height 48\); tried an image of 3 x 48 x 192 and \d+ other .* --input"):
        open_model("tests.pipeline.tiny:build")
    with pytest.raises(ModelError, match=r"\(height 40\)\.$"):
        open_model("tests.pipeline.tiny:build", None, (3, 40, 40))
