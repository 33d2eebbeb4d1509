"""How paired data sets name their pictures: one small rule for each layout, tried in a fixed order.

=============  ======================================================================================================
paired         ``rainy/`` and ``clean/`` (or the other sub-folder names below), equal names; the suffix may differ
rain100        Rain100L/H, Rain200L/H: ``rain-001`` and ``norain-001``, or ``norain-1x2`` and ``norain-1``
rain1400       Rain1400 (DDN-Data): ``901_1`` to ``901_14`` and ``901``
outdoor_rain   Outdoor-Rain (HeavyRain): ``im_0001_s80_a04`` and ``im_0001``
spa            SPA-Data: a list ``real_world.txt`` of rainy and clean paths; or ``000`` and ``000gt``
suffixes       Rain12, RainDrop and many more: ``7_rain``, ``7_rainy``, ``7_in`` and ``7_clean``, ``7_gt``, ``7_norain``
rain800        Rain800: both in one picture, side by side; the half with more fine detail is the rainy one
rainy_left     side by side, the rainy half on the left
rainy_right    side by side, the rainy half on the right
=============  ======================================================================================================

Rainy pictures lie in a sub-folder ``rainy``, ``rain``, ``input``, ``in``, ``data`` or ``rainy_image``, clean ones in
``clean``, ``norain``, ``gt``, ``target`` or ``ground_truth``. Where there are no such sub-folders, rain100 and suffixes
look for both in the folder itself. Left to itself, a folder is read by the first rule that gives every picture a
partner, in the order of the table (``rainy_left`` and ``rainy_right`` must be asked for).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from derain.errors import DataError, UsageError
from derain.files import check_size
from derain.images import IMAGE_SUFFIXES, list_images, read_image
from derain.train.data.pairs import Pair, Pixels, Side, halves

_RAINY_FOLDERS: Final = ("rainy", "rain", "input", "in", "data", "rainy_image")
_CLEAN_FOLDERS: Final = ("clean", "norain", "gt", "target", "ground_truth")
_LIST = "real_world.txt"
_MAX_LIST_BYTES = 256 << 20
_SAMPLE = 9
_AGREED = 0.8
_SAME_SCENE = 0.5


@dataclass(frozen=True)
class _Rule:
    """How a rainy picture's name, in lower case and without suffix, leads to its partner's.

    Attributes:
        rainy: what names of rainy pictures look like.
        partners: what to replace the match by, most likely first.
        beside: rainy and clean pictures may lie in one folder, since the names tell them apart.
    """

    rainy: str
    partners: tuple[str, ...]
    beside: bool = False

    def candidates(self, stem: str) -> list[str]:
        match = re.fullmatch(self.rainy, stem.lower())
        return [match.expand(partner) for partner in self.partners] if match else []


_RULES: Final = {
    "paired": _Rule(r"(.+)", (r"\1",)),
    "rain100": _Rule(r"(?:rain|norain)-(\d+)(?:x2)?", (r"norain-\1",), beside=True),
    "rain1400": _Rule(r"(\d+)_\d+", (r"\1",)),
    "outdoor_rain": _Rule(r"(.+)_s\d+_a\d+", (r"\1",)),
    "spa": _Rule(r"(.+?)", (r"\1gt",)),
    "suffixes": _Rule(
        r"(.+)_(?:rain|rainy|in|input)", (r"\1_clean", r"\1_gt", r"\1_norain", r"\1_target"), beside=True
    ),
}
_SIDES: Final[dict[str, Side | None]] = {"rain800": None, "rainy_left": "left", "rainy_right": "right"}

LAYOUTS: Final = (*_RULES, *_SIDES)


def find_pairs(folder: str | Path, layout: str | None = None) -> list[Pair]:
    """The pairs of a folder, by a named layout or by the first that gives every picture a partner.

    Raises:
        DataError: a picture has no partner (the message names one), or no layout applies.
        UsageError: there is no such layout.
    """
    folder = Path(folder)
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"There is no layout '{layout}'", expected=f"one of {', '.join(LAYOUTS)}")
    if not folder.is_dir():
        raise DataError(f"'{folder}' is not a folder", expected="a folder of paired pictures")
    if layout in _SIDES:
        return _side_by_side(folder, _SIDES[layout])
    if layout in (None, "spa") and (folder / _LIST).is_file():
        return _listed(folder / _LIST)
    sides = _sub_folders(folder)
    if sides is not None:
        return _by_names(folder, *sides, _RULES if layout is None else {layout: _RULES[layout]})
    rules = {name: rule for name, rule in _RULES.items() if rule.beside and layout in (None, name)}
    if not rules:
        raise _no_sub_folder(folder, _RAINY_FOLDERS)
    pictures = list_images(folder)
    for name, rule in rules.items():
        rainy = [path for path in pictures if rule.candidates(path.stem) not in ([], [path.stem.lower()])]
        if rainy:
            clean = [path for path in pictures if path not in set(rainy)]
            return _by_names(folder, rainy, clean, {name: rule})
    if layout is None:
        return _side_by_side(folder, None)
    raise DataError(f"No picture of '{folder}' is named as layout '{layout}' has it", fix="Leave --layout out")


def _by_names(folder: Path, rainy: list[Path], clean: list[Path], rules: dict[str, _Rule]) -> list[Pair]:
    """Pairs by the first rule that leaves no picture alone."""
    fewest: list[str] | None = None
    for rule in rules.values():
        partners = {path.stem.lower(): path for path in clean}
        pairs, alone, used = [], [], set()
        for path in rainy:
            partner = next((name for name in rule.candidates(path.stem) if name in partners), None)
            if partner is None:
                alone.append(path.stem)
            else:
                used.add(partner)
                pairs.append(Pair(path, partners[partner]))
        alone += [path.stem for path in clean if path.stem.lower() not in used]
        if not alone:
            return pairs
        if fewest is None or len(alone) < len(fewest):
            fewest = alone
    assert fewest is not None
    raise DataError(
        f"'{folder}' has {len(fewest)} pictures without a partner, for example '{fewest[0]}'",
        expected=f"names as in one of the layouts {', '.join(rules)}",
        fix="Rename them, or take them out",
    )


def _sub_folders(folder: Path) -> tuple[list[Path], list[Path]] | None:
    """The rainy and the clean pictures, where they have sub-folders of their own."""
    found = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    rainy = [found[name] for name in _RAINY_FOLDERS if name in found]
    clean = [found[name] for name in _CLEAN_FOLDERS if name in found]
    if not rainy and not clean:
        return None
    for side, names in ((rainy, _RAINY_FOLDERS), (clean, _CLEAN_FOLDERS)):
        if not side:
            raise _no_sub_folder(folder, names)
    return _pictures(rainy[0]), _pictures(clean[0])


def has_both_sides(folder: Path) -> bool:
    """Whether a folder has sub-folders for rainy and for clean pictures, as folders of pairs do."""
    names = {path.name.lower() for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    return not names.isdisjoint(_RAINY_FOLDERS) and not names.isdisjoint(_CLEAN_FOLDERS)


def _no_sub_folder(folder: Path, names: tuple[str, ...]) -> DataError:
    return DataError(f"Folder '{folder}' has no sub-folder '{names[0]}'", expected=f"one of {', '.join(names)}")


def _pictures(folder: Path) -> list[Path]:
    """A folder's pictures, or those of its only sub-folder, as in Rain200H's ``rain/X2``."""
    inner = [path for path in folder.iterdir() if path.is_dir()]
    holds_pictures = any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())
    return list_images(inner[0] if len(inner) == 1 and not holds_pictures else folder)


def _listed(path: Path) -> list[Pair]:
    """SPA-Data's list: a line holds a rainy and a clean path, relative to the list's folder, with a leading slash."""
    check_size(path, _MAX_LIST_BYTES, DataError)
    pairs = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        names = line.split()
        if not names:
            continue
        if len(names) != 2:
            raise DataError(f"Line {number} of '{path}' holds {len(names)} names", expected="a rainy and a clean path")
        rainy, clean = (path.parent / name.lstrip("/") for name in names)
        for picture in (rainy, clean):
            if not picture.is_file():
                raise DataError(f"Line {number} of '{path}' names '{picture}', which does not exist")
        pairs.append(Pair(rainy, clean))
    if not pairs:
        raise DataError(f"'{path}' lists no pairs")
    return pairs


def _side_by_side(folder: Path, side: Side | None) -> list[Pair]:
    pictures = list_images(folder)
    if side is None:
        side = _rainy_side(folder, pictures[:: max(1, len(pictures) // _SAMPLE)])
    return [Pair(path, path, side) for path in pictures]


def _rainy_side(folder: Path, sample: list[Path]) -> Side:
    """Which half of side-by-side pictures is rainy: copies of Rain800 with either order are about.

    Rain streaks add fine detail. The halves must show one scene, else the folder is something else altogether.
    """
    votes = 0
    for path in sample:
        picture = read_image(path)
        if picture.shape[1] % 2 or not _one_scene(*halves(picture, path)):
            raise DataError(
                f"'{folder}' is of no layout derain knows: '{path.name}' is not two pictures of one scene side by side",
                expected="rainy/ and clean/ with equal names, or names of a known layout",
                fix=f"Give the folder two sub-folders, or say which layout it is: {', '.join(LAYOUTS)}",
            )
        left, right = (_detail(half) for half in halves(picture, path))
        votes += left > right
    share = votes / len(sample)
    if max(share, 1 - share) < _AGREED:
        raise DataError(
            f"Which half of the pictures in '{folder}' is rainy cannot be told from their detail",
            fix="Say it with --layout rainy_left or --layout rainy_right",
        )
    return "left" if share > 0.5 else "right"


def _one_scene(left: Pixels, right: Pixels) -> bool:
    resized = [cv2.resize(half, (16, 16), interpolation=cv2.INTER_AREA) for half in (left, right)]
    one, other = (np.asarray(half, dtype=np.float64).ravel() for half in resized)
    return min(one.std(), other.std()) > 0 and float(np.corrcoef(one, other)[0, 1]) > _SAME_SCENE


def _detail(half: Pixels) -> float:
    """Mean absolute difference of neighbours, both ways."""
    levels = half.astype(np.int16)
    return float(np.abs(np.diff(levels, axis=0)).mean() + np.abs(np.diff(levels, axis=1)).mean())
