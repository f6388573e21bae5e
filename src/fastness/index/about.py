"""``index.json``: what an index in a folder is made for."""

from __future__ import annotations

import json
from pathlib import Path

from fastness.core.errors import BadInput
from fastness.index.base import About

ABOUT = "index.json"
FORMAT = 1


def read_about(folder: Path) -> About:
    """Return what an index is made for.

    Raises:
        BadInput: there is no index, or of another format.
    """
    try:
        stated = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if stated["format"] != FORMAT:
            raise BadInput(f"{folder}: index format {stated['format']} is not this version's ({FORMAT}); build it anew")
        return About(int(stated["dim"]), str(stated["kind"]), str(stated["space"]))
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{folder}: no index here; make one with: fastness index build") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder / ABOUT}: is no readable index ({type(error).__name__}: {error})") from None
