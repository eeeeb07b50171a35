"""Finds what moves in a video before a background that stands still, and gives each
object the same number in all frames. No I/O.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Frame: TypeAlias = NDArray[np.uint8]
"""Height, width, and red, green and blue."""

CELL = 8
"""Frames are compared in cells of 8 x 8 pixels: noise of single pixels disappears."""
LEAST_DIFFERENCE = 18.0
"""By how much, of 255, the mean of a cell differs from the background where something
has moved.
"""
LEAST_CELLS = 3
"""Smaller objects are noise."""
MOST_OBJECTS = 64
"""Most objects of a frame, the largest ones."""
CONFIRMED_FRAMES = 3
"""In so many frames an object is seen before it gets a number."""
LOST_FRAMES = 12
"""For so many frames an object may be hidden and keeps its number."""


@dataclass(frozen=True, slots=True)
class ObjectBox:
    """An object of a frame, in pixels."""

    number: int
    left: int
    top: int
    right: int
    bottom: int

    def distance(self, other: "ObjectBox") -> float:
        """Return how far the centres are apart, in the boxes' mean sizes."""
        across = abs(self.left + self.right - other.left - other.right) / 2
        down = abs(self.top + self.bottom - other.top - other.bottom) / 2
        size = (
            self.right - self.left + self.bottom - self.top
            + other.right - other.left + other.bottom - other.top
        ) / 4  # fmt: skip
        return max(across, down) / max(1.0, size)


def background_of(frames: Sequence[Frame]) -> NDArray[np.float32]:
    """Return what most of the frames show, in cells."""
    cells = np.stack([_cells(frame) for frame in frames])
    return np.median(cells, axis=0).astype(np.float32)


def _cells(frame: Frame) -> NDArray[np.float32]:
    height, width = (side // CELL * CELL for side in frame.shape[:2])
    parts = frame[:height, :width].reshape(height // CELL, CELL, width // CELL, CELL, 3)
    means: NDArray[np.float32] = parts.mean(axis=(1, 3), dtype=np.float32)
    return means


@dataclass(slots=True)
class _Track:
    box: ObjectBox
    seen: int = 1
    missing: int = 0
    number: int = 0
    """0: not confirmed yet."""


class MotionTracker:
    """Follows the objects of one video."""

    def __init__(self, background: NDArray[np.float32]) -> None:
        self._background = background
        self._tracks: list[_Track] = []
        self._numbers = 0

    def boxes(self, frame: Frame) -> list[ObjectBox]:
        """Return the objects of the next frame that have a number."""
        found = self._moving(frame)
        for track in sorted(self._tracks, key=lambda each: (each.number == 0, each.number)):
            nearest = min(found, key=track.box.distance, default=None)
            if nearest is None or track.box.distance(nearest) > 1:
                track.missing += 1
                continue
            found.remove(nearest)
            track.box, track.missing = nearest, 0
            track.seen += 1
            if track.number == 0 and track.seen >= CONFIRMED_FRAMES:
                self._numbers += 1
                track.number = self._numbers
        self._tracks = [track for track in self._tracks if track.missing <= LOST_FRAMES]
        self._tracks += map(_Track, found)
        return [
            replace(track.box, number=track.number)
            for track in self._tracks
            if track.number and not track.missing
        ]

    def _moving(self, frame: Frame) -> list[ObjectBox]:
        difference = np.abs(_cells(frame) - self._background).max(axis=2)
        groups = _groups(difference > LEAST_DIFFERENCE)
        groups.sort(key=len, reverse=True)
        return [
            ObjectBox(
                0,
                min(x for _, x in group) * CELL,
                min(y for y, _ in group) * CELL,
                (max(x for _, x in group) + 1) * CELL - 1,
                (max(y for y, _ in group) + 1) * CELL - 1,
            )
            for group in groups[:MOST_OBJECTS]
            if len(group) >= LEAST_CELLS
        ]


def _groups(mask: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Return the cells of each connected area, as row and column."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    groups: list[list[tuple[int, int]]] = []
    while left:
        group = [left.pop()]
        for y, x in group:
            near = [cell for cell in _neighbours(y, x) if cell in left]
            group += near
            left.difference_update(near)
        groups.append(group)
    return groups


def _neighbours(y: int, x: int) -> Iterable[tuple[int, int]]:
    return ((y + down, x + across) for down in (-1, 0, 1) for across in (-1, 0, 1))
