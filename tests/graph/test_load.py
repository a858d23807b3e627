"""Every way in which a file can be broken is one clear line that names it."""

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compress.errors import ModelError, OutputError
from compress.graph import deployed_bytes, is_quantised, load_model, read_model, save_model
from tests.graph.graphs import assert_same, image_graph, literal, ops, weights

WEIGHTS = {"w": weights(5, 4, 3, 3), "b": weights(5)}


def network() -> onnx.ModelProto:
    return image_graph("c = Conv (x, w, b) y = Relu (c)", WEIGHTS)


def message(path: Path, text: str) -> str:
    """The expected message: the file, then what is wrong with it."""
    return literal(f"{path}: {text}")


def test_loaded_model_is_canonical(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_model(image_graph("c = Conv (x, w) d = Add (c, o) y = Relu (d)", WEIGHTS | {"o": weights(5, 1, 1)}), path)
    loaded = load_model(path)
    assert ops(loaded) == {"Conv": 1, "Relu": 1}
    assert_same(read_model(path), loaded)


def test_path_may_be_a_text(tmp_path: Path) -> None:
    save_model(network(), tmp_path / "model.onnx")
    assert load_model(str(tmp_path / "model.onnx")).graph.node  # type: ignore[arg-type]


class TestUnreadable:
    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "none.onnx"
        with pytest.raises(ModelError, match=message(path, "no such file. Expected an .onnx file.")):
            load_model(path)

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=message(tmp_path, "is a folder. Expected an .onnx file.")):
            load_model(tmp_path)

    def test_file_for_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        path = tmp_path / "file" / "model.onnx"
        with pytest.raises(ModelError, match=message(path, "cannot be read (Not a directory).")):
            load_model(path)

    def test_empty(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        path.touch()
        with pytest.raises(ModelError, match=message(path, "is empty. Expected an .onnx file; was the download")):
            load_model(path)

    @pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
    def test_truncated(self, tmp_path: Path, kept: float) -> None:
        path = tmp_path / "model.onnx"
        whole = network().SerializeToString()
        path.write_bytes(whole[: int(kept * len(whole))])
        with pytest.raises(ModelError, match=message(path, "not an ONNX file, or truncated (")):
            load_model(path)

    @pytest.mark.parametrize("content", [b"\x80\x04garbage", b"<html>404 Not Found</html>", b"\xff" * 100])
    def test_garbage(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=message(path, "")):
            load_model(path)

    @settings(max_examples=30)
    @given(content=st.binary(min_size=1, max_size=60))
    def test_no_bytes_lead_to_another_error(self, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
        path = tmp_path_factory.getbasetemp() / "random.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=message(path, "")):
            load_model(path)

    def test_no_graph(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(onnx.ModelProto(ir_version=8, producer_name="nothing").SerializeToString())
        with pytest.raises(ModelError, match=message(path, "holds no graph with inputs and outputs.")):
            load_model(path)

    def test_invalid_graph(self, tmp_path: Path) -> None:
        broken = network()
        broken.graph.node[1].input[0] = "nowhere"
        path = tmp_path / "model.onnx"
        path.write_bytes(broken.SerializeToString())
        with pytest.raises(ModelError, match=message(path, "not a valid ONNX model (") + ".*nowhere.*Export it again"):
            load_model(path)

    def test_unknown_operator(self, tmp_path: Path) -> None:
        broken = network()
        broken.graph.node[1].op_type = "Frobnicate"
        path = tmp_path / "model.onnx"
        path.write_bytes(broken.SerializeToString())
        with pytest.raises(ModelError, match=message(path, "not a valid ONNX model (") + ".*Frobnicate"):
            load_model(path)

    def test_problem_of_canonicalising_names_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(model: onnx.ModelProto) -> onnx.ModelProto:
            raise ModelError("opset 3 cannot be converted.")

        monkeypatch.setattr("compress.graph.load.canonicalise", fail)
        path = tmp_path / "model.onnx"
        save_model(network(), path)
        with pytest.raises(ModelError, match=message(path, "opset 3 cannot be converted.")):
            load_model(path)

    def test_a_type_of_weights_that_does_not_exist(self, tmp_path: Path) -> None:
        path, model = tmp_path / "model.onnx", network()
        model.graph.initializer[0].data_type = 99
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match=message(path, "")):
            load_model(path)

    def test_names_of_no_text(self, tmp_path: Path) -> None:
        """onnx's checker puts the bytes into its message, of which Python can make no text."""
        path, model = tmp_path / "model.onnx", network()
        model.graph.node[0].input[0] = "missing"
        path.write_bytes(model.SerializeToString().replace(b"missing", b"missin\xb1"))
        with pytest.raises(ModelError, match=message(path, "not ")):
            load_model(path)

    def test_weights_of_nothing(self, tmp_path: Path) -> None:
        path, model = tmp_path / "model.onnx", network()
        tensor = next(tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
        array = np.array(numpy_helper.to_array(tensor))
        array.reshape(-1)[0] = np.nan
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match=r"holds NaN\. Its training diverged; export an earlier state\."):
            load_model(path)


class TestExternalData:
    """Weights in a file of their own, beside the model."""

    @staticmethod
    def save(folder: Path, location: str = "model.data") -> Path:
        folder.mkdir(exist_ok=True)
        path = folder / "model.onnx"
        onnx.save_model(network(), path, save_as_external_data=True, location="model.data", size_threshold=0)
        if location != "model.data":
            model = onnx.load(path, load_external_data=False)
            for tensor in model.graph.initializer:
                next(entry for entry in tensor.external_data if entry.key == "location").value = location
            path.write_bytes(model.SerializeToString())
        return path

    def test_beside_the_model_is_read(self, tmp_path: Path) -> None:
        path = self.save(tmp_path / "a")
        loaded = load_model(path)
        assert not any(tensor.external_data for tensor in loaded.graph.initializer)
        assert_same(network(), loaded)

    def test_in_a_folder_beside_the_model_is_read(self, tmp_path: Path) -> None:
        path = self.save(tmp_path / "a", "inner/model.data")
        (tmp_path / "a" / "inner").mkdir()
        shutil.move(tmp_path / "a" / "model.data", tmp_path / "a" / "inner" / "model.data")
        assert_same(network(), load_model(path))

    def test_missing(self, tmp_path: Path) -> None:
        path = self.save(tmp_path / "a")
        (tmp_path / "a" / "model.data").unlink()
        with pytest.raises(ModelError, match=message(path, "weight file 'model.data' is missing beside the model.")):
            load_model(path)

    def test_cut_short(self, tmp_path: Path) -> None:
        path = self.save(tmp_path / "a")
        data = tmp_path / "a" / "model.data"
        data.write_bytes(data.read_bytes()[:100])
        with pytest.raises(ModelError, match=message(path, "")):
            load_model(path)

    @pytest.mark.parametrize("location", ["../secret", "inner/../../secret", "/etc/hostname", "", "a\0b"])
    def test_outside_the_folder_is_refused(self, tmp_path: Path, location: str) -> None:
        (tmp_path / "secret").write_bytes(bytes(10_000))
        path = self.save(tmp_path / "a", location)
        with pytest.raises(ModelError, match=message(path, "weight 'w' lies outside the model's folder")):
            load_model(path)

    def test_link_to_the_outside_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(bytes(10_000))
        path = self.save(tmp_path / "a", "link")
        (tmp_path / "a" / "link").symlink_to(tmp_path / "secret")
        with pytest.raises(ModelError, match=message(path, "weight 'w' lies outside the model's folder ('link')")):
            load_model(path)

    def test_two_locations_are_refused(self, tmp_path: Path) -> None:
        """Which of them is read depends on the reader."""
        path = self.save(tmp_path / "a")
        model = onnx.load(path, load_external_data=False)
        model.graph.initializer[0].external_data.add(key="location", value="../secret")
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match=message(path, "weight 'w' lies outside the model's folder")):
            load_model(path)

    def test_what_is_deployed_is_counted(self, tmp_path: Path) -> None:
        path = self.save(tmp_path / "a")
        (tmp_path / "a" / "other.data").write_bytes(bytes(999))
        files = [path, tmp_path / "a" / "model.data"]
        assert deployed_bytes(path) == sum(file.stat().st_size for file in files)
        save_model(network(), tmp_path / "whole.onnx")
        assert deployed_bytes(tmp_path / "whole.onnx") == (tmp_path / "whole.onnx").stat().st_size

    @pytest.mark.parametrize("location", ["../secret", "none.data"])
    def test_what_is_not_there_cannot_be_counted(self, tmp_path: Path, location: str) -> None:
        with pytest.raises(ModelError, match=r"outside the model's folder|is missing beside the model"):
            deployed_bytes(self.save(tmp_path / "a", location))

    @pytest.mark.parametrize(
        ("key", "value", "words"),
        [
            ("length", "99999", "ends at byte"),
            ("offset", "99999", "has [0-9]+. Copy the file again"),
            ("offset", "-5", "Copy the file again"),
            ("length", "many", "invalid literal for int"),
        ],
    )
    def test_a_wrong_place_in_the_file(self, tmp_path: Path, key: str, value: str, words: str) -> None:
        path = self.save(tmp_path / "a")
        model = onnx.load(path, load_external_data=False)
        entries = model.graph.initializer[0].external_data
        next(entry for entry in entries if entry.key == key).value = value
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match=rf"model\.onnx: weight 'w'.*{words}"):
            load_model(path)

    def test_of_a_function_is_checked_as_well(self, tmp_path: Path) -> None:
        tensor = numpy_helper.from_array(weights(4, 1, 1), "o")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")
        model = image_graph("y = Relu (x)", {})
        inner = helper.make_node("Constant", [], ["o"], value=tensor)
        opsets = [helper.make_opsetid("", 17)]
        model.functions.append(helper.make_function("own", "f", [], ["o"], [inner], opsets))
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match=message(path, "weight 'o' lies outside the model's folder")):
            load_model(path)

    def test_above_protobufs_limit_is_refused_before_anything_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """2.4 GB of zeros that take no room on the disk."""
        path = self.save(tmp_path / "a")
        model = onnx.load(path, load_external_data=False)
        tensor = model.graph.initializer[0]
        tensor.dims[:] = [600_000_000]
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value="model.data")
        path.write_bytes(model.SerializeToString())
        with (tmp_path / "a" / "model.data").open("r+b") as stream:
            stream.truncate(2_400_000_000)

        def must_not(*_: object) -> None:
            raise AssertionError("read")

        monkeypatch.setattr("compress.graph.load.load_external_data_for_model", must_not)
        for read in (read_model, load_model):
            with pytest.raises(ModelError, match=message(path, "2.40 GB with all weights. Must be below 2.15 GB")):
                read(path)
        assert deployed_bytes(path) > 2_400_000_000

    def test_a_file_above_protobufs_limit(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        with path.open("wb") as stream:
            stream.truncate(2_400_000_000)
        with pytest.raises(ModelError, match=message(path, "2.40 GB with all weights. Must be below 2.15 GB")):
            read_model(path)

    def test_of_a_constant_node_is_checked_as_well(self, tmp_path: Path) -> None:
        model = image_graph("y = Add (x, o)", {})
        tensor = numpy_helper.from_array(weights(4, 1, 1), "o")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")
        model.graph.node.insert(0, helper.make_node("Constant", [], ["o"], value=tensor))
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match=message(path, "weight 'o' lies outside the model's folder")):
            load_model(path)


