"""Where and how a run computes: device, processes, precision. None of it belongs to the recipe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from lightning_fabric import Fabric

from derain.errors import UsageError
from derain.train.systems.base import System


@dataclass(frozen=True)
class Machine:
    """Where and how to run; none of it belongs to the recipe.

    Attributes:
        accelerator: ``cpu``, ``cuda``, or ``auto`` for the GPU where there is one.
        devices: GPUs, or processes on a CPU, that share each batch; on each machine, where torchrun started several.
            None: as many processes as torchrun started here, or one.
        precision: ``bf16-mixed`` is two to four times faster on CPUs with AMX and on GPUs since Ampere; ``64-true`` is
            for checking gradients and that several processes follow one.
        workers: processes that make batches; 0 makes them in the training process.
        compile: the networks run through torch.compile.
    """

    accelerator: str = "auto"
    devices: int | None = None
    precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true"
    threads: int | None = None
    workers: int = 1
    compile: bool = False

    def prepare(self) -> None:
        """Settings of this process: threads, and subnormal numbers as zero, which made one run 15 times slower."""
        torch.set_flush_denormal(True)
        if self.threads:
            torch.set_num_threads(self.threads)

    def launch(self) -> Fabric:
        """Start the processes that share each batch, and return what ties them together.

        Raises:
            UsageError: there are not as many GPUs as were asked for.
        """
        devices, nodes = self._processes()
        gpus = torch.cuda.device_count()
        wants_gpu = self.accelerator == "cuda" or (self.accelerator == "auto" and gpus > 0)
        if wants_gpu and gpus < devices:
            found = "no GPU" if gpus == 0 else f"{gpus} GPU{'s' if gpus > 1 else ''}"
            raise UsageError(
                f"PyTorch {torch.__version__} sees {found} here, and {devices} should train",
                fix="Use --device cpu or fewer --devices, or install the PyTorch build of this machine's CUDA",
            )
        fabric = Fabric(accelerator=self.accelerator, devices=devices, num_nodes=nodes, precision=self.precision)
        fabric.launch()
        return fabric

    def _processes(self) -> tuple[int, int]:
        """How many processes share each batch on this machine, and how many machines there are.

        A process of torchrun that thought itself alone would write the same run as its sisters.

        Raises:
            UsageError: torchrun started another number of them.
        """
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return self.devices or 1, 1
        started = int(os.environ["LOCAL_WORLD_SIZE"])
        if self.devices not in (None, started):
            raise UsageError(
                f"torchrun started {started} processes on this machine, and --devices says {self.devices}",
                fix="Leave --devices out under torchrun, or give both the same number",
            )
        return started, int(os.environ["WORLD_SIZE"]) // started

    def compile_networks(self, system: System) -> None:
        """Have the networks of a system compiled when they first run, where that was asked for.

        In place: the names of the parameters stay as they are, and a module that is never called costs nothing.
        """
        if not self.compile:
            return
        for network in (*system.derainer.children(), *system.children()):
            if network is not system.derainer:
                network.compile()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around the steps: what goes wrong in torch.compile is told in one line.

        Raises:
            UsageError: a network could not be compiled, as without a C++ compiler.
        """
        if not self.compile:
            yield
            return
        from torch._dynamo.exc import TorchDynamoException

        try:
            yield
        except TorchDynamoException as error:
            raise UsageError(
                f"torch.compile failed ({str(error).splitlines()[0][:200]})",
                fix="On a CPU it needs a C++ compiler: install g++, or name another in CXX; or leave --compile out",
            ) from error
