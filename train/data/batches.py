"""Batches that depend on (seed, step) alone: any step can be made again, by any worker, in any order.

That is what makes a killed run resume exactly, and what lets several processes share a global batch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.utils.data import Dataset

from derain.errors import DataError
from derain.train.data.cache import PictureCache
from derain.train.data.folders import Picker, Pictures
from derain.train.data.pairs import Pair, Pixels
from derain.train.data.plain import plain_scene
from derain.train.data.recombine import rain_layer, recombine
from derain.train.networks.context import POOL, shrink_pooled
from derain.train.rain.synthesiser import NoiseRain, NoiseRainConfig
from derain.train.systems.base import Batch, Crops, Needs

_PAD = 16  # thumbnails are taken from frames padded as the exported graph pads them


class BatchConfig(BaseModel):
    """The ``[data]`` table of a recipe. Shares are relative; a kind without pictures gives its share to the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch: int = Field(default=16, ge=1, le=1024, description="paired crops a step")
    crop: int = Field(default=128, ge=32, le=1024, multiple_of=16, description="side in pixels")
    crops_per_picture: int = Field(default=4, ge=1, le=64)
    pairs: float = Field(default=0.5, ge=0, description="share of crops from paired folders")
    synthetic: float = Field(default=0.4, ge=0, description="share of crops with synthetic rain")
    dry: float = Field(default=0.1, ge=0, description="share of dry crops: input and target are the same")
    recombined: float = Field(
        default=0.0,
        ge=0,
        description="share of crops with the rain of one pair on the scene of another; a pair whose rain is more than "
        "added grey streaks is taken as it is",
    )
    plain: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="chance that the scene of a dry crop has nothing in it: a wall, a sky, a covered lens; never "
        "under rain, as streaks on a wall cannot be told from streaks in thick fog",
    )
    unpaired_batch: int = Field(
        default=4, ge=1, le=256, description="unpaired crops of each side in a step with a cycle"
    )
    rain_on_truths: bool = Field(
        default=False, description="the ground truths of pairs are scenes for synthetic rain and dry crops too"
    )
    synthetic_pixels: int = Field(
        default=200_000,
        ge=16_384,
        description="larger clean pictures are scaled down to this before they are rained on",
    )
    rain: dict[str, float] = Field(default={}, description="weights of the synthesiser's regimes; empty: its own")
    keep_mist: tuple[float, float] | None = Field(
        default=None,
        description="synthetic mist is taken off where its mean transmission is below the first value, stays in the "
        "target above the second, and in part between: light mist cannot be told from the air of a clear scene",
    )
    cache_mib: int = Field(default=1024, ge=0, description="decoded pictures kept in memory by each worker")


