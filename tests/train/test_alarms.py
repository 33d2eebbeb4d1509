"""Each alarm fires on its own sign and stays quiet otherwise."""

from __future__ import annotations

import pytest

from derain.errors import TrainingError
from derain.train.alarms import Alarms

HEALTHY = {"generator": 1.0, "cycle_clean": 0.5, "discriminator_rain": 0.4}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(TrainingError, match=r"'cycle_clean' is (nan|inf) at step 7"):
        Alarms().check_losses(7, {**HEALTHY, "cycle_clean": value})


def test_healthy_losses_raise_nothing() -> None:
    alarms = Alarms()
    for step in range(2000):
        alarms.check_losses(step, HEALTHY)


def test_a_cycle_that_cheats_is_stopped_even_across_a_resume() -> None:
    cheating = {**HEALTHY, "cycle_clean": 0.001, "discriminator_rain": 0.001}
    alarms = Alarms()
    for step in range(400):
        alarms.check_losses(step, cheating)
    resumed = Alarms()
    resumed.restore(alarms.state())
    for step in range(400, 499):
        resumed.check_losses(step, cheating)
    with pytest.raises(TrainingError, match="Cycle cheating at step 499"):
        resumed.check_losses(499, cheating)


def test_an_output_that_equals_its_input_is_stopped() -> None:
    with pytest.raises(TrainingError, match="Identity collapse at step 9"):
        Alarms().check_pictures(9, change=0.0, drift=0.0)


def test_a_shift_of_the_colours_is_stopped() -> None:
    with pytest.raises(TrainingError, match=r"Colour drift.*102 of 255"):
        Alarms().check_pictures(9, change=0.1, drift=0.4)


def test_a_healthy_validation_raises_nothing() -> None:
    Alarms().check_pictures(9, change=0.02, drift=0.01)
