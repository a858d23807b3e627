"""OpenVINO behind the same small class as onnxruntime: the only file that imports it, and only when it is requested."""

from types import ModuleType

import numpy as np

from compress.errors import CompressError, ModelError

SETTINGS = {"NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
"""One image at a time, and what is float in the file in float32 (where a CPU has bfloat16, OpenVINO would take that).
What the file quantises is computed in int8 all the same."""


class OpenVinoSession:
    """A model in OpenVINO on the CPU: images of one shape in, first output out.

    Args:
        model: the bytes of an ONNX file.
        input_shape: (N, C, H, W) of the images; a fixed shape, for which OpenVINO chooses its kernels. None: as the
            file has it, which may be any; then it looks for kernels again at each shape that is new.
        name: what messages call the model.
        threads: threads of one inference.

    Raises:
        CompressError: OpenVINO is not installed.
        ModelError: OpenVINO cannot read or compile the model; the message names it and the reason.
    """

    def __init__(
        self, model: bytes, input_shape: tuple[int, int, int, int] | None, *, name: str = "model", threads: int = 1
    ) -> None:
        self._name = name
        core = load_openvino().Core()
        try:
            network = core.read_model(model)
            if len(network.inputs) != 1:
                raise ModelError(f"{name}: has {len(network.inputs)} inputs. Expected one image input.")
            if input_shape is not None:
                network.reshape(list(input_shape))
            compiled = core.compile_model(network, "CPU", {**SETTINGS, "INFERENCE_NUM_THREADS": threads})
            self._request = compiled.create_infer_request()
        except RuntimeError as error:  # the one type that OpenVINO raises
            raise ModelError(f"{name}: OpenVINO cannot load it: {_reason(error)}.") from error
        self._output = compiled.outputs[0]
        self.output_shape = tuple(
            int(size.get_length()) if size.is_static else None for size in self._output.get_partial_shape()
        )

    def run(self, images: np.ndarray) -> np.ndarray:
        """Compute the first output for float32 `images` [N, C, H, W].

        Raises:
            ModelError: the images do not have the session's shape, or the model fails while running.
        """
        try:  # shared: onnxruntime does not copy its input either
            results = self._request.infer({0: np.ascontiguousarray(images)}, share_inputs=True)
        except RuntimeError as error:
            raise ModelError(
                f"{self._name}: OpenVINO fails on {images.dtype} images of shape {list(images.shape)}: "
                f"{_reason(error)}."
            ) from error
        return np.asarray(results[self._output])


def load_openvino() -> ModuleType:
    """The package, where it is installed.

    Raises:
        CompressError: it is not.
    """
    try:
        import openvino
    except ImportError as error:
        raise CompressError(
            f"--runtime: openvino is not installed ({error}). Use pip install 'compress[openvino]'."
        ) from error
    found: ModuleType = openvino
    return found


def _reason(error: Exception) -> str:
    """What OpenVINO says on one line: it prints places in its own sources first, and unknown operators as a list.

    >>> _reason(RuntimeError("Exception from core.cpp:105:\\nCheck 'false' failed at report.cpp:151:\\nThe reason.\\n"))
    'The reason'
    >>> _reason(RuntimeError("Exception from core.cpp:105:\\nSummary:\\n-- No conversion rule for: Foo\\nRefer to"))
    'No conversion rule for: Foo'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    listed = [line.removeprefix("-- ") for line in lines if line.startswith("-- ")]
    said = listed or [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (said or lines or [type(error).__name__])[0].rstrip(".")
