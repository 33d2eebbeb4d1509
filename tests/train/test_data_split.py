"""Held out means held out: of pairs, of the two sides of their folder, and nothing that was not asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scenes import scene, streaked

from derain.errors import DataError, UsageError
from derain.images import write_image
from derain.train.data.folders import Pictures, gather
from derain.train.data.layouts import find_pairs
from derain.train.evaluation import as_pairs, held_out_only


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """``set`` in the layout rain100 (three pairs) and ``photos`` (two pictures)."""
    for i in range(3):
        write_image(tmp_path / "set" / "rain" / f"rain-{i}.png", streaked(scene(i), i))
        write_image(tmp_path / "set" / "norain" / f"norain-{i}.png", scene(i))
    for i in range(2):
        write_image(tmp_path / "photos" / f"{i}.png", scene(10 + i))
    return tmp_path


def split(root: Path, document: Any) -> Path:
    (root / "split.json").write_text(json.dumps(document))
    return root / "split.json"


def names(pictures: Pictures) -> dict[str, list[str]]:
    return {
        "rainy": [path.name for path in pictures.rainy],
        "clean": [path.name for path in pictures.clean],
        "pairs": [pair.rainy.name for pair in pictures.pairs],
        "held_out": [pair.rainy.name for pair in pictures.held_out],
    }


def test_an_entry_for_a_folder_of_pairs_covers_its_two_sides(folders: Path) -> None:
    held = split(folders, {"about": "rainy names", "set": ["rain-1.png"]})
    data = folders / "set"
    got = names(gather([data / "rain"], [data / "norain"], [data], held))
    assert got["rainy"] == got["pairs"] == ["rain-0.png", "rain-2.png"]
    assert got["clean"] == ["norain-0.png", "norain-2.png"], "the ground truth by its own name"
    assert got["held_out"] == ["rain-1.png"]
    # Also where the folder of pairs itself is not given, and where the folder is named in another way.
    around = folders / "photos" / ".." / "set"
    assert names(gather([f"{around / 'rain'}@2"], [folders / "photos"], (), held))["rainy"] == got["rainy"]
    assert [len(kept) for kept in gather([around / "rain"], [around / "norain"], (), held).weights.values()] == [2, 2]


@pytest.mark.parametrize("entry", ["set/rain", "set/norain"])
def test_an_entry_for_a_side_covers_the_pair(entry: str, folders: Path) -> None:
    name = {"set/rain": "rain-2.png", "set/norain": "norain-2.png"}[entry]
    got = names(gather(pairs=[folders / "set"], split=split(folders, {entry: [name]})))
    assert got["held_out"] == ["rain-2.png"]
    assert got["pairs"] == ["rain-0.png", "rain-1.png"]


def test_pairs_that_share_a_ground_truth_are_held_out_one_by_one(tmp_path: Path) -> None:
    for name in ("9_1", "9_2", "8_1"):
        write_image(tmp_path / "ddn" / "rainy_image" / f"{name}.png", streaked(scene(1), 1))
        write_image(tmp_path / "ddn" / "ground_truth" / f"{name[0]}.png", scene(1))
    held = split(tmp_path, {"ddn": ["9_1.png"]})
    got = names(gather([], [tmp_path / "ddn" / "ground_truth"], [tmp_path / "ddn"], held))
    assert got["pairs"] == ["8_1.png", "9_2.png"]
    assert got["clean"] == ["8.png"], "the held-out scene is no scene for synthetic rain"


def test_single_pictures_are_held_out_by_name(folders: Path) -> None:
    held = split(folders, {"photos": ["0.png"], "elsewhere": ["7.png"]})
    assert names(gather([], [folders / "photos"], (), held))["clean"] == ["1.png"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"sets": ["rain-1.png"]}, "holds out no picture of the folders"),
        ({"set": []}, "holds out no picture of the folders"),
        ({"set": ["norain-1.png"]}, r"norain-1\.png of '.*set', which has no picture of that name.*rainy picture's"),
        ({"photos": ["9.png"], "set": ["rain-1.png"]}, r"9\.png of '.*photos'"),
        ({"set": "rain-1.png"}, "no list of names under 'set'"),
        (["set"], "holds a list"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(document: Any, message: str, folders: Path) -> None:
    with pytest.raises(DataError, match=message):
        gather([], [folders / "photos"], [folders / "set"], split(folders, document))


def test_eval_measures_the_same_pictures_that_training_left_out(folders: Path) -> None:
    held = split(folders, {"set": ["rain-1.png"]})
    data = folders / "set"
    assert [pair.rainy.name for pair in held_out_only(find_pairs(data), data, held)] == ["rain-1.png"]
    clean = data / "norain"
    assert [pair.clean.name for pair in held_out_only(as_pairs(clean, dry=True), clean, held)] == ["norain-1.png"]


def test_a_folder_of_pairs_is_no_folder_of_pictures(folders: Path) -> None:
    with pytest.raises(UsageError, match=r"--rainy '.*set' is a folder of pairs\. Give --pairs"):
        gather([folders / "set"], [folders / "photos"])
