"""Batches depend on (seed, step) alone, keep the held-out pictures out, and say what is wrong with a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from derain.errors import DataError
from derain.images import write_image
from derain.train.data.batches import BatchConfig, StepBatches, frame_thumbnail
from derain.train.data.folders import Pictures, gather
from derain.train.data.layouts import find_pairs
from derain.train.networks.context import thumbnail
from derain.train.systems.base import Batch, Needs

CONFIG = BatchConfig(batch=8, crop=32, crops_per_picture=2, unpaired_batch=4)


def make(pictures: Pictures, config: BatchConfig = CONFIG, **kwargs: int) -> StepBatches:
    return StepBatches(pictures, config, 5, 10, lambda step: Needs(True, step % 2 == 0), **kwargs)


def tensors(batch: Batch) -> list[torch.Tensor]:
    sides = [side for side in (batch.paired, batch.rainy, batch.clean) if side is not None]
    found = [tensor for side in sides for tensor in (side.picture, side.thumb)]
    return found if batch.truth is None else [*found, batch.truth]


def test_a_step_is_the_same_in_any_order_and_process(tiny_pictures: Pictures) -> None:
    forwards, again = make(tiny_pictures), make(tiny_pictures)
    first = [forwards[step] for step in range(4)]
    for step in reversed(range(4)):
        for a, b in zip(tensors(first[step]), tensors(again[step]), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(tensors(first[0])[0], tensors(first[1])[0])


def test_processes_share_the_global_batch(tiny_pictures: Pictures) -> None:
    whole = make(tiny_pictures)[2]
    parts = [make(tiny_pictures, rank=rank, world=2)[2] for rank in range(2)]
    for index, tensor in enumerate(tensors(whole)):
        assert torch.equal(tensor, torch.cat([tensors(part)[index] for part in parts]))


def test_a_step_holds_what_it_needs(tiny_pictures: Pictures) -> None:
    batches = make(tiny_pictures)
    with_cycle, without = batches[0], batches[1]
    assert with_cycle.rainy is not None
    assert with_cycle.clean is not None
    assert with_cycle.rainy.picture.shape == (4, 3, 32, 32)
    assert without.rainy is None
    assert without.paired is not None
    assert without.paired.picture.shape == (8, 3, 32, 32)
    assert without.paired.thumb.shape == (8, 9, 32, 32)
    for tensor in tensors(with_cycle):
        assert tensor.dtype == torch.float32
        assert tensor.min() >= 0
        assert tensor.max() <= 1


def test_dry_crops_are_their_own_truth(tiny_pictures: Pictures) -> None:
    batch = make(tiny_pictures, CONFIG.model_copy(update={"pairs": 0.0, "synthetic": 0.0}))[1]
    assert batch.paired is not None
    assert batch.truth is not None
    assert torch.equal(batch.paired.picture, batch.truth)


def test_synthetic_crops_differ_from_their_truth(tiny_pictures: Pictures) -> None:
    batch = make(tiny_pictures, CONFIG.model_copy(update={"pairs": 0.0, "dry": 0.0}))[1]
    assert batch.paired is not None
    assert batch.truth is not None
    assert (batch.paired.picture - batch.truth).abs().mean() > 1 / 255


@pytest.mark.parametrize("size", [(48, 64), (33, 47), (16, 130), (17, 16)])
def test_the_quick_thumbnail_equals_the_network_s(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    frame = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    padded = F.pad(frame, (0, -size[1] % 16, 0, -size[0] % 16), mode="replicate")
    torch.testing.assert_close(frame_thumbnail(picture), thumbnail(padded), atol=1e-6, rtol=0)


def test_held_out_pictures_are_never_trained_on(tiny_folders: Path, tiny_pictures: Pictures) -> None:
    assert [pair.rainy.name for pair in tiny_pictures.held_out] == ["0.png"]
    assert [pair.rainy.name for pair in tiny_pictures.pairs] == ["1.png", "2.png", "3.png"]
    everything = gather(pairs=[tiny_folders / "pairs"])
    assert len(everything.pairs) == 4
    assert everything.held_out == []


def test_a_picture_without_a_partner_is_named(tmp_path: Path) -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    for folder, names in (("rainy", ("a", "b")), ("clean", ("a",))):
        for name in names:
            write_image(tmp_path / folder / f"{name}.png", picture)
    with pytest.raises(DataError, match="'b'"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"pairs": "0.png"}', '{"pairs": [1]}'])
def test_a_wrong_split_file_is_refused(text: str, tmp_path: Path, tiny_folders: Path) -> None:
    split = tmp_path / "split.json"
    split.write_text(text)
    with pytest.raises(DataError, match=r"split\.json"):
        gather(pairs=[tiny_folders / "pairs"], split=split)


def test_no_pictures_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to learn from"):
        gather()


def test_a_picture_smaller_than_the_crop_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "clean" / "small.png", np.zeros((20, 40, 3), np.uint8))
    batches = make(gather(clean=[tmp_path / "clean"]))
    with pytest.raises(DataError, match="40x20"):
        batches[1]


def test_pairs_of_unequal_sizes_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "rainy" / "a.png", np.zeros((48, 48, 3), np.uint8))
    write_image(tmp_path / "clean" / "a.png", np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(DataError, match=r"48x48.*64x48"):
        make(gather(pairs=[tmp_path]))[1]


def test_a_batch_that_processes_cannot_share_is_refused(tiny_pictures: Pictures) -> None:
    with pytest.raises(DataError, match="3 processes cannot share"):
        make(tiny_pictures, rank=0, world=3)


def test_shares_of_zero_are_for_systems_that_need_no_pairs(tiny_pictures: Pictures) -> None:
    none = CONFIG.model_copy(update={"pairs": 0.0, "synthetic": 0.0, "dry": 0.0})
    batch = StepBatches(tiny_pictures, none, 5, 10, lambda step: Needs(False, True))[3]
    assert batch.paired is None
    assert batch.rainy is not None
    with pytest.raises(DataError, match="takes no crops"):
        StepBatches(tiny_pictures, none, 5, 10, lambda step: Needs(step == 9, True))


def test_a_split_by_scene_of_the_shared_data(shared_data: Path) -> None:
    pictures = gather(
        [shared_data / "real"],
        [shared_data / "clean"],
        [shared_data / "Rain100L" / "train", shared_data / "RainFog"],
        shared_data / "splits.json",
    )
    assert (len(pictures.rainy), len(pictures.clean)) == (98, 164)
    assert (len(pictures.pairs), len(pictures.held_out)) == (195, 28)


def test_ground_truths_are_scenes_for_synthetic_rain(tiny_pictures: Pictures) -> None:
    pairs_only = Pictures(pairs=tiny_pictures.pairs)
    shares = {"batch": 4, "crop": 32, "crops_per_picture": 2, "pairs": 0.0}
    with pytest.raises(DataError, match="takes no crops"):
        make(pairs_only, BatchConfig(**shares, synthetic=0.0, dry=1.0))
    batch = make(pairs_only, BatchConfig(**shares, synthetic=0.0, dry=1.0, rain_on_truths=True))[0]
    assert batch.paired is not None
    assert batch.truth is not None
    assert torch.equal(batch.paired.picture, batch.truth)
    truths = [pair.read_clean()[..., ::-1] for pair in tiny_pictures.pairs]
    crop = (batch.truth[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert any(_holds(truth, crop) or _holds(truth[:, ::-1], crop) for truth in truths)


def _holds(picture: np.ndarray, crop: np.ndarray) -> bool:
    side = len(crop)
    windows = np.lib.stride_tricks.sliding_window_view(picture, (side, side), axis=(0, 1))
    return bool((windows == crop.transpose(2, 0, 1)).all(axis=(2, 3, 4)).any())
