"""Quantisation-aware training with PACT: prepare, calibrate, then train with `compress.train.fit`."""

from compress.quant.calibrate import calibrate
from compress.quant.nodes import integer_nodes
from compress.quant.pact import PACT
from compress.quant.prepare import pacts, prepare_qat, qat_parameter_groups

__all__ = ["PACT", "calibrate", "integer_nodes", "pacts", "prepare_qat", "qat_parameter_groups"]
