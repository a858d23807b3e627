"""What an earlier scan left in its file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from compress import artifacts
from compress.artifacts import Sensitivity


def earlier_scan(path: Path, identity: str, model: str, input_shape: Sequence[int]) -> Sensitivity | None:
    """What an earlier scan of the same things left; one that does not say of which model it is learns it here.

    Raises:
        ArtifactError: it is of another model, data or settings.
    """
    if not path.exists():
        return None
    found = artifacts.load(Sensitivity, path)
    artifacts.check_fresh(path, found.fingerprint, identity)
    if not found.model:
        found = replace(found, model=model, input_shape=tuple(input_shape))
        artifacts.save(found, path)
    return found
