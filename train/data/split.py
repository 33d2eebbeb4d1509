"""Held-out pictures: what a split file names, and where the same pictures turn up again.

An entry for a folder of pairs names rainy pictures. It holds the pairs out, and also both their pictures wherever the
folder's own ``rainy/`` or ``clean/`` is given as a folder of single pictures: a network that saw the held-out rain or
scene in its unpaired half would be chosen on what it knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from derain.errors import DataError
from derain.files import check_size
from derain.train.data.layouts import find_pairs, has_both_sides
from derain.train.data.pairs import Pair

_MAX_SPLIT_BYTES = 16 << 20
_NAMED = 3


def read_split(path: str | Path) -> dict[Path, set[str]]:
    """A split file: for each folder, relative to the file, the names of the pictures that are held out.

    Raises:
        DataError: not JSON, or not of the form ``{"FOLDER": ["NAME", ...]}``; the key ``about`` is a comment.
    """
    path = Path(path)
    check_size(path, _MAX_SPLIT_BYTES, DataError)
    try:
        document = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise DataError(f"Split file '{path}' is not JSON ({error})", expected='{"FOLDER": ["NAME", ...]}') from error
    if not isinstance(document, dict):
        raise DataError(f"Split file '{path}' holds a {type(document).__name__}", expected="an object of folders")
    split: dict[Path, set[str]] = {}
    for folder, names in document.items():
        if folder == "about":
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(
                f"Split file '{path}' has no list of names under '{folder}'", expected='{"FOLDER": ["NAME", ...]}'
            )
        split[(path.parent / folder).resolve()] = set(names)
    return split


class HeldOut:
    """The held-out pictures of the folders that one command was given.

    Args:
        path: the split file.
        pictures: folders of single pictures.
        pairs: folders of pairs, of the layout ``layout``.

    Raises:
        DataError: the split file cannot be used, holds nothing of these folders out, or names a picture that one of
            them does not hold.
    """

    def __init__(
        self,
        path: str | Path,
        pictures: Iterable[str | Path] = (),
        pairs: Iterable[str | Path] = (),
        layout: str | None = None,
    ) -> None:
        self._named: set[Path] = set()
        self._truths: set[Path] = set()
        of_pairs = {Path(folder).resolve() for folder in pairs}
        given = {Path(folder).resolve() for folder in pictures} | of_pairs
        for folder, names in read_split(path).items():
            inside = any(folder in other.parents for other in given)
            if folder in of_pairs or (inside and has_both_sides(folder)):
                self._add_pairs(path, folder, names, layout)
            elif folder in given or any(other in folder.parents for other in of_pairs):
                self._add_pictures(path, folder, names)
        if not self._named:
            raise DataError(
                f"Split file '{path}' holds out no picture of the folders that were given",
                expected="an entry for one of them, relative to the split file",
                fix="Correct the names of its folders, or leave --split out",
            )

    def picture(self, path: Path) -> bool:
        """Whether a single picture is held out: by its name, or as the ground truth of a held-out pair."""
        real = path.resolve()
        return real in self._named or real in self._truths

    def pair(self, pair: Pair) -> bool:
        """Whether a pair is held out, by the name of either of its pictures.

        Another rainy picture of the same ground truth (Rain1400 has 14 to one) is not.
        """
        return pair.rainy.resolve() in self._named or pair.clean.resolve() in self._named

    def _add_pairs(self, path: str | Path, folder: Path, names: set[str], layout: str | None) -> None:
        held = [pair for pair in find_pairs(folder, layout) if pair.rainy.name in names]
        _check_found(path, folder, names - {pair.rainy.name for pair in held})
        self._named |= {pair.rainy.resolve() for pair in held}
        self._truths |= {pair.clean.resolve() for pair in held}

    def _add_pictures(self, path: str | Path, folder: Path, names: set[str]) -> None:
        _check_found(path, folder, {name for name in names if not (folder / name).is_file()})
        self._named |= {(folder / name).resolve() for name in names}


def _check_found(path: str | Path, folder: Path, missing: set[str]) -> None:
    if missing:
        some = ", ".join(sorted(missing)[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        raise DataError(
            f"Split file '{path}' holds out {some} of '{folder}', which has no picture of that name",
            fix="Correct the name in the split file; in a folder of pairs it is the rainy picture's",
        )
