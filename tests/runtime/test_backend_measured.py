"""`auto` on a CPU: the faster backend, measured once and remembered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from standin import card_of, save_model

import derain
from derain.card import ModelCard, Profile, read_card
from derain.errors import BackendError
from derain.runtime.backends import base, choose, measured
from derain.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
from derain.runtime.backends.openvino_cpu import OpenVinoCpu


class _Clock:
    """A clock that only the stand-in backends move."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


CLOCK = _Clock()


class _Timed(OnnxRuntimeCpu):
    takes: ClassVar[float]
    opened: ClassVar[int] = 0
    broken: ClassVar[bool] = False

    def _open_impl(self) -> None:
        type(self).opened += 1
        if self.broken:
            raise BackendError("refused for the test")

    def _close_impl(self) -> None:
        pass

    def _infer_impl(self, inputs: base.Buffers, outputs: base.Buffers) -> None:
        CLOCK.now += self.takes


class Quick(_Timed):
    name = "quick"
    takes = 0.010


class Slow(_Timed):
    name = "slow"
    takes = 0.030


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DERAIN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(measured, "time", CLOCK)
    for backend in (Quick, Slow):
        monkeypatch.setattr(backend, "opened", 0)


@pytest.fixture
def standin(tmp_path: Path) -> Path:
    return save_model(tmp_path / "standin.onnx")


def fastest(path: Path, threads: int = 2, card: ModelCard | None = None) -> tuple[type[base.Backend], str]:
    return measured.fastest([Slow, Quick], path, card or read_card(path), threads)


def cached(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "derain").rglob("cpu-backends/*.json"))


def test_the_faster_is_chosen_and_remembered(standin: Path, tmp_path: Path) -> None:
    chosen, reason = fastest(standin)
    assert chosen is Quick
    assert reason == "auto: the fastest here, 10.0 ms against 30.0 ms with slow at 640x352, measured now"
    assert len(cached(tmp_path)) == 1
    again, reason = fastest(standin)
    assert again is Quick
    assert reason.endswith("measured earlier")
    assert (Quick.opened, Slow.opened) == (1, 1)


def test_another_model_or_number_of_threads_is_measured_by_itself(standin: Path, tmp_path: Path) -> None:
    fastest(standin)
    fastest(standin, threads=1)
    assert Quick.opened == 2
    other = save_model(tmp_path / "other.onnx", card=card_of(name="other"))
    fastest(other)
    assert Quick.opened == 3
    assert len(cached(tmp_path)) == 3


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"key": "x", "milliseconds": {"quick": 1, "slow": 2}}', "\x00" * 9000]
)
def test_a_damaged_answer_means_measuring_again(standin: Path, tmp_path: Path, content: str) -> None:
    fastest(standin)
    cached(tmp_path)[0].write_text(content)
    assert fastest(standin)[1].endswith("measured now")
    assert set(json.loads(cached(tmp_path)[0].read_text())["milliseconds"]) == {"quick", "slow"}


def test_an_unwritable_cache_means_measuring_every_time(
    standin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    for _ in range(2):
        chosen, reason = fastest(standin)
        assert chosen is Quick
        assert reason.endswith("measured now")
    assert Quick.opened == 2


def test_a_backend_that_refuses_the_model_is_not_chosen(standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Quick, "broken", True)
    chosen, reason = fastest(standin)
    assert chosen is Slow
    assert "refused for the test" in reason
    monkeypatch.setattr(Slow, "broken", True)
    with pytest.raises(BackendError, match="refused for the test"):
        fastest(standin)


def test_what_cannot_be_measured_shortly_is_not_measured(standin: Path) -> None:
    whole = read_card(standin)
    large = whole.model_copy(update={"profile": Profile(min=(1, 2160, 3840), opt=(1, 2160, 3840), max=(1, 2160, 3840))})
    for card in (large, whole.model_copy(update={"part": "attention"})):
        chosen, reason = fastest(standin, card=card)
        assert chosen is Slow
        assert "not measured" in reason
    assert Quick.opened == 0


def test_a_clock_that_runs_out_ends_the_rounds(standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slow, "takes", 60.0)
    begun = CLOCK.now
    assert fastest(standin)[0] is Quick
    assert CLOCK.now - begun < 60.0 * (measured._WARM_UP + 2)


def test_load_measures_and_says_so(standin: Path) -> None:
    with derain.load(standin, threads=1) as model:
        assert model.backend_name in ("openvino", "onnxruntime")
        assert "the fastest here" in model.backend_reason
        other = "onnxruntime" if model.backend_name == "openvino" else "openvino"
        assert f"ms with {other}" in model.backend_reason
        assert model(np.zeros((20, 30, 3), np.uint8)).shape == (20, 30, 3)


def test_with_one_installed_nothing_is_measured(standin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(OpenVinoCpu, "package", "no_such_package_zz")
    chosen, reason = choose("auto", card_of(), path=standin, threads=1)
    assert chosen is OnnxRuntimeCpu
    assert reason == "auto: OpenVINO is not installed"
    assert cached(tmp_path) == []


class _Lying:
    """A request for one size whose results are wrong, as those of a graph that was compiled wrongly."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)

    def infer(self) -> None:
        self._request.infer()
        self._request.get_tensor("derained").data[:] ^= 0xFF


def _frames(backend: base.Backend, count: int) -> list[Any]:
    frame = np.random.default_rng(0).integers(0, 256, (1, 37, 53, 3), np.uint8)
    results = []
    for _ in range(count):
        outputs = {"derained": np.zeros_like(frame), "attention": np.zeros(frame.shape[:3], np.float32)}
        backend.infer({"frame": frame}, outputs)
        results.append(outputs["derained"])
    return results


def test_openvino_compiles_for_a_size_that_keeps_coming(standin: Path) -> None:
    with OpenVinoCpu(standin, read_card(standin), threads=1) as backend:
        first = _frames(backend, 2)[0]
        assert backend._fixed == {}
        _frames(backend, 1)
        (request,) = backend._fixed.values()
        assert request is not None
        assert np.abs(_frames(backend, 1)[0].astype(int) - first).max() <= 1


def test_openvino_keeps_the_general_graph_where_the_fixed_one_is_wrong(
    standin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OpenVinoCpu(standin, read_card(standin), threads=1) as backend:
        first = _frames(backend, 2)[0]
        compile_model = backend._core.compile_model

        class Core:
            def compile_model(self, *args: Any) -> Any:
                compiled = compile_model(*args)
                request = _Lying(compiled.create_infer_request())
                return type("Compiled", (), {"create_infer_request": lambda _: request})()

        monkeypatch.setattr(backend, "_core", Core())
        results = _frames(backend, 3)
        assert list(backend._fixed.values()) == [None]
        for result in results:
            np.testing.assert_array_equal(result, first)
