"""Quantization-aware training: what is rounded, where gradients go, and a run that resumes and hands its ranges on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer import assert_same
from tiny import tiny_recipe
from typer.testing import CliRunner

from derain.card import TrainedRanges
from derain.cli import app
from derain.errors import CheckpointError, ModelFileError
from derain.train.checkpoint import load_deployable, read_checkpoint
from derain.train.data.folders import Pictures
from derain.train.networks.edge import EdgeConfig, EdgeDerainer
from derain.train.qat import fake_quantize, restore_quantization, round_activation
from derain.train.qat_setup import recipe_for
from derain.train.recipe import parse_recipe
from derain.train.trainer import Machine, Trainer

MACHINE = Machine(accelerator="cpu", workers=0, threads=1)
SIZE = {"extractor_width": 8, "extractor_stages": 1, "generator_width": 8, "generator_stages": 2, "fog_width": 4}
TAIL = TrainedRanges(source="'tiny'", inputs={"generator/tail/Conv": [0.5]})
CLI = CliRunner()


def _network(**changes: Any) -> EdgeDerainer:
    torch.manual_seed(4)
    network = EdgeDerainer(EdgeConfig.model_validate(SIZE | changes))
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


def test_256_levels_half_to_even_and_no_gradient_beyond() -> None:
    x = torch.tensor([0.0, 0.5, 1.5, 1.51, 126.6, 200.0, -127.4, -300.0], requires_grad=True)
    rounded = round_activation(x, 127.0)
    assert rounded.tolist() == [0.0, 0.0, 2.0, 2.0, 127.0, 127.0, -127.0, -128.0]
    rounded.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0]


def test_each_recurrence_has_a_range_of_its_own() -> None:
    """Only the second call of the shared stage is squeezed; a pass more does not move it to another call."""
    frame = torch.rand(1, 3, 32, 32)
    seen: dict[bool, list[torch.Tensor]] = {}
    for squeezed in (False, True):
        network = _network()
        if squeezed:
            ranges = {"generator/stage/second/Conv.2": [1e-4]}
            fake_quantize(network, TrainedRanges(source="'tiny'", inputs=ranges))
        outputs: list[torch.Tensor] = []
        network.generator.stage.second.register_forward_hook(lambda *call, kept=outputs: kept.append(call[2].detach()))
        with torch.no_grad():
            network(frame)
            network.attention_only(frame)
            network(frame)
        seen[squeezed] = outputs
    plain, rounded = seen[False], seen[True]
    assert [torch.equal(a, b) for a, b in zip(plain, rounded, strict=True)] == [True, False, True, False]
    assert rounded[1].std((2, 3)).max() < 0.01 * plain[1].std((2, 3)).max()  # little but the bias is left


def test_weights_are_rounded_per_channel_and_learn() -> None:
    network = _network()
    weight = network.generator.tail.weight
    with torch.no_grad():
        weight[0] *= 1000  # must not cost the other channels their precision
    frame = torch.rand(1, 3, 32, 32)
    fake_quantize(network, TrainedRanges(source="'tiny'", inputs={"generator/tail/Conv": [5.0]}))
    found: list[torch.Tensor] = []
    network.generator.tail.register_forward_hook(lambda *call: found.append(call[2]))
    network.raw(frame, network.frame_context(frame))[0].sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
    taken: list[torch.Tensor] = []
    plain = _network()
    plain.generator.tail.register_forward_hook(lambda *call: taken.append(call[1][0]))
    plain(frame)
    scale = weight.abs().amax((1, 2, 3), keepdim=True) / 127
    kernel = (weight / scale).round() * scale
    bias = network.generator.tail.bias
    wanted = torch.nn.functional.conv2d(round_activation(taken[0], 5.0), kernel, bias, padding=1)
    torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-5)


def test_branches_run_folded() -> None:
    frame = torch.rand(1, 3, 32, 32)
    network = _network(reparam="repvgg")
    with torch.no_grad():
        wanted = network(frame)[0]
        names = ["generator/stage/first/Conv", "generator/stage/first/Conv.2"]  # a folded convolution, called twice
        fake_quantize(network, TrainedRanges(source="'tiny'", inputs={}, float16=names))
        torch.testing.assert_close(network(frame)[0], wanted, rtol=0, atol=1e-2)


def test_a_range_of_a_layer_that_is_not_there() -> None:
    with pytest.raises(ModelFileError, match=r"elsewhere/Conv"):
        fake_quantize(_network(), TrainedRanges(source="'other'", inputs={"elsewhere/Conv": [1.0]}))
    with pytest.raises(ModelFileError, match=r"generator/stage/first/Conv\.3"):
        fake_quantize(_network(), TrainedRanges(source="'other'", inputs={"generator/stage/first/Conv.3": [1.0]}))


def _train(recipe: str, pictures: Pictures, folder: Path, **more: Any) -> Path:
    return Trainer(recipe, pictures, folder, MACHINE, **more).run()


@pytest.fixture
def first(tiny_pictures: Pictures, tmp_path: Path) -> Path:
    config = {"cycle_from": 1000, "network": SIZE}
    recipe = tiny_recipe("acgf", steps=2, validate_every=100, config=config)
    return _train(recipe, tiny_pictures, tmp_path / "first")


def test_a_run_resumes_exactly_and_hands_its_ranges_on(
    first: Path, tiny_pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(first, 4)
    parsed = parse_recipe(recipe, "it")
    assert parsed.steps == 4
    assert parsed.optimizer.learning_rate < 2e-3
    assert parsed.config["network"] == SIZE
    assert parsed.distil is not None
    assert parsed.distil.checkpoint == str(first)
    assert parsed.data.dry >= max(parsed.data.pairs, parsed.data.synthetic) > 0
    whole = _train(recipe, tiny_pictures, tmp_path / "whole", begin_from=first, quantization=TAIL)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", _stopping_after(Trainer._train_step, 2))
        _train(recipe, tiny_pictures, tmp_path / "parts", begin_from=first, quantization=TAIL)
    with pytest.raises(CheckpointError, match="other ranges"):
        _train(recipe, tiny_pictures, tmp_path / "parts", resume=True)
    parts = _train(recipe, tiny_pictures, tmp_path / "parts", resume=True, quantization=TAIL)
    states = [read_checkpoint(path) | {"minutes": 0.0} for path in (whole, parts)]
    assert states[0]["step"] == 4
    assert_same(states[0], states[1])

    network, info = load_deployable(whole)
    assert info.quantization == TAIL.model_dump(mode="json")
    frame = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        plain = network(frame)[0]
        restore_quantization(network, info)
        assert not torch.equal(network(frame)[0], plain)


def _stopping_after(step: Any, count: int) -> Any:
    def stopping(self: Any, parts: Any) -> Any:
        self._asked = self._step + 1 >= count
        return step(self, parts)

    return stopping


def test_training_rounds(first: Path, tiny_pictures: Pictures, tmp_path: Path) -> None:
    """The same step on the same pictures ends elsewhere with a range than without."""
    ends = []
    for number, held in enumerate((None, TAIL)):
        path = _train(recipe_for(first, 1), tiny_pictures, tmp_path / f"{number}", begin_from=first, quantization=held)
        ends.append(read_checkpoint(path)["system"]["derainer.generator.guide.weight"])
    assert not torch.equal(*ends)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--qat", "a.ckpt"], "go together"),
        (["--ranges", "a.onnx", "edge"], "go together"),
        (["--qat", "a.ckpt", "--ranges", "a.onnx", "--precision", "bf16-mixed"], "bf16-mixed"),
        (["--qat", "a.ckpt", "--ranges", "a.onnx", "--init", "b.ckpt"], "--init"),
        ([], "There is no recipe"),
    ],
)
def test_mistakes(arguments: list[str], message: str) -> None:
    result = CLI.invoke(app, ["train", *arguments])
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
