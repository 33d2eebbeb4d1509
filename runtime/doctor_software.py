"""Probes of ``derain doctor`` for all that is not the GPU: Python, OpenCV, codecs, engines on the CPU, memory, disk."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

from derain import __version__
from derain.runtime.doctor_gpu import ask_driver_elsewhere
from derain.runtime.doctor_system import Finding, System, is_absent, module_facts
from derain.runtime.engine.store import cache_folder

_CODECS = {
    "decode": ("h264", "hevc", "av1", "h264_cuvid", "hevc_cuvid", "h264_v4l2m2m"),
    "encode": ("libx264", "h264_nvenc", "hevc_nvenc", "h264_v4l2m2m"),
}
_GSTREAMER_ELEMENTS = ("nvarguscamerasrc", "nvvidconv", "nvv4l2decoder", "nvv4l2h264enc", "v4l2src", "rtspsrc")
_LOW_MEMORY, _LOW_DISK = 1 << 30, 1 << 30


def probe_python(system: System) -> Finding:
    """The interpreter, and whether it sees the system's packages."""
    inside = sys.prefix != sys.base_prefix
    settings = system.read(str(Path(sys.prefix) / "pyvenv.cfg")) or ""
    shared = not inside or "include-system-site-packages = true" in settings.lower()
    facts = {"version": platform.python_version(), "machine": platform.machine(), "venv": inside, "system": shared}
    place = "a virtual environment" if inside else "the system's Python"
    seen = "sees" if shared else "does not see"
    detail = (
        f"{facts['version']} on {platform.system()} {facts['machine']}, {place}, which {seen} the system's packages"
    )
    return Finding("Python", "ok", f"{detail}; derain {__version__}", facts=facts)


def probe_opencv(system: System) -> Finding:
    """OpenCV, and whether it can open GStreamer pipelines."""
    facts = "{'gstreamer': any(l.split(':')[-1].strip().startswith('YES') for l in m.getBuildInformation().splitlines()"
    answer = module_facts(system, "cv2", facts + " if l.strip().startswith('GStreamer'))}")
    if not isinstance(answer.value, dict):
        if is_absent(answer, "cv2"):
            fix = 'pip install "derain[opencv]"; on a Jetson use JetPack\'s own: sudo apt install python3-opencv'
            return Finding("OpenCV", "missing", "not installed", fix)
        fix = ""
        if "numpy" in answer.problem.lower() or "_ARRAY_API" in answer.problem:
            fix = 'It was built for NumPy 1, as JetPack 6\'s is: pip install "numpy<2"'
        return Finding("OpenCV", "broken", f"installed but does not import: {answer.problem}", fix)
    version = answer.value["version"]
    if answer.value["gstreamer"]:
        return Finding("OpenCV", "ok", f"{version}, with GStreamer", facts=answer.value)
    detail = f"{version}, without GStreamer: no CSI cameras and no GStreamer pipelines through it"
    fix = "pip's OpenCV has none. On a Jetson: pip uninstall opencv-python opencv-python-headless, and use JetPack's"
    return Finding("OpenCV", "ok", detail, fix if system.read("/etc/nv_tegra_release") else "", answer.value)


def probe_gstreamer(system: System) -> Finding:
    """GStreamer's elements for cameras and hardware codecs."""
    if system.which("gst-inspect-1.0") is None:
        fix = "For live pipelines: sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-good"
        return Finding("GStreamer", "missing", "gst-inspect-1.0 is not here", fix)
    found = []
    for element in _GSTREAMER_ELEMENTS:
        answer = system.run("gst-inspect-1.0", element)
        if answer is not None and "Factory Details" in answer:
            found.append(element)
    return Finding("GStreamer", "ok", f"elements: {', '.join(found) or 'none of ours'}", facts={"elements": found})


def probe_codecs(system: System) -> Finding:
    """FFmpeg's codecs as PyAV has them."""
    names = {kind: list(codecs) for kind, codecs in _CODECS.items()}
    code = (
        f"import json, av; names = {names!r}\n"
        "def has(name, mode):\n"
        "    try:\n        av.Codec(name, mode); return True\n    except Exception:\n        return False\n"
        "print(json.dumps({'version': av.__version__, 'decode': [n for n in names['decode'] if has(n, 'r')], "
        "'encode': [n for n in names['encode'] if has(n, 'w')]}))"
    )
    answer = system.python(code)
    if not isinstance(answer.value, dict):
        return Finding(
            "video codecs", "broken", f"PyAV does not work: {answer.problem}", "pip install --force-reinstall av"
        )
    detail = f"PyAV {answer.value['version']}: decoders {', '.join(answer.value['decode'])}; "
    detail += f"encoders {', '.join(answer.value['encode']) or 'none'} (those of GPUs work only with one)"
    if "libx264" not in answer.value["encode"]:
        fix = "Videos cannot be written as H.264: pip install --force-reinstall av"
        return Finding("video codecs", "warning", detail, fix, answer.value)
    return Finding("video codecs", "ok", detail, facts=answer.value)


