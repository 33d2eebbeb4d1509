"""The rain mixture against scikit-learn's Gaussian mixture."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from derain.train.losses.gmm import RainMixture

WEIGHTS = np.array([0.5, 0.3, 0.2])
VARIANCES = np.array([0.01, 0.2, 1.5])


def mixture(rate: float = 1.0) -> RainMixture:
    made = RainMixture(3, rate=rate).double()
    made.share.copy_(torch.from_numpy(WEIGHTS))
    made.energy.copy_(torch.from_numpy(WEIGHTS * VARIANCES))
    return made


def symmetric_values(count: int = 400) -> Tensor:
    """Every value with its negative: the means of a free mixture then stay at zero, where ours are by definition."""
    values = torch.randn(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.7
    return torch.cat([values, -values])


def reference(values: Tensor, steps: int) -> GaussianMixture:
    fitted = GaussianMixture(
        3,
        covariance_type="spherical",
        max_iter=max(1, steps),
        tol=0.0,
        reg_covar=0.0,
        weights_init=WEIGHTS,
        means_init=np.zeros((3, 1)),
        precisions_init=1 / VARIANCES,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it did not converge: that is the point
        return fitted.fit(values.numpy()[:, None])


def test_likelihood_is_scikit_learns() -> None:
    values = symmetric_values()
    fitted = reference(values, 1)
    ours = RainMixture(3).double()
    ours.share.copy_(torch.from_numpy(fitted.weights_))
    ours.energy.copy_(torch.from_numpy(fitted.weights_ * fitted.covariances_))
    expected = -fitted.score(values.numpy()[:, None])
    assert float(ours.negative_log_likelihood(values.reshape(2, 4, -1))) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("steps", [1, 5])
def test_expectation_maximisation_is_scikit_learns(steps: int) -> None:
    values = symmetric_values()
    fitted = reference(values, steps)
    ours = mixture()
    for _ in range(steps):
        ours.expectation_maximisation(values.reshape(1, 1, 20, -1))
    np.testing.assert_allclose(ours.weights.numpy(), fitted.weights_, atol=1e-8)
    np.testing.assert_allclose(ours.variances.numpy(), fitted.covariances_, atol=1e-8)


def test_steps_on_batches_approach_the_mixture_that_made_them() -> None:
    generator = torch.Generator().manual_seed(2)
    ours = RainMixture(2, rate=0.1)
    for _ in range(150):
        wide = torch.rand(2000, generator=generator) < 0.25
        ours.expectation_maximisation(torch.randn(2000, generator=generator) * torch.where(wide, 0.5, 0.05))
    np.testing.assert_allclose(ours.weights.numpy(), [0.75, 0.25], atol=0.04)
    np.testing.assert_allclose(ours.variances.sqrt().numpy(), [0.05, 0.5], rtol=0.1)


def test_gradient_pulls_to_zero_and_stays_bounded_where_nothing_is_removed() -> None:
    ours = RainMixture(3, rate=1.0, least_deviation=0.01)
    for _ in range(3):
        ours.expectation_maximisation(torch.zeros(100))
    assert float(ours.variances.min()) == pytest.approx(1e-4)
    values = torch.tensor([-0.01, 0.0, 0.01], requires_grad=True)
    (gradient,) = torch.autograd.grad(ours.negative_log_likelihood(values), values)
    assert gradient[0] < 0 < gradient[2]
    assert float(gradient.abs().max()) <= 0.01 / 1e-4 / 3 * 1.001


def test_a_checkpoint_holds_the_mixture() -> None:
    ours = RainMixture(3)
    ours.expectation_maximisation(torch.randn(500))
    again = RainMixture(3)
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again.variances, ours.variances)
    assert not list(ours.parameters())
