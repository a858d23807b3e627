"""What becomes of a detector's maps: boxes, and which regions they find; here, or in processes beside the network.

Nothing here or above it imports torch, which would cost each process a second and hundreds of megabytes.
"""

import multiprocessing
import os
import signal
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import cv2
import numpy as np

from compress.data.regions import Region
from compress.errors import CompressError
from compress.tasks.db_boxes import BoxSettings, find_boxes
from compress.tasks.hmean import Matches, match_boxes


@dataclass(frozen=True)
class SceneMap:
    """A probability map [h, w] of one image, and what its boxes are compared with."""

    index: int
    name: str
    probability: np.ndarray
    height: int
    width: int
    regions: tuple[Region, ...]
    usable: bool = True
    """The model's output was finite; what was not is 0 here."""


Judged = tuple[SceneMap, np.ndarray, Matches]
"""A map, its boxes [B, 4, 2], and what they find."""


def judge_map(scene: SceneMap, settings: BoxSettings) -> tuple[np.ndarray, Matches]:
    """Boxes of one map, and their matches."""
    boxes, _ = find_boxes(scene.probability, scene.height, scene.width, settings)
    return boxes, match_boxes(scene.regions, boxes)


class Judges:
    """Judges maps in their order: in this process, or in `processes` others while the next map is being made.

    The processes start when they are first needed, and end with this object, the program (killed, too) or Ctrl-C.
    They are started anew, not forked, for onnxruntime and OpenCV have threads: a script of your own that asks for them
    needs `if __name__ == "__main__":` around what it does.

    They gain what an idle core can take over: on receipts at side 1280 boxes and matches take 16 ms an image, beside
    150 ms for the network on one thread, and a map of noise takes 100 ms. With both cores of the machine that this was
    measured on busy anyway, 1 or 2 processes gained nothing (133, 133 and 135 ms an image, noise 236, 244 and 263;
    2026-11-21, one thread), and their start takes two seconds: so the default is none.

    Args:
        processes: how many; 0 for none.
        settings: of the boxes.

    Raises:
        CompressError: less than none.
    """

    def __init__(self, processes: int, settings: BoxSettings) -> None:
        if processes < 0:
            raise CompressError(f"processes: got {processes}. Must be 0 (none) or more, at most as many as idle cores.")
        self.processes = processes
        self.settings = settings
        self._pool: ProcessPoolExecutor | None = None

    def judge(self, maps: Iterable[SceneMap]) -> Iterator[Judged]:
        """Boxes and matches of each map, in order; in processes, `processes` maps wait at most.

        Raises:
            CompressError: a process failed, or ended.
        """
        if not self.processes:
            for scene in maps:
                yield scene, *judge_map(scene, self.settings)
            return
        waiting: deque[tuple[SceneMap, Future[tuple[np.ndarray, Matches]]]] = deque()
        try:
            for scene in maps:
                waiting.append((scene, self._submit(scene)))
                if len(waiting) > self.processes:
                    yield self._result(*waiting.popleft())
            while waiting:
                yield self._result(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()

    def _submit(self, scene: SceneMap) -> "Future[tuple[np.ndarray, Matches]]":
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.processes, multiprocessing.get_context("spawn"), initializer=_start_process
            )
            weakref.finalize(self, _end, self._pool)
        # This may start a process, which takes over what is blocked: Ctrl-C is for the program alone.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(judge_map, scene, self.settings)
        except BrokenProcessPool as error:
            raise self._ended() from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _result(self, scene: SceneMap, future: "Future[tuple[np.ndarray, Matches]]") -> Judged:
        try:
            return scene, *future.result()
        except BrokenProcessPool as error:
            raise self._ended() from error
        except Exception as error:  # whatever it was over there, here it must name its image
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise CompressError(
                f"{scene.name}: its boxes could not be computed in a process ({reason}). --debug shows where."
            ) from error

    def _ended(self) -> CompressError:
        self._pool = None  # the next call may have better luck
        return CompressError(
            f"processes: one of {self.processes} that compute boxes ended by itself. Use fewer or 0 where memory is "
            'short; a script of your own needs `if __name__ == "__main__":` around what it does.'
        )


def _end(pool: ProcessPoolExecutor) -> None:
    # Waited for, for a program that ends meanwhile meets half-closed pipes; not where a thread of the pool itself,
    # collecting garbage, would wait for its own end.
    pool.shutdown(wait=threading.current_thread() is threading.main_thread(), cancel_futures=True)


def _start_process() -> None:
    """In a process: end with the parent even when that is killed, and use one thread."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
