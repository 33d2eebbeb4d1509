"""The choice of frames: different ones, the same every time, and honest about what is wrong with a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import scene, write_pairs

from derain.calibration import selection as module
from derain.calibration.descriptors import Description, describe, digest
from derain.calibration.selection import farthest_points, select
from derain.calibration.sources import stream
from derain.errors import CalibrationError, DataError, MediaError
from derain.images import write_image

WET = np.full((64, 96), 0.5, np.float32)
DRY = np.zeros((64, 96), np.float32)


def _described(count: int, rain: np.ndarray = WET) -> list[tuple[str, Description]]:  # type: ignore[type-arg]
    return [(f"{seed}", describe(scene(seed)[0], rain)) for seed in range(count)]


def test_the_choice_repeats() -> None:
    assert select(_described(12), 5) == select(_described(12), 5)


def test_duplicates_go_and_new_rain_stays() -> None:
    frame = scene(1)[0]
    noisy = np.clip(frame.astype(int) + np.random.default_rng(0).integers(-1, 2, frame.shape), 0, 255).astype(np.uint8)
    frames = [("a", describe(frame, WET)), ("b", describe(noisy, WET)), ("c", describe(frame, 0.5 * WET))]
    found = select([*frames, *_described(1)], 10)
    assert found.duplicates == 1
    assert sorted(found.names) == ["0", "a", "c"]
    assert any("Only 3 different frames" in warning for warning in found.warnings)


def test_farthest_points_reach_every_cluster() -> None:
    random = np.random.default_rng(2)
    centres = np.array([[0, 0], [9, 0], [0, 9], [9, 9]], np.float32)
    points = np.concatenate([centre + random.normal(0, 0.1, (50, 2)) for centre in centres]).astype(np.float32)
    chosen = farthest_points(points, np.ones(2, np.float32), 5)
    assert {index // 50 for index in chosen[1:]} == {0, 1, 2, 3}
    assert len(set(chosen)) == 5


def test_dry_frames_are_warned_about() -> None:
    assert any("look dry" in warning for warning in select(_described(4, DRY), 4).warnings)
    assert not any("look dry" in warning for warning in select(_described(4, WET), 4).warnings)


def test_swapped_colours_are_suspected() -> None:
    """Pictures are redder than blue, and skies bluer than ground: both the other way round in every frame is odd."""
    random = np.random.default_rng(3)
    usual = []
    for seed in range(14):
        frame = scene(seed)[0] // 2
        frame[:32, :, 0] = frame[:32, :, 0] + random.integers(60, 90)
        frame[32:, :, 2] = frame[32:, :, 2] + random.integers(100, 120)
        usual.append(frame)
    upside_down = [frame[::-1] for frame in usual]

    def suspected(frames: list[np.ndarray]) -> bool:  # type: ignore[type-arg]
        found = select([(str(i), describe(np.ascontiguousarray(frame), WET)) for i, frame in enumerate(frames)], 5)
        return any("swapped" in warning for warning in found.warnings)

    assert not suspected(usual)
    assert suspected([frame[..., ::-1] for frame in usual])
    assert not suspected(upside_down)


def test_constant_frames() -> None:
    grey = np.full((64, 96, 3), 90, np.uint8)
    found = select([*_described(2), ("grey", describe(grey, WET))], 5)
    assert found.flat == 1
    with pytest.raises(CalibrationError, match="constant"):
        select([("grey", describe(grey, WET))], 5)
    with pytest.raises(CalibrationError, match="no frames"):
        select([], 5)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit every second description goes; those of the whole stream still take part."""
    monkeypatch.setattr(module, "_HELD", 8)
    held: list[int] = []
    real = np.vstack
    monkeypatch.setattr(module.np, "vstack", lambda parts: held.append(len(parts[0])) or real(parts))
    found = select(_described(40), 6)
    assert max(held) < 8
    assert found.seen == 40
    assert max(int(name) for name in found.names) > 30


def test_the_digest_is_of_pixels_and_size() -> None:
    frame = scene(1)[0]
    assert digest(frame) == digest(frame.copy())
    assert digest(frame) != digest(frame.reshape(96, 64, 3))
    other = frame.copy()
    other[0, 0, 0] ^= 1
    assert digest(frame) != digest(other)


def test_a_stream_of_everything(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", 3)
    write_image(tmp_path / "plain" / "one.png", scene(7)[0])
    split = tmp_path / "split.json"
    split.write_text('{"about": "x", "pairs": ["01.png"]}')
    found = list(stream([pairs, tmp_path / "plain", tmp_path / "plain" / "one.png"], split))
    assert [Path(candidate.name).name for candidate in found] == ["00.png", "01.png", "02.png", "one.png", "one.png"]
    assert [candidate.held_out for candidate in found] == [False, True, False, False, False]
    assert [candidate.truth is not None for candidate in found] == [True, True, True, False, False]
    (only,) = stream([pairs], None, {str(pairs / "rainy" / "02.png")})
    assert (only.read() == scene(2)[0]).all()


def test_frames_of_a_video_are_found_again(tmp_path: Path) -> None:
    import av

    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=10)
        video.width, video.height, video.pix_fmt = 96, 64, "bgr0"
        for seed in range(6):
            frame = av.VideoFrame.from_ndarray(scene(seed)[0], format="bgr24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
    every = {candidate.name: digest(candidate.read()) for candidate in stream([path])}
    assert len(every) == 6
    names = {f"{path}#1", f"{path}#4"}
    again = {candidate.name: digest(candidate.read()) for candidate in stream([path], None, names)}
    assert again == {name: every[name] for name in names}


def test_broken_sources(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="does not exist"):
        list(stream([tmp_path / "nothing"]))
    pairs = write_pairs(tmp_path / "pairs", 2)
    (pairs / "clean" / "01.png").unlink()
    with pytest.raises(DataError, match=r"01\.png' has no partner"):
        list(stream([pairs]))
    split = tmp_path / "split.json"
    split.write_text("[1]")
    with pytest.raises(DataError, match="not a split file"):
        list(stream([pairs], split))
