"""The results that stages hand to each other: frozen values, stored as versioned JSON.

Every artefact carries a `fingerprint` of what it was computed from (model, data, metric and settings),
so that a stale file is refused instead of silently reused, and is written atomically, so that a killed
run leaves either the old file or the new one, never half of one.
"""

from compress.artifacts.gallery import Gallery, Picture, Reading
from compress.artifacts.locking import lock
from compress.artifacts.results import (
    ActivationScan,
    Cost,
    Curve,
    Gate,
    GroupPlan,
    Latency,
    Machine,
    Parity,
    Placement,
    PruningPlan,
    Quantized,
    Region,
    Replaced,
    Report,
    Score,
    Sensitivity,
    StageResult,
)
from compress.artifacts.store import (
    VERSION,
    check_fresh,
    check_writable,
    fingerprint,
    fingerprint_each,
    load,
    load_edited,
    save,
    to_json,
    write_atomic,
)

__all__ = [
    "VERSION",
    "ActivationScan",
    "Cost",
    "Curve",
    "Gallery",
    "Gate",
    "GroupPlan",
    "Latency",
    "Machine",
    "Parity",
    "Picture",
    "Placement",
    "PruningPlan",
    "Quantized",
    "Reading",
    "Region",
    "Replaced",
    "Report",
    "Score",
    "Sensitivity",
    "StageResult",
    "check_fresh",
    "check_writable",
    "fingerprint",
    "fingerprint_each",
    "load",
    "load_edited",
    "lock",
    "save",
    "to_json",
    "write_atomic",
]
