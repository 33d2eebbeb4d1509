"""The rain prior of DerainCycleGAN: what deraining takes off is a mixture of Gaussians (eq. 11 and 12).

Absent from the authors' code. As in the semi-supervised deraining it is taken from (Wei et al., CVPR 2019), every value
of rainy minus derained is a draw from a mixture of zero-mean Gaussians; expectation maximisation fits the mixture to
what is being taken off, and the networks then lower the negative log-likelihood under it.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

from derain.train.networks.blocks import widen

_FIRST_DEVIATIONS = (0.02, 0.6)


class RainMixture(nn.Module):
    """``sum_k weight_k N(x | 0, variance_k)``, held in buffers, so that a checkpoint holds it.

    With mini-batches, EM moves its sufficient statistics by ``rate`` towards those of the batch (online EM, Cappé and
    Moulines, JRSS B 2009); at rate 1 a step is exactly a step of ordinary EM.

    Args:
        components: the number of Gaussians.
        least_deviation: standard deviations do not fall below it. Likelihood alone has a degenerate optimum, no rain
            removed and all Gaussians infinitely narrow; this bounds how hard the loss can pull towards it.
    """

    share: Tensor
    energy: Tensor

    def __init__(self, components: int = 3, rate: float = 0.1, least_deviation: float = 0.01) -> None:
        super().__init__()
        self.rate = rate
        self.least_variance = least_deviation**2
        low, high = (math.log(deviation**2) for deviation in _FIRST_DEVIATIONS)
        variances = torch.linspace(low, high, components).exp()
        share = torch.full((components,), 1 / components)
        self.register_buffer("share", share)
        self.register_buffer("energy", share * variances)

    @property
    def weights(self) -> Tensor:
        """(K,), sum 1."""
        return self.share / self.share.sum()

    @property
    def variances(self) -> Tensor:
        """(K,)."""
        return (self.energy / self.share.clamp(min=1e-12)).clamp(min=self.least_variance)

    def _joint(self, values: Tensor) -> Tensor:
        """Logarithm of weight times density, (K, N); ``values`` is flattened to (N,)."""
        variances = self.variances[:, None]
        log_weights = self.weights.clamp(min=1e-12).log()[:, None]
        return log_weights - 0.5 * (values.reshape(1, -1) ** 2 / variances + (2 * math.pi * variances).log())

    def negative_log_likelihood(self, values: Tensor) -> Tensor:
        """Eq. 11: mean over all values, natural logarithm. It is a density's, so it may well be negative."""
        return -torch.logsumexp(self._joint(widen(values)), dim=0).mean()

    @torch.no_grad()
    def expectation_maximisation(self, values: Tensor) -> None:
        """Eq. 12: responsibilities of the Gaussians for the values, then their weights and variances.

        Where several processes train together, the statistics are those of all their values.
        """
        flat = values.detach().reshape(1, -1).to(self.share.dtype)
        responsibility = torch.softmax(self._joint(flat), dim=0)
        statistics = torch.stack([responsibility.mean(1), (responsibility * flat**2).mean(1)])
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(statistics)
            statistics = statistics / dist.get_world_size()
        self.share.lerp_(statistics[0], self.rate)
        self.energy.lerp_(statistics[1], self.rate)
