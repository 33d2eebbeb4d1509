"""The measured part of docs/calibration.md, made of the results of measure_int8.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from derain.files import atomic_path

BEGIN, END = "<!-- made by examples/measure_int8.py -->", "<!-- end of what examples/measure_int8.py makes -->"
METHODS = ("minmax", "entropy", "percentile-99.99", "percentile-99.999", "mixed")


def write_page(results: dict[str, Any], page: Path | None) -> str:
    """The text; it also takes the place of what is between the two marks of ``page``."""
    parts = [table(results), trained(results), ranges(results), kept(results), speeds(results), modelopt(results)]
    text = "\n\n".join(part for part in parts if part)
    if page is not None:
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        _, found, after = rest.partition(END)
        if not found:
            raise SystemExit(f"{page} lacks the marks {BEGIN} and {END}")
        with atomic_path(page) as temporary:
            temporary.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return text


def table(results: dict[str, Any]) -> str:
    """Size and quality of every form; in brackets what is lost against float32."""
    names = list(next(iter(results.values()))["forms"]["float32"]["sets"])
    lines = [f"| model | form | KiB | {' | '.join(names)} |", f"|{'---|' * (3 + len(names))}"]
    for model, found in results.items():
        forms = found["forms"]
        whole = forms["float32"]["sets"]
        for form, entry in forms.items():
            if "failed" in entry:
                lines.append(f"| {model} | {form} | | {'the gate stays closed | ' * len(names)}")
                continue
            count = ""
            if "kept" in entry and form.startswith("INT8"):
                count = f": {entry['int8']} convolutions and {entry['sums']} additions"
            cells = []
            for name in names:
                value, ssim = entry["sets"][name]
                lost = "" if form == "float32" else f" ({value - whole[name][0]:+.3f})"
                cells.append(f"{value:.2f}{lost} / {ssim:.4f}")
            lines.append(f"| {model} | {form}{count} | {entry['kib']:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def trained(results: dict[str, Any]) -> str:
    """How the models were fine-tuned, and what that won back."""
    lines = []
    for model, found in results.items():
        if "trained" not in found:
            continue
        whole, before, after = (
            found["forms"][form]["sets"] for form in ("float32", "INT8, no gate", "INT8 after training")
        )
        cells = [
            f"{before[name][0] - whole[name][0]:+.3f} to {after[name][0] - whole[name][0]:+.3f} dB on {name}"
            for name in whole
        ]
        steps, minutes = found["trained"]["steps"], found["trained"]["minutes"]
        lines.append(
            f"`{model}`: {steps} steps of training for INT8, {minutes:.0f} minutes on one thread, one run, take INT8 "
            f"with no gate from {', '.join(cells)}; it {found['trained']['verdict']}."
        )
    return "\n".join(lines)


def ranges(results: dict[str, Any]) -> str:
    """Loss by method of ranges."""
    lines = ["Loss by method of ranges, 32 held-out frames, no layer kept, dB:", ""]
    lines += [f"| model | {' | '.join(METHODS)} |", f"|{'---|' * (1 + len(METHODS))}"]
    for model, found in results.items():
        best = min(found["compared"].values())
        cells = (f"**{found['compared'][m]:.3f}**" if found["compared"][m] == best else f"{found['compared'][m]:.3f}"
                 for m in METHODS)  # fmt: skip
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def kept(results: dict[str, Any]) -> str:
    """What costs most, and what each gate keeps."""
    lines = []
    for model, found in results.items():
        order = sorted(found["sensitivity"].items(), key=lambda pair: -pair[1])[:6]
        costs = ", ".join(f"`{name}` {cost:.3f}" for name, cost in order)
        widest = max(found["channels"].items(), key=lambda pair: pair[1], default=("", 1.0))
        lines.append(f"- `{model}`: what costs most alone, dB: {costs}. Before they are made alike the largest channel "
                     f"behind `{widest[0]}` is {widest[1]:.1f} times its middle one.")  # fmt: skip
        for form, entry in found["forms"].items():
            if entry.get("kept"):
                names = ", ".join(f"`{name}`" for name in entry["kept"])
                lines.append(f"  {form} keeps {names}.")
    return "\n".join(lines)


def speeds(results: dict[str, Any]) -> str:
    """CPU time and what onnxruntime runs in integers."""
    lines = [
        "On the CPU, one 640x360 frame on one thread at exact arithmetic, median CPU time of 20, forms in turn:",
        "",
    ]
    lines += [
        "| model | float32, ms | INT8, ms | speed of INT8 | convolutions in integers (QLinearConv) |",
        "|---|---|---|---|---|",
    ]
    for model, found in results.items():
        speed = found["speed"]
        ratio = speed["float32"] / speed["int8"]
        integer = f"{speed['integer']} of {speed['all']}"
        lines.append(f"| {model} | {speed['float32']:.1f} | {speed['int8']:.1f} | {ratio:.2f}x | {integer} |")
    return "\n".join(lines)


def modelopt(results: dict[str, Any]) -> str:
    """Which layers NVIDIA ModelOpt quantizes."""
    lines = []
    for model, found in results.items():
        ours = found["forms"]["INT8, no gate"]
        for form, entry in found["forms"].items():
            if "layers" not in entry:
                continue
            other = entry["layers"]
            more = ", ".join(f"`{kind}`" for kind in other["others"]) or "no other operator"
            both, one = other["sums"]["2"], other["sums"]["1"]
            lines.append(
                f"- `{model}`, {form}: {len(other['convolutions'])} convolutions (ours {ours['int8']}), both inputs of "
                f"{both} additions and one of {one} (ours {ours['sums']} and none), and inputs of {more}."
            )
    return "\n".join(lines)
