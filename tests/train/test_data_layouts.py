"""Names of the public data sets are understood, wrong ones are named, weights are kept, shared scenes are found."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import scene, streaked
from typer.testing import CliRunner

from derain.cli import app
from derain.errors import DataError, UsageError
from derain.images import list_images, write_image
from derain.train.data.folders import Picker, Pictures, gather, parse_weighted
from derain.train.data.layouts import find_pairs
from derain.train.data.overlap import SAME_SCENE_BITS, find_overlap, hash_pictures, overlap_of, scene_hash
from derain.train.data.pairs import Pair

GREY = np.full((16, 16, 3), 90, np.uint8)

LAYOUTS = {
    "paired": {"rainy/a.jpg": "clean/a.png", "rainy/b.png": "clean/b.png"},
    "paired, other folders": {"input/1.png": "target/1.png"},
    "rain100 in folders": {"rain/rain-001.png": "norain/norain-001.png", "rain/rain-002.png": "norain/norain-002.png"},
    "rain100 beside": {"rain-001.png": "norain-001.png", "rain-010.png": "norain-010.png"},
    "rain200": {"rain/X2/norain-1x2.png": "norain/norain-1.png", "rain/X2/norain-12x2.png": "norain/norain-12.png"},
    "rain1400": {f"rainy_image/{s}_{i}.jpg": f"ground_truth/{s}.jpg" for s in (901, 90) for i in range(1, 15)},
    "outdoor_rain": {f"in/im_0001_s{s}_a0{a}.png": "gt/im_0001.png" for s in (80, 100) for a in (4, 5)},
    "spa test": {"rain/000.png": "gt/000gt.png", "rain/001.png": "gt/001gt.png"},
    "rain12": {"001_in.png": "001_GT.png", "002_in.png": "002_GT.png"},
    "raindrop": {"data/0_rain.png": "gt/0_clean.png"},
    "spa names": {"7_rain.png": "7_gt.png"},
}


def lay_out(root: Path, pairs: dict[str, str]) -> None:
    for name in {*pairs, *pairs.values()}:
        write_image(root / name, GREY)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_recognised_by_its_names(name: str, tmp_path: Path) -> None:
    lay_out(tmp_path, LAYOUTS[name])
    found = {str(p.rainy.relative_to(tmp_path)): str(p.clean.relative_to(tmp_path)) for p in find_pairs(tmp_path)}
    assert found == LAYOUTS[name]


def test_a_named_layout_is_not_guessed(tmp_path: Path) -> None:
    lay_out(tmp_path, LAYOUTS["rain1400"])
    assert len(find_pairs(tmp_path, "rain1400")) == 28
    with pytest.raises(DataError, match=r"30 pictures without a partner.*outdoor_rain"):
        find_pairs(tmp_path, "outdoor_rain")
    with pytest.raises(UsageError, match=r"no layout 'rain13k'.*rain1400"):
        find_pairs(tmp_path, "rain13k")


def test_spa_s_list_of_pairs(tmp_path: Path) -> None:
    pairs = {"real_world/001_1.png": "real_world_gt/001.png", "real_world/002_1.png": "real_world_gt/002.png"}
    lay_out(tmp_path, pairs)
    lines = [f"/{rainy} /{clean}" for rainy, clean in pairs.items()]
    (tmp_path / "real_world.txt").write_text("\n".join(lines) + "\n")
    assert [pair.clean.name for pair in find_pairs(tmp_path)] == ["001.png", "002.png"]
    (tmp_path / "real_world.txt").write_text("\n".join([*lines, "/real_world/9.png /real_world_gt/9.png"]))
    with pytest.raises(DataError, match=r"Line 3.*9\.png"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("side", ["left", "right"])
def test_side_by_side_pictures_are_read_the_right_way_round(side: str, tmp_path: Path) -> None:
    for i in range(5):
        clean = scene(i)
        halves = [streaked(clean, i), clean]
        write_image(tmp_path / f"{i}.png", np.concatenate(halves if side == "left" else halves[::-1], axis=1))
    for layout in (None, "rain800", f"rainy_{side}"):
        pairs = find_pairs(tmp_path, layout)
        assert len(pairs) == 5
        rainy, clean = pairs[3].read()
        assert np.array_equal(clean, scene(3))
        assert np.array_equal(rainy, streaked(scene(3), 3))
    assert gather(pairs=[tmp_path]).pairs == pairs


def test_pictures_that_are_no_pairs_are_refused(tmp_path: Path) -> None:
    for i in range(3):
        write_image(tmp_path / f"{i}.png", np.concatenate([scene(i), scene(50 + i)], axis=1))
    with pytest.raises(DataError, match=r"0\.png.*side by side"):
        find_pairs(tmp_path)


def test_halves_that_cannot_be_told_apart_ask_for_the_layout(tmp_path: Path) -> None:
    for i in range(4):
        clean = scene(i)
        halves = [streaked(clean, i), clean]
        write_image(tmp_path / f"{i}.png", np.concatenate(halves[:: 1 - 2 * (i % 2)], axis=1))
    with pytest.raises(DataError, match="rainy_left"):
        find_pairs(tmp_path)


def test_weights_multiply_how_often_a_picture_is_drawn(tiny_folders: Path) -> None:
    folders = [f"{tiny_folders / 'clean'}@3", tiny_folders / "rainy"]
    pictures = gather(clean=folders, pairs=[f"{tiny_folders / 'pairs'}@0.5"])
    assert pictures.weights == {"clean": [3.0] * 4 + [1.0] * 4, "pairs": [0.5] * 4}
    assert pictures.origins == ["clean", "rainy", f"{tiny_folders.name}/pairs"]
    rng = np.random.default_rng(1)
    pick = Picker(pictures.clean, pictures.weights["clean"])
    drawn = Counter(pick(rng).parent.name for _ in range(4000))
    assert drawn["clean"] / 4000 == pytest.approx(3 / 4, abs=0.03)
    even = Picker(pictures.clean)
    rng, twin = np.random.default_rng(1), np.random.default_rng(1)
    assert [even(rng) for _ in range(9)] == [pictures.clean[int(twin.integers(8))] for _ in range(9)]


def test_a_folder_s_own_name_may_hold_an_at_sign(tmp_path: Path) -> None:
    folder = tmp_path / "rain@2"
    folder.mkdir()
    assert parse_weighted(folder) == (folder, 1.0)
    assert parse_weighted(f"{folder}@0.5") == (folder, 0.5)
    assert parse_weighted(tmp_path / "me@home") == (tmp_path / "me@home", 1.0)
    for wrong in ("0", "-1", "nan", "inf"):
        with pytest.raises(UsageError, match="above zero"):
            parse_weighted(f"{folder}@{wrong}")


def test_a_mirrored_hash_is_the_hash_of_the_mirror_image() -> None:
    for seed in range(6):
        picture = textured(seed)
        plain, mirrored = scene_hash(picture)
        flipped, back = scene_hash(np.ascontiguousarray(picture[:, ::-1]))
        assert (mirrored != flipped).sum() <= 2
        assert (plain != back).sum() <= 2
        assert (plain != mirrored).sum() > SAME_SCENE_BITS


def textured(seed: int) -> NDArray[np.uint8]:
    """A picture with structure at many scales, as photographs have; uint8 (96, 128, 3)."""
    rng = np.random.default_rng(seed)
    total = np.zeros((96, 128))
    for size in (3, 6, 12, 24):
        total += cv2.resize(rng.normal(0, 40, (size, size)), (128, 96), interpolation=cv2.INTER_CUBIC)
    return np.repeat(np.clip(120 + total, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize("change", ["same", "mirrored", "smaller", "compressed", "rainy"])
def test_a_shared_scene_is_named(change: str, tmp_path: Path) -> None:
    for i in range(6):
        write_image(tmp_path / "train" / f"{i}.png", textured(i))
    copy = textured(4)
    if change == "mirrored":
        copy = np.ascontiguousarray(copy[:, ::-1])
    if change == "smaller":
        copy = cv2.resize(copy, (80, 60), interpolation=cv2.INTER_AREA)
    if change == "rainy":
        copy = streaked(copy, 1)
    for folder in ("rainy", "clean"):
        name = "x.jpg" if change == "compressed" else "x.png"
        write_image(tmp_path / "test" / folder / name, copy)
        write_image(tmp_path / "test" / folder / "y.png", textured(77))
    found = find_overlap(find_pairs(tmp_path / "test"), list_images(tmp_path / "train"))
    assert [(held.stem, seen.name) for held, seen in found] == [("x", "4.png")]


def test_pictures_of_one_colour_are_no_scene(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", GREY)
    write_image(tmp_path / "b.png", GREY)
    assert find_overlap([Pair(tmp_path / "a.png", tmp_path / "a.png")], [tmp_path / "b.png"]) == []


def test_eval_refuses_scenes_of_the_training_folder(tmp_path: Path) -> None:
    for i in range(3):
        for folder in ("rainy", "clean"):
            write_image(tmp_path / "test" / folder / f"t{i}.png", textured(i))
            write_image(tmp_path / "train" / folder / f"{i + 2}.png", textured(i + 2))
    command = ["eval", "none.ckpt", "--data", str(tmp_path / "test"), "--check-overlap", str(tmp_path / "train")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "1 held-out scenes are trained on" in " ".join(result.output.split())
    assert "t2.png" in "".join(result.output.split())
    shutil.rmtree(tmp_path / "train" / "rainy")
    shutil.rmtree(tmp_path / "train" / "clean")
    write_image(tmp_path / "train" / "9.png", textured(9))
    result = CliRunner().invoke(app, command)
    assert "none.ckpt" in result.output, "the overlap check passed, and only the checkpoint is missing"


def test_scenes_of_the_shared_data_are_split_as_it_says(shared_data: Path) -> None:
    train, test, fog = (shared_data / part for part in ("Rain100L/train", "Rain100L/test", "RainFog"))
    pictures = gather([shared_data / "real"], [shared_data / "clean"], [train, fog], shared_data / "splits.json")
    assert len(pictures.held_out) == 28
    assert overlap_of(pictures) == []
    assert find_overlap(find_pairs(test), [*find_pairs(train), *list_images(shared_data / "clean")]) == []
    # The RainFog scenes are Rain100L's training scenes: had the split been by file, this would have been the price.
    assert len(find_overlap(find_pairs(fog), find_pairs(train))) == 23
    foggy = [pair for pair in pictures.held_out if fog in pair.rainy.parents]
    careless = Pictures(pairs=find_pairs(train), held_out=foggy)
    assert len(overlap_of(careless)) == len(careless.held_out) > 0
    hashes = hash_pictures(find_pairs(test))[:, 0]
    apart = (hashes[:, None] != hashes[None]).sum(-1)
    distinct = len({tuple(np.flatnonzero(row <= SAME_SCENE_BITS)) for row in apart})
    assert distinct == 91
