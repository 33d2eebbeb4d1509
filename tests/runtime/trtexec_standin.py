"""A stand-in for trtexec of one version: it knows that version's real options, and refuses every other.

trtexec_standin.py FLAGS_FILE BANNER ARGUMENT...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TIMES = {"startEnqMs": 0, "endEnqMs": 0.1, "h2dMs": 0.5, "computeMs": 2, "d2hMs": 0.5, "latencyMs": 3}
VALUED = {"--onnx", "--saveEngine", "--loadEngine", "--exportTimes", "--exportLayerInfo", "--exportProfile", "--shapes"}


def main() -> int:
    flags_file, banner, *arguments = sys.argv[1:]
    print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{banner}] # trtexec {' '.join(arguments)}")
    if arguments == ["--help"]:
        return 0
    known = set(Path(flags_file).read_text().split())
    given = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in known:
            print(f"[E] Unknown option: {argument}", file=sys.stderr)
            return 1
        if name in VALUED and not value:
            print(f"[E] {name} without a value", file=sys.stderr)
            return 1
        given[name] = value
    with Path("commands.jsonl").open("a") as log:
        log.write(json.dumps(given) + "\n")
    if "--onnx" in given:
        if not Path(given["--onnx"]).is_file():
            return 1
        Path(given["--saveEngine"]).write_bytes(b"plan of " + Path(given["--onnx"]).read_bytes()[:64])
        Path(given["--timingCacheFile"]).write_bytes(b"timings")
        Path(given["--exportLayerInfo"]).write_text("{}")
    if "--loadEngine" in given:
        step = 2.5
        entries = [
            {**TIMES, "startComputeMs": i * step + 0.5, "endComputeMs": i * step + 2.5, "startH2dMs": 0, "endD2hMs": 0}
            for i in range(4)
        ]
        Path(given["--exportTimes"]).write_text(json.dumps(entries))
    return 0


sys.exit(main())
