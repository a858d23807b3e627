"""All hard cases."""

from tests.hard_cases import ocr_cases, onnx_cases, torch_cases

ALL = [*torch_cases.CASES, *ocr_cases.CASES, *onnx_cases.CASES]