QUANTISED = [
    "q = QuantizeLinear (x, s) y = DequantizeLinear (q, s)",
    "q, s1, z = DynamicQuantizeLinear (x) y = Cast <to = 1> (q)",
]


class TestKindsOfWeights:
    @pytest.mark.parametrize("body", QUANTISED)
    def test_already_quantised(self, tmp_path: Path, body: str) -> None:
        path = tmp_path / "int8.onnx"
        save_model(image_graph(body, {"s": np.array(0.1, np.float32)}), path)
        expected = message(path, "already quantised. Start from the fp32 model it was made from.")
        with pytest.raises(ModelError, match=expected):
            load_model(path)
        assert is_quantised(read_model(path))

    @pytest.mark.parametrize("op_type", ["QLinearConv", "ConvInteger", "MatMulInteger", "DynamicQuantizeLSTM", "QGemm"])
    def test_marks_of_quantised_models(self, op_type: str) -> None:
        model = network()
        model.graph.node[0].op_type = op_type
        assert is_quantised(model)

    def test_float_model_is_not_quantised(self) -> None:
        assert not is_quantised(network())

    @pytest.mark.parametrize("kind", [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)])
    def test_half_precision(self, tmp_path: Path, kind: np.dtype) -> None:
        number = helper.np_dtype_to_tensor_dtype(kind)
        body = f"h = Cast <to = {number}> (x) c = Add (h, o) y = Cast <to = 1> (c)"
        path = tmp_path / "half.onnx"
        save_model(image_graph(body, {"o": np.array([0.5], kind)}), path)
        said: list[str] = []
        loaded = load_model(path, said.append)
        assert {tensor.data_type for tensor in loaded.graph.initializer} == {onnx.TensorProto.FLOAT}
        assert said[0].startswith(f"{path}: holds {kind.name} numbers, taken up to float32")


class TestSave:
    def test_what_is_saved_is_what_is_read(self, tmp_path: Path) -> None:
        save_model(network(), tmp_path / "model.onnx")
        assert read_model(tmp_path / "model.onnx") == network()
        assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]

    def test_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match=literal(str(tmp_path / "file"))):
            save_model(network(), tmp_path / "file" / "model.onnx")
