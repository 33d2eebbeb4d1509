"""The perceptual loss: shipped SqueezeNet, VGG-16 from the user's file, and what is said of a file that will not do."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from derain.errors import DataError
from derain.images import read_image
from derain.train.losses.perceptual import PerceptualConfig, PerceptualLoss


def squeezenet() -> PerceptualLoss:
    return PerceptualLoss(PerceptualConfig())


def test_gradient_reaches_the_picture_and_not_the_reference() -> None:
    generator = torch.Generator().manual_seed(1)
    picture = torch.rand(1, 3, 40, 48, generator=generator, requires_grad=True)
    reference = torch.rand(1, 3, 40, 48, generator=generator, requires_grad=True)
    loss = squeezenet()
    loss(picture, reference).backward()
    assert picture.grad is not None
    assert float(picture.grad.abs().max()) > 0
    assert reference.grad is None
    assert float(loss(reference, reference).detach()) == 0.0


def test_weights_are_neither_trained_nor_in_checkpoints() -> None:
    loss = squeezenet()
    loss(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    assert not list(loss.parameters())
    assert not loss.state_dict()
    assert "SqueezeNet" in str(loss)


def test_features_see_rain_as_rain_grows(shared_data: Path) -> None:
    """On real pictures: the distance of a rainy picture to its ground truth falls as the rain is blended out."""
    rainy, clean = (_crop(shared_data / "Rain100L" / "train" / kind / "001.png") for kind in ("rainy", "clean"))
    loss = squeezenet()
    distances = [float(loss(clean + share * (rainy - clean), clean)) for share in (1.0, 0.5, 0.25)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 2 * distances[2]


def test_features_have_unit_magnitude_on_photographs(shared_data: Path) -> None:
    picture = _crop(sorted((shared_data / "clean").glob("*.jpg"))[0])
    for feature in squeezenet().features(picture):
        assert 0.3 < float((feature**2).mean().sqrt()) < 3


def test_the_shipped_file_is_the_one_in_the_data(shared_data: Path) -> None:
    shipped = resources.files("derain.train").joinpath("perceptual").joinpath("squeezenet1_0.npz").read_bytes()
    source = (shared_data / "perceptual" / "squeezenet1_0_imagenet.npz").read_bytes()
    assert hashlib.sha256(shipped).digest() == hashlib.sha256(source).digest()


def _crop(path: Path) -> Tensor:
    picture = read_image(path)[100:196, 100:196, ::-1].copy()
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


class Vgg(nn.Module):
    """torchvision's vgg16.features up to conv3_3, written out."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, count in ((64, 2), (128, 2), (256, 3)):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)


def test_vgg16_from_a_file_is_torchvisions_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Vgg()
    torch.save(network.state_dict(), tmp_path / "vgg16.pth")
    loss = PerceptualLoss(PerceptualConfig(features="vgg16", vgg16_file=str(tmp_path / "vgg16.pth")))
    a, b = torch.rand(2, 1, 3, 32, 36, generator=torch.Generator().manual_seed(1))
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = []
    for depth in (9, 16):  # up to relu2_2 and relu3_3
        x, y = (network.features[:depth]((p - mean[:, None, None]) / deviation[:, None, None]) for p in (a, b))
        expected.append(F.mse_loss(x, y))
    torch.testing.assert_close(loss(a, b), (expected[0] + expected[1]) / 2)
    assert "vgg16.pth" in str(loss)


def test_a_vgg_file_that_will_not_do_is_told(tmp_path: Path) -> None:
    def run(path: Path) -> None:
        loss = PerceptualLoss(PerceptualConfig(features="vgg16", vgg16_file=str(path)))
        loss(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))

    with pytest.raises(DataError, match="missing"):
        run(tmp_path / "missing.pth")
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(DataError, match="not a readable weights file"):
        run(tmp_path / "text.pth")
    torch.save({"features.0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"features\.0\.weight"):
        run(tmp_path / "other.pth")


def test_the_file_goes_with_vgg16_alone() -> None:
    with pytest.raises(ValidationError, match="vgg16_file"):
        PerceptualConfig(features="vgg16")
    with pytest.raises(ValidationError, match="vgg16_file"):
        PerceptualConfig(vgg16_file="x.pth")
