"""Which pictures to train and to choose on: folders, pairs, and a held-out split by scene."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from derain.errors import DataError
from derain.files import check_size
from derain.images import list_images

_MAX_SPLIT_BYTES = 16 << 20


@dataclass(frozen=True)
class Pair:
    """A rainy picture and its ground truth."""

    rainy: Path
    clean: Path


@dataclass(frozen=True)
class Pictures:
    """What one run trains on, and what it is measured on while it trains.

    Attributes:
        rainy: rainy pictures without ground truth.
        clean: clean pictures: the other side of the cycle, and what synthetic rain falls on.
        pairs: rainy pictures with their ground truth.
        held_out: pairs that are never trained on; the validation set.
        origins: the folders given, for the checkpoint and the model card.
    """

    rainy: list[Path] = field(default_factory=list)
    clean: list[Path] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    held_out: list[Pair] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)


def find_pairs(folder: str | Path) -> list[Pair]:
    """Pairs of a folder that holds ``rainy/`` and ``clean/`` with equal file names (the suffix may differ).

    Raises:
        DataError: a sub-folder is missing, or a picture has no partner.
    """
    folder = Path(folder)
    for part in ("rainy", "clean"):
        if not (folder / part).is_dir():
            raise DataError(
                f"Folder '{folder}' has no sub-folder '{part}'",
                expected="rainy/ and clean/ with pictures of equal names",
            )
    rainy = {path.stem: path for path in list_images(folder / "rainy")}
    clean = {path.stem: path for path in list_images(folder / "clean")}
    alone = sorted(rainy.keys() ^ clean.keys())
    if alone:
        raise DataError(
            f"'{folder}' has {len(alone)} pictures without a partner, the first is '{alone[0]}'",
            expected="every picture in both rainy/ and clean/",
        )
    return [Pair(path, clean[stem]) for stem, path in rainy.items()]


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
        raise DataError(f"Split file '{path}' is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise DataError(f"Split file '{path}' holds a {type(document).__name__}", expected="an object of folders")
    split: dict[Path, set[str]] = {}
    for folder, names in document.items():
        if folder == "about":
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"Split file '{path}' has no list of names under '{folder}'")
        split[(path.parent / folder).resolve()] = set(names)
    return split


def gather(
    rainy: Iterable[str | Path] = (),
    clean: Iterable[str | Path] = (),
    pairs: Iterable[str | Path] = (),
    split: str | Path | None = None,
) -> Pictures:
    """Read the folders of a run and take the held-out pictures of ``split`` away.

    Raises:
        DataError: a folder named in ``split`` does not match what was given, or nothing is left to train on.
    """
    held = read_split(split) if split is not None else {}
    kept: dict[str, list[Path]] = {"rainy": [], "clean": []}
    for kind, folders in (("rainy", list(rainy)), ("clean", list(clean))):
        for folder in folders:
            names = held.get(Path(folder).resolve(), set())
            kept[kind] += [path for path in list_images(folder) if path.name not in names]
    trained: list[Pair] = []
    held_out: list[Pair] = []
    pair_folders = list(pairs)
    for folder in pair_folders:
        names = held.get(Path(folder).resolve(), set())
        for pair in find_pairs(folder):
            (held_out if pair.rainy.name in names else trained).append(pair)
    if not kept["clean"] and not trained:
        raise DataError(
            "There is nothing to learn from: no clean pictures and no pairs",
            fix="Give --clean FOLDER (rain is then synthesised on it), --pairs FOLDER, or both",
        )
    origins = [Path(folder).name for folder in (*rainy, *clean)] + [
        "/".join(Path(folder).resolve().parts[-2:]) for folder in pair_folders
    ]
    return Pictures(kept["rainy"], kept["clean"], trained, held_out, origins)