def probe_onnxruntime(system: System) -> Finding:
    """ONNX Runtime's providers, and whether those for the GPU can work."""
    answer = module_facts(system, "onnxruntime", "{'providers': m.get_available_providers()}")
    if not isinstance(answer.value, dict):
        if is_absent(answer, "onnxruntime"):
            return Finding("ONNX Runtime", "missing", "not installed", 'pip install "derain[cpu]" or "derain[gpu]"')
        return Finding("ONNX Runtime", "broken", f"installed but does not import: {answer.problem}")
    both = system.python(
        "import json, importlib.metadata as m; print(json.dumps([d.metadata['Name'] for d in m.distributions() "
        "if d.metadata['Name'] in ('onnxruntime', 'onnxruntime-gpu')]))"
    )
    detail = f"{answer.value['version']}, {', '.join(answer.value['providers'])}"
    if isinstance(both.value, list) and len(set(both.value)) > 1:
        fix = 'pip uninstall onnxruntime onnxruntime-gpu, then pip install "derain[cpu]" or "derain[gpu]"'
        return Finding("ONNX Runtime", "broken", f"{detail}; two packages overwrite each other", fix, answer.value)
    listed = [name for name in answer.value["providers"] if name.startswith(("CUDA", "Tensorrt"))]
    driver, _ = ask_driver_elsewhere(system)
    if listed and not driver.usable:
        detail += f"; {' and '.join(listed)} cannot work, as {driver.problem}"
        return Finding("ONNX Runtime", "warning", detail, "Models run on the CPU", answer.value)
    return Finding("ONNX Runtime", "ok", detail, facts=answer.value)


def probe_openvino(system: System) -> Finding:
    """OpenVINO."""
    answer = module_facts(system, "openvino")
    if isinstance(answer.value, dict):
        return Finding("OpenVINO", "ok", str(answer.value["version"]).split("-")[0], facts=answer.value)
    if is_absent(answer, "openvino"):
        fix = "" if platform.machine() == "aarch64" else 'The fastest on an x86 CPU: pip install "derain[openvino]"'
        return Finding("OpenVINO", "missing", "not installed", fix)
    return Finding("OpenVINO", "broken", f"installed but does not import: {answer.problem}")


def probe_memory(system: System) -> Finding:
    """Free memory; on a Jetson the GPU's is the same."""
    values = {}
    for line in (system.read("/proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        if rest.strip().endswith("kB"):
            values[name] = int(rest.split()[0]) * 1024
    if "MemAvailable" not in values:
        return Finding("memory", "missing", "the system does not tell")
    free, total = values["MemAvailable"], values.get("MemTotal", 0)
    detail = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    facts = {"available_bytes": free, "total_bytes": total}
    if free < _LOW_MEMORY:
        return Finding("memory", "warning", detail, "Building an engine may need more: close programs, add swap", facts)
    return Finding("memory", "ok", detail, facts=facts)


def probe_cache(system: System) -> Finding:
    """The folder in which engines are kept."""
    folder = cache_folder()
    engines = [path for path in folder.glob("*.engine") if path.is_file()] if folder.is_dir() else []
    size = sum(path.stat().st_size for path in engines)
    existing = folder
    while not existing.exists():
        existing = existing.parent
    facts = {"folder": str(folder), "engines": len(engines), "bytes": size}
    detail = f"{folder}: {len(engines)} engines, {size / 2**20:.0f} MiB"
    code = f"import json, os; print(json.dumps(os.access({str(existing)!r}, os.W_OK)))"
    if system.python(code).value is not True:
        fix = "Engines are built anew at every start: choose another folder with DERAIN_CACHE"
        return Finding("engine cache", "warning", f"{detail}; it cannot be written", fix, facts)
    free = shutil.disk_usage(existing).free
    if free < _LOW_DISK:
        return Finding("engine cache", "warning", f"{detail}; {free / 2**20:.0f} MiB free on the disk", "", facts)
    return Finding("engine cache", "ok", f"{detail}; {free / 2**30:.0f} GiB free", facts=facts)


def probe_backends(system: System) -> Finding:
    """Which backends can be used, asked of themselves."""
    answer = system.python("import json; from derain.runtime.backends import available; print(json.dumps(available()))")
    if not isinstance(answer.value, dict):
        return Finding("backends", "broken", answer.problem, "Report this as a bug of derain")
    usable = [name for name, problem in answer.value.items() if problem is None]
    if not usable:
        return Finding("backends", "broken", "none can be used", 'pip install "derain[cpu]"', answer.value)
    return Finding("backends", "ok", f"usable: {', '.join(usable)}", facts=answer.value)
