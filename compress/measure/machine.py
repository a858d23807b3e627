"""Where figures were measured: a figure without its CPU says little."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from compress.artifacts import Machine

RELEVANT_FLAGS = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni", "avx_vnni_int8",
    "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "neon", "asimddp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "sme",
)  # fmt: skip
"""CPU flags that decide how fast float32 and int8 run; `asimd` is what Linux calls NEON on 64-bit ARM."""

LIBRARIES = ("compress", "torch", "torch-pruning", "onnx", "onnxscript", "onnxruntime", "openvino", "numpy")


def machine_info() -> Machine:
    """Describe this machine: CPU, the flags that matter, usable cores, OS, and library versions."""
    cpu, flags = _cpu()
    return Machine(
        cpu=cpu or platform.processor() or platform.machine() or "unknown",
        flags=tuple(flag for flag in RELEVANT_FLAGS if flag in flags),
        cores=usable_cores(),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions={"python": platform.python_version(), **_library_versions()},
    )


def saturates_int8(machine: Machine) -> bool:
    """Whether onnxruntime's fast uint8 x int8 kernels saturate in 16 bits here (x86 without VNNI).

    >>> saturates_int8(Machine("a", ("avx2",), 1, "Linux", {}))
    True
    >>> saturates_int8(Machine("a", ("avx2", "avx512_vnni"), 1, "Linux", {}))
    False
    """
    return "avx2" in machine.flags and not any("vnni" in flag or flag == "amx_int8" for flag in machine.flags)


def parse_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """Name and flags of the first CPU in the text of /proc/cpuinfo.

    >>> name, flags = parse_cpuinfo("model name : Some CPU\\nflags : fpu avx2\\n")
    >>> name, sorted(flags)
    ('Some CPU', ['avx2', 'fpu'])
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip().lower(), value.strip())
    name = fields.get("model name") or fields.get("cpu model") or ""
    return name, frozenset((fields.get("flags") or fields.get("features") or "").split())


def usable_cores() -> int:
    """Cores that this process may run on, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> tuple[str, frozenset[str]]:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        return parse_cpuinfo(cpuinfo.read_text(errors="replace"))
    if platform.system() == "Darwin":
        return _sysctl("machdep.cpu.brand_string"), _darwin_flags()
    return "", frozenset()


def _darwin_flags() -> frozenset[str]:
    if platform.machine() == "arm64":
        return frozenset({"neon", "asimd", "asimddp"})
    features = _sysctl("machdep.cpu.features") + " " + _sysctl("machdep.cpu.leaf7_features")
    return frozenset(features.lower().split())


def _sysctl(key: str) -> str:
    try:
        return subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


@functools.cache
def _library_versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
