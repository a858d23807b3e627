"""All hard cases."""

from tests.hard_cases import onnx_cases, torch_cases

ALL = [*torch_cases.CASES, *onnx_cases.CASES]
