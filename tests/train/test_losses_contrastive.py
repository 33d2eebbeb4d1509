"""PatchNCE and the hinge loss against plain loops, feature samples, and ReMAEN's edge loss by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import convolve
from torch import Tensor

from derain.train.losses.contrastive import patch_nce
from derain.train.losses.edge import edge_loss, laplacian_edges
from derain.train.losses.hinge import hinge, hinge_discriminator
from derain.train.networks.patch_sample import PatchProjection, draw_places


def unit(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def looped_nce(query: Tensor, key: Tensor, temperature: float) -> float:
    """As the paper writes it: one positive against all other places of the same picture."""
    losses = []
    for picture in range(len(query)):
        for place in range(query.shape[1]):
            positive = math.exp(float(query[picture, place] @ key[picture, place]) / temperature)
            negatives = sum(
                math.exp(float(query[picture, place] @ key[picture, other]) / temperature)
                for other in range(query.shape[1])
                if other != place
            )
            losses.append(-math.log(positive / (positive + negatives)))
    return float(np.mean(losses))


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_patch_nce_is_the_plain_loop(temperature: float) -> None:
    query, key = unit(2, 7, 5, seed=1), unit(2, 7, 5, seed=2)
    assert float(patch_nce(query, key, temperature)) == pytest.approx(looped_nce(query, key, temperature), abs=1e-10)


def test_patch_nce_of_what_says_nothing_is_log_of_the_number_of_places() -> None:
    same = unit(1, 1, 5, seed=1).expand(1, 9, 5)
    assert float(patch_nce(same, same)) == pytest.approx(math.log(9))
    assert float(patch_nce(unit(1, 9, 16, seed=3), unit(1, 9, 16, seed=3))) < 0.1


def test_no_gradient_flows_into_the_keys() -> None:
    query, key = unit(1, 6, 4, seed=1).requires_grad_(), unit(1, 6, 4, seed=2).requires_grad_()
    patch_nce(query, key).backward()  # type: ignore[no-untyped-call]
    assert query.grad is not None
    assert key.grad is None


def test_hinge_by_hand() -> None:
    scores = [torch.tensor([-2.0, 0.5, 3.0])]
    assert float(hinge(scores, real=True)) == pytest.approx((3.0 + 0.5 + 0.0) / 3)
    assert float(hinge(scores, real=False)) == pytest.approx((0.0 + 1.5 + 4.0) / 3)
    assert float(hinge([*scores, *scores], real=True)) == pytest.approx(2 * 3.5 / 3)
    assert float(hinge_discriminator(scores, scores)) == pytest.approx((3.5 + 5.5) / 6)


def test_places_are_distinct_shared_and_repeatable() -> None:
    features = [torch.rand(2, 3, 6, 5), torch.rand(2, 4, 2, 2)]
    first = draw_places(features, 12, torch.Generator().manual_seed(4))
    assert [len(set(place.tolist())) for place in first] == [12, 4]
    again = draw_places(features, 12, torch.Generator().manual_seed(4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_samples_are_the_projected_features_of_their_places() -> None:
    torch.manual_seed(0)
    project = PatchProjection([3, 4], 8)
    features = [torch.rand(2, 3, 6, 5), torch.rand(2, 4, 2, 2)]
    places = [torch.tensor([7, 29]), torch.tensor([3])]
    samples = project(features, places)
    assert [tuple(sample.shape) for sample in samples] == [(2, 2, 8), (2, 1, 8)]
    row, column = divmod(29, 5)
    expected = F.normalize(project.heads[0](features[0][1, :, row, column]), dim=0)
    torch.testing.assert_close(samples[0][1, 1], expected)


def test_edges_are_the_laplacian_of_grey() -> None:
    picture = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    kernel = np.full((3, 3), -1.0)
    kernel[1, 1] = 8
    for index in range(2):
        grey = np.tensordot([0.2989, 0.5870, 0.1140], picture[index].numpy(), axes=1)
        expected = np.maximum(convolve(grey, kernel, mode="constant"), 0)
        np.testing.assert_allclose(laplacian_edges(picture)[index, 0].numpy(), expected, atol=1e-12)
    other = picture.flip(-1)
    difference = laplacian_edges(picture) - laplacian_edges(other)
    assert float(edge_loss(picture, other)) == pytest.approx(float((difference**2).mean()))
