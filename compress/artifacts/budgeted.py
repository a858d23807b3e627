"""What a scan within a budget adds to its figures: how many images each cell was measured on, and its interval."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CellInterval:
    """One cell: the images that it was measured on, its metric drop, and where that would lie in 95 of 100 samples."""

    images: int
    drop: float
    low: float
    high: float


@dataclass(frozen=True)
class BudgetedScan:
    """A scan that measured what its budget allowed; cells that are not here were skipped."""

    seconds_per_image: float
    """Of the network as it is; measured once, so that a scan that goes on decides as one in one go."""
    images: int
    """Evaluations of an image that the budget allows."""
    spent: int
    """Of these."""
    cells_in_all: int
    """That a whole scan would measure."""
    images_in_all: int
    """That it would measure each of them on."""
    targets: tuple[float, ...]
    """Shares of the multiply-adds left that its plans may be for."""
    settled: bool
    """No further image could change what a plan for one of the targets takes, to within 95 of 100 samples."""
    cells: dict[str, dict[str, CellInterval]] = field(default_factory=dict)
    """Group -> ratio, as in the group's curve -> the cell."""

    @property
    def whole(self) -> int:
        """Evaluations of an image that a whole scan takes."""
        return self.cells_in_all * self.images_in_all
