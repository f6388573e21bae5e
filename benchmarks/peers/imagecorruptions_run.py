"""Peer: imagecorruptions, an image at a time, as it is meant to be used.

Usage: imagecorruptions_run.py IMAGES OUT: IMAGES is an npy file uint8 [N, S, S, 3], OUT a JSON file of seconds.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

warnings.filterwarnings("ignore")
from imagecorruptions import corrupt, corruptions, get_corruption_names  # noqa: E402

_gaussian = corruptions.gaussian


def gaussian(image, sigma=1, *, multichannel=False, **options):
    """Its calls are of a scikit-image that no wheel of this Python has: the option has another name now."""
    return _gaussian(image, sigma, channel_axis=-1 if multichannel else None, **options)


corruptions.gaussian = gaussian
images, out = np.load(sys.argv[1]), sys.argv[2]
seconds = {}
for name in get_corruption_names("common"):
    corrupt(images[0], corruption_name=name, severity=1)  # compiled on first use
    start = time.perf_counter()
    for severity in (1, 2, 3, 4, 5):
        for image in images:
            corrupt(image, corruption_name=name, severity=severity)
    seconds[name] = time.perf_counter() - start
Path(out).write_text(json.dumps({"seconds": seconds, "images": len(images)}))
