"""The command line: one application assembled from the stages' command modules."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from derain import __version__
from derain.errors import DerainError, MissingDependencyError

# Each has `register(app)` and imports nothing heavy at its top: a command is listed even where its packages are not
# installed, and says what to install when it is used. The order is that of the help page.
COMMAND_MODULES = (
    "derain.demo",
    "derain.runtime.commands",
    "derain.runtime.build_commands",
    "derain.runtime.bench_commands",
    "derain.runtime.plan_commands",
    "derain.runtime.doctor",
    "derain.runtime.debug_commands",
    "derain.models.commands",
    "derain.train.commands",
    "derain.export.commands",
    "derain.calibration.commands",
)
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def _print_error(message: str) -> None:
    """One message on stderr, red on a terminal. Names and paths are printed as they are, not as markup."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"Error: {message}", style="red", markup=False)


class CommandGroup(TyperGroup):
    """Turns what a user can cause into one line and an exit code; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; ends the process with the exit code that fits."""
        try:
            return super().invoke(ctx)
        except DerainError as error:
            _print_error(str(error))
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            _print_error("Interrupted.")
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # The reader (head, less) left. Python would complain again when it flushes stdout at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _EXTRAS:
                raise
            what = f"derain {ctx.invoked_subcommand}"
            _print_error(str(MissingDependencyError(package, needed_for=what, extra=_EXTRAS[package])))
            sys.exit(MissingDependencyError.exit_code)
        except OSError as error:
            if error.errno not in _USER_ERRNOS:
                raise
            name = f" '{error.filename}'" if error.filename else ""
            _print_error(f"The system refused{name}: {error.strerror}.")
            sys.exit(1)


# Optional packages by import name, and the extra that brings each.
_EXTRAS = {
    "cv2": "opencv",
    "onnxruntime": "cpu",
    "openvino": "openvino",
    "torch": "train",
    "lightning_fabric": "train",
    "torchmetrics": "train",
    "tensorboard": "train",
    "matplotlib": "plot",
    "onnx": "export",
    "onnxscript": "export",
    "onnxslim": "export",
    "cuda": "tensorrt",
    "polygraphy": "tensorrt",
    "pycuda": "pycuda",
}
# Conditions of the user's disk and permissions that can arise anywhere a file is touched.
_USER_ERRNOS = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.ENOENT,
        errno.EEXIST,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.ENAMETOOLONG,
        errno.EMFILE,
    }
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"derain {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="derain",
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Remove rain from pictures and video: train, export, calibrate, run.",
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


for _module in COMMAND_MODULES:
    import_module(_module).register(app)


def main() -> None:
    """Entry point of the ``derain`` command."""
    app()
