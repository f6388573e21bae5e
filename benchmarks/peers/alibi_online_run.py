"""Peer: run times of alibi-detect's online detectors on streams that are the same for all.

Usage: alibi_online_run.py mmd|lsdd RUN_TIME WINDOW BOOTSTRAPS IN.npz OUT.npz: IN has ``reference`` [N, D] and streams,
each [S, L, D], one item a step; OUT has of each the step of the first alarm [S], counted from 1, L + 1 where there was
none, and how long configuring and a step took, in seconds. Its test window is filled with reference items at the start.
"""

import sys
import time

import numpy as np
import torch
from alibi_detect.cd import LSDDDriftOnline, MMDDriftOnline

kind, run_time, window, bootstraps, given, out = sys.argv[1:]
torch.manual_seed(0)
np.random.seed(0)
data = dict(np.load(given))
reference = data.pop("reference")
make = {"mmd": MMDDriftOnline, "lsdd": LSDDDriftOnline}[kind]
start = time.perf_counter()
detector = make(reference, float(run_time), int(window), backend="pytorch", n_bootstraps=int(bootstraps), verbose=False)
found = {"configuring": np.array(time.perf_counter() - start)}
steps, start = 0, time.perf_counter()
for name, streams in data.items():
    first = np.full(len(streams), streams.shape[1] + 1)
    for number, stream in enumerate(streams):
        detector.reset_state()
        for step, item in enumerate(stream, 1):
            steps += 1
            if detector.predict(item)["data"]["is_drift"]:
                first[number] = step
                break
    found[name] = first
np.savez(out, step=np.array((time.perf_counter() - start) / max(1, steps)), **found)