class StepBatches(Dataset[Batch]):
    """Item ``step`` is that step's whole :class:`Batch`, or this process's equal part of it.

    Args:
        needs: what pictures a step wants.
        accumulate: batches that make one step; item ``i`` is then of step ``i // accumulate``.
        rank, world: this process and how many there are; each makes its own groups of the global batch.
    """

    def __init__(
        self,
        pictures: Pictures,
        config: BatchConfig,
        seed: int,
        steps: int,
        needs: Callable[[int], Needs],
        *,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._pictures = pictures
        self._config = config
        self._seed = seed
        self._steps = steps
        self._needs = needs
        self._accumulate = accumulate
        self._cache = PictureCache(config.cache_mib << 20)
        self._pick_pair = Picker(pictures.pairs, pictures.weights.get("pairs", ()))
        self._pick_rainy = Picker(pictures.rainy, pictures.weights.get("rainy", ()))
        self._pick_clean = Picker(pictures.clean, pictures.weights.get("clean", ()))
        # By file: several rainy pictures may share one ground truth.
        truths = {pair.clean: pair for pair in pictures.pairs} if config.rain_on_truths else {}
        scenes: list[Path | Pair] = [*pictures.clean, *truths.values()]
        weights = [*pictures.weights.get("clean", [1.0] * len(pictures.clean)), *([1.0] * len(truths))]
        self._pick_scene = Picker(scenes, weights)
        self._rain = NoiseRain(NoiseRainConfig(weights=config.rain, keep_mist=config.keep_mist))
        self._groups = _share(config.batch // config.crops_per_picture, rank, world, "batch / crops_per_picture")
        self._unpaired = _share(config.unpaired_batch, rank, world, "unpaired_batch")
        shares = {
            "pairs": config.pairs if pictures.pairs else 0.0,
            "synthetic": config.synthetic if scenes else 0.0,
            "dry": config.dry if scenes else 0.0,
            "recombined": config.recombined if pictures.pairs and scenes else 0.0,
        }
        if sum(shares.values()) <= 0 and any(needs(step).pairs for step in range(steps)):
            raise DataError(
                f"The recipe takes no crops from what was given (shares {shares})",
                fix="Give the folders that the recipe's [data] table has a share for",
            )
        self._kinds = list(shares)
        self._chances = np.array(list(shares.values())) / (sum(shares.values()) or 1.0)
        if config.batch % config.crops_per_picture:
            raise DataError(
                f"[data] batch is {config.batch}, crops_per_picture {config.crops_per_picture}",
                expected="a batch that is a multiple of crops_per_picture",
            )

    def __len__(self) -> int:
        return self._steps * self._accumulate

    def __getitem__(self, step: int) -> Batch:
        needs = self._needs(step // self._accumulate)
        batch = Batch()
        if needs.pairs:
            groups = [self._paired_group(self._rng(step, 0, group)) for group in self._groups]
            thumbs = torch.cat([group[2] for group in groups]).repeat_interleave(self._config.crops_per_picture, 0)
            batch.paired = Crops(_to_tensor(np.concatenate([group[0] for group in groups])), thumbs)
            batch.truth = _to_tensor(np.concatenate([group[1] for group in groups]))
            batch.labels = torch.cat([group[3] for group in groups])
        if needs.unpaired and self._pictures.rainy and self._pictures.clean:
            batch.rainy = self._unpaired_crops(step, 1, self._pick_rainy)
            batch.clean = self._unpaired_crops(step, 2, self._pick_clean)
        return batch

    def _rng(self, step: int, stream: int, index: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, step, stream, index])

    def _paired_group(self, rng: np.random.Generator) -> tuple[Pixels, Pixels, Tensor, Tensor]:
        """Crops of one picture: rainy and clean (K, crop, crop, 3), and the rainy picture's thumbnail (1, 9, 32, 32).

        Last the crops' labels (K, 2): see :class:`Batch`.
        """
        kind = self._kinds[int(rng.choice(len(self._kinds), p=self._chances))]
        if kind in ("pairs", "recombined"):
            rainy, clean = self._pick_pair(rng).read(self._read)
            layer = rain_layer(rainy, clean) if kind == "recombined" else None
            if layer is not None:
                rainy, clean = recombine(layer, self._scene(rng), rng)
        else:
            scene = self._scene(rng)
            if kind == "dry" and rng.random() < self._config.plain:
                scene = plain_scene(scene.shape[0], scene.shape[1], rng)
            rainy = clean = _limit_pixels(scene, self._config.synthetic_pixels)
        if rng.random() < 0.5:
            rainy, clean = rainy[:, ::-1], clean[:, ::-1]
        if kind == "synthetic":
            sample = self._rain(np.ascontiguousarray(clean, dtype=np.float32) / 255.0, rng)
            rainy, clean = _to_levels(sample.rainy), _to_levels(sample.clean)
        places = [_place(rainy, self._config.crop, rng) for _ in range(self._config.crops_per_picture)]
        labels = torch.full((len(places), 2), 0.0 if kind == "dry" else torch.nan)
        if kind == "synthetic":
            labels = torch.stack([_labels(sample.streaks[place], sample.transmission[place]) for place in places])
        return (
            np.stack([rainy[place] for place in places]),
            np.stack([clean[place] for place in places]),
            frame_thumbnail(rainy),
            labels,
        )

    def _read(self, path: Path) -> Pixels:
        """A picture from which a crop can be cut."""
        picture = self._cache(path)
        _require_room(picture, self._config.crop, f"'{path}'")
        return picture

    def _scene(self, rng: np.random.Generator) -> Pixels:
        """A clean picture to rain on."""
        scene = self._pick_scene(rng)
        return scene.read_clean(self._read) if isinstance(scene, Pair) else self._read(scene)

    def _unpaired_crops(self, step: int, stream: int, pick: Picker[Path]) -> Crops:
        crops, thumbs = [], []
        for index in self._unpaired:
            rng = self._rng(step, stream, index)
            picture = self._read(pick(rng))
            if rng.random() < 0.5:
                picture = picture[:, ::-1]
            crops.append(picture[_place(picture, self._config.crop, rng)])
            thumbs.append(frame_thumbnail(picture))
        return Crops(_to_tensor(np.stack(crops)), torch.cat(thumbs))


def seed_worker(_: int) -> None:
    """Worker start: no threads of its own. All randomness comes from (seed, step), so there is nothing to seed."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def frame_thumbnail(picture: Pixels) -> Tensor:
    """Thumbnail (1, 9, 32, 32) of a whole RGB picture (H, W, 3), padded as the exported graph pads.

    The same values as :func:`thumbnail`, pooled on 8-bit rows and columns, which is ten times faster than in torch.
    """
    height, width = picture.shape[:2]
    padded = cv2.copyMakeBorder(picture, 0, -height % _PAD, 0, -width % _PAD, cv2.BORDER_REPLICATE)
    rows = [padded[i::POOL] for i in range(POOL)]
    columns: dict[str, NDArray[np.float32]] = {}
    for name, combine in (("max", np.maximum), ("min", np.minimum)):
        tall = combine(combine(rows[0], rows[1]), combine(rows[2], rows[3]))
        cells = [tall[:, i::POOL] for i in range(POOL)]
        columns[name] = combine(combine(cells[0], cells[1]), combine(cells[2], cells[3])).astype(np.float32)
    size = (padded.shape[1] // POOL, padded.shape[0] // POOL)
    mean = cv2.resize(padded.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    pooled = np.concatenate([mean, columns["max"], columns["min"]], axis=2) / 255.0
    return shrink_pooled(torch.from_numpy(pooled.astype(np.float32)).permute(2, 0, 1)[None].contiguous())


def _share(total: int, rank: int, world: int, what: str) -> range:
    if total % world:
        raise DataError(f"{what} is {total}, which {world} processes cannot share equally")
    part = total // world
    return range(rank * part, (rank + 1) * part)


def _limit_pixels(picture: Pixels, limit: int) -> Pixels:
    height, width = picture.shape[:2]
    if height * width <= limit:
        return picture
    scale = (limit / (height * width)) ** 0.5
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _require_room(picture: Pixels, crop: int, name: str) -> None:
    height, width = picture.shape[:2]
    if height < crop or width < crop:
        raise DataError(
            f"{name} is {width}x{height}",
            expected=f"training pictures of at least {crop}x{crop}",
            fix="Take small pictures out, or set a smaller [data] crop in the recipe",
        )


def _place(picture: Pixels, crop: int, rng: np.random.Generator) -> tuple[slice, slice]:
    _require_room(picture, crop, "A training picture, halved or scaled down,")
    height, width = picture.shape[:2]
    y, x = int(rng.integers(height - crop + 1)), int(rng.integers(width - crop + 1))
    return slice(y, y + crop), slice(x, x + crop)


def _labels(streaks: NDArray[np.float32], transmission: NDArray[np.float32]) -> Tensor:
    """Whether a crop holds rain (streaks of 8 levels of 255 on one pixel in 500) and fog (5 % of the light lost)."""
    rain = float((streaks > 8 / 255).mean()) > 1 / 500
    fog = float(transmission.mean()) < 0.95
    return torch.tensor([rain, fog], dtype=torch.float32)


def _to_levels(picture: NDArray[np.float32]) -> Pixels:
    return np.asarray(np.clip(np.rint(picture * 255.0), 0, 255), dtype=np.uint8)


def _to_tensor(pictures: Pixels) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [0, 1], channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255.0
