"""What a scan within a budget says of itself, in words."""

from compress.artifacts import Sensitivity
from compress.prune.cell_choice import too_short


def budget_lines(scan: Sensitivity) -> tuple[str, ...]:
    """What was measured, on how many images, and what was skipped; nothing of a scan that measured everything."""
    found = scan.budgeted
    if found is None:
        return ()
    if why := too_short(found):
        return (f"budget: {why}. Nothing was measured, and plans leave every group whole: give it more time.",)
    cells = [cell for group in found.cells.values() for cell in group.values()]
    images = sorted(cell.images for cell in cells) or [0]
    whole = sum(count == found.images_in_all for count in images)
    missing = [name for name, group in found.cells.items() if not group]
    lines = [
        f"budget: {found.spent} images, {found.spent / max(1, found.whole):.3f} of a whole scan. Measured "
        f"{len(cells)} of {found.cells_in_all} cells on {images[0]} to {images[-1]} images, {whole} of them on all; "
        f"skipped {found.cells_in_all - len(cells)}, which plans take from those beside them.",
        "Every decision is settled." if found.settled else "Not every decision is settled: more time would help.",
    ]
    if missing:
        lines.append(f"No cell was measured of {len(missing)} groups, which stay whole: {', '.join(missing)}.")
    return tuple(lines)
