"""ONNX in and out: load and canonicalise a file, import it as a trainable module, write it back."""

from compress.graph.entry import from_torch
from compress.graph.load import deployed_bytes, deployed_files, is_quantised, load_model, read_model, save_model
from compress.graph.to_torch import to_torch
from compress.graph.trial_run import check_runs, run_quietly
from compress.graph.windows import too_large_window
from compress.graph.write import to_onnx

__all__ = [
    "check_runs",
    "deployed_bytes",
    "deployed_files",
    "from_torch",
    "is_quantised",
    "load_model",
    "read_model",
    "run_quietly",
    "save_model",
    "to_onnx",
    "to_torch",
    "too_large_window",
]
