"""Do two sets show the same scenes? A figure on a scene that was trained on says little about other scenes.

Scenes are told by a perceptual hash (pHash): the signs of the lowest 63 frequencies about their median. Measured on
the sets at hand, by bits that differ: two rainings of one clean picture 0; a picture and itself under streaks at most
10; under heavy fog up to 16; two different scenes at least 14, over 60,000 comparisons. Mirrored copies are found too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.errors import DataError
from derain.images import list_images, read_image
from derain.train.data.folders import Pictures
from derain.train.data.layouts import find_pairs
from derain.train.data.pairs import Pair, Pixels

SAME_SCENE_BITS = 10
_SIDE = 32
_LOWEST = 8
_THREADS = 4
_NAMED = 3


def scene_hash(picture: Pixels) -> NDArray[np.bool_]:
    """pHash of a uint8 (H, W, 3) picture and of its mirror image: (2, 63) booleans, all False for a single colour."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = np.asarray(cv2.dct(small))[:_LOWEST, :_LOWEST].ravel()[1:].round(3)
    odd = (np.arange(_LOWEST * _LOWEST)[1:] % _LOWEST) % 2 == 1  # horizontal frequencies that mirroring negates
    both = np.stack([low, np.where(odd, -low, low)])
    hashed: NDArray[np.bool_] = both > np.median(both, axis=1, keepdims=True)
    return hashed


def same_scenes(left: NDArray[np.bool_], right: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Index pairs into hashes (N, 2, 63) and (M, 2, 63) that show one scene, mirrored or not; in order."""
    found: list[tuple[int, int]] = []
    for index, one in enumerate(left[:, 0]):
        if one.any() and len(right):
            apart = (right != one).sum(axis=2).min(axis=1)
            found += [(index, int(match)) for match in np.flatnonzero(apart <= SAME_SCENE_BITS)]
    return found


def hash_pictures(paths: Sequence[Path | Pair]) -> NDArray[np.bool_]:
    """Hashes (N, 2, 63): of pictures, or of the clean side of pairs."""

    def one(item: Path | Pair) -> NDArray[np.bool_]:
        if isinstance(item, Path):
            return scene_hash(read_image(item))
        return scene_hash(read_image(item.clean) if item.rainy_side is None else item.read()[1])

    if not paths:
        return np.zeros((0, 2, _LOWEST * _LOWEST - 1), dtype=bool)
    with ThreadPoolExecutor(_THREADS) as pool:
        return np.stack(list(pool.map(one, paths)))


def find_overlap(held_out: Iterable[Pair], trained: Iterable[Path | Pair]) -> list[tuple[Path, Path]]:
    """Held-out rainy pictures whose scene is trained on, each with one training picture of that scene."""
    kept, seen = _once(held_out), _once(trained)
    matches = same_scenes(hash_pictures([*kept.values()]), hash_pictures([*seen.values()]))
    kept_items, seen_items = list(kept.values()), list(seen.values())
    first: dict[int, int] = {}
    for left, right in matches:
        first.setdefault(left, right)
    return [(_name(kept_items[left]), _name(seen_items[right])) for left, right in first.items()]


def overlap_of(pictures: Pictures) -> list[tuple[Path, Path]]:
    """Overlap of a run's held-out pairs with everything it trains on."""
    if not pictures.held_out:
        return []
    return find_overlap(pictures.held_out, [*pictures.pairs, *pictures.clean, *pictures.rainy])


def refuse_overlap(tested: Iterable[Pair], folder: Path, layout: str | None = None) -> None:
    """Make sure that no tested scene is in a training folder of pairs, or of single pictures.

    Raises:
        DataError: naming the first few pairs of pictures.
    """
    has_folders = any(path.is_dir() for path in folder.iterdir()) if folder.is_dir() else True
    trained: Sequence[Path | Pair] = find_pairs(folder, layout) if has_folders or layout else list_images(folder)
    overlap = find_overlap(tested, trained)
    if overlap:
        raise DataError(
            tell(overlap), expected="test pictures of other scenes", fix="Take these out, or test on another set"
        )


def tell(overlap: list[tuple[Path, Path]]) -> str:
    """One sentence that names the first few pictures."""
    some = "; ".join(f"'{held}' shows the scene of '{seen}'" for held, seen in overlap[:_NAMED])
    more = f"; and {len(overlap) - _NAMED} more" if len(overlap) > _NAMED else ""
    return f"{len(overlap)} held-out scenes are trained on: {some}{more}"


def _once(items: Iterable[Path | Pair]) -> dict[tuple[Path, str | None], Path | Pair]:
    """One entry for each clean file: Rain1400 has 14 rainy pictures to one."""
    unique: dict[tuple[Path, str | None], Path | Pair] = {}
    for item in items:
        key = (item, None) if isinstance(item, Path) else (item.clean, item.rainy_side)
        unique.setdefault(key, item)
    return unique


def _name(item: Path | Pair) -> Path:
    return item if isinstance(item, Path) else item.rainy
