"""What computes: the device, the precision of a network's forward pass, and what to do when memory is not enough."""

from compress.compute.device import DEVICES, device_of, exact, find_device, is_device_name, move
from compress.compute.memory import catch_out_of_memory, largest_batch, memory_ran_out
from compress.compute.precision import PRECISIONS, Precision, autocast, check_precision, float32_ends, make_scaler

__all__ = [
    "DEVICES",
    "PRECISIONS",
    "Precision",
    "autocast",
    "catch_out_of_memory",
    "check_precision",
    "device_of",
    "exact",
    "find_device",
    "float32_ends",
    "is_device_name",
    "largest_batch",
    "make_scaler",
    "memory_ran_out",
    "move",
]
