"""From a trained quantisation-aware module to an int8 ONNX file, and the proof that both compute the same."""

from compress.export.parity import check_parity
from compress.export.qdq import Exported, export_int8

__all__ = ["Exported", "check_parity", "export_int8"]
