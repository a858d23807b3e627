"""Model compression for OCR: prune, fine-tune and quantise text detectors, recognisers and classifiers.

The public names, loaded when they are first used, so that `import compress` and `compress --help` stay quick:

- in and out: `load_model`, `save_model`, `from_torch`, `to_torch`, `to_onnx`
- pruning: `find_groups`, `scan_sensitivity` (with `ScanRequest` and `by_pruned_copies`), `plan_macs` or `plan_ratio` of
  a `Network`, `apply_plan`
- training: `fit`; quantisation: `lower_for_int8`, `prepare_qat`, `calibrate`, `export_int8`, `check_parity`
- a whole recipe: `load_recipe`, `run_recipe`
- every error a user can fix: `CompressError`
"""

import importlib
import os
from typing import Any

from compress.errors import CompressError

os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # its warnings of damaged images; which they are is said by name

_HOME = {
    "from_torch": "compress.graph",
    "load_model": "compress.graph",
    "save_model": "compress.graph",
    "to_onnx": "compress.graph",
    "to_torch": "compress.graph",
    "lower_for_int8": "compress.graph.lowering",
    "find_groups": "compress.prune.groups",
    "ScanRequest": "compress.prune.sensitivity",
    "scan_sensitivity": "compress.prune.sensitivity",
    "by_pruned_copies": "compress.prune.sensitivity",
    "Network": "compress.prune.ranking",
    "plan_macs": "compress.prune.plan",
    "plan_ratio": "compress.prune.plan",
    "apply_plan": "compress.prune.apply",
    "fit": "compress.train",
    "prepare_qat": "compress.quant",
    "calibrate": "compress.quant",
    "export_int8": "compress.export",
    "check_parity": "compress.export",
    "load_recipe": "compress.recipe",
    "run_recipe": "compress.pipeline",
}
__all__ = ["CompressError", *_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    if name == "__version__":
        from importlib.metadata import version

        return version("compress")
    if name not in _HOME:
        raise AttributeError(f"module 'compress' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
