"""An exported encoder: a graph, and a JSON file that says what it wants."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness_runtime import signature
from fastness_runtime.answers import Answers
from fastness_runtime.errors import Unusable
from fastness_runtime.items import INTAKES, Batches
from fastness_runtime.sessions import ANSWERS, OUTPUTS, SESSIONS, Session, one_by_one, several_at_once

FORMAT = 1
DESCRIPTION = "export.json"
_LONGEST = 16 << 20  # bytes of what describes an export
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Encoder:
    """A loaded export.

    Attributes:
        folder: where it lies.
        about: what ``export.json`` says: ``bundle`` (the id of what was exported), ``form``, ``modality``, ``dim`` …
        session: what runs the graph.
        batches: makes batches, as the graph takes them, of items: each with its items' positions.
    """

    folder: Path
    about: dict[str, Any]
    session: Session
    batches: Batches

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.about["dim"])

    @property
    def id(self) -> str:
        """SHA-256 (hex) of what it was made of and of its files: an index of its vectors names it."""
        told = "".join(f"{name}\0{digest}\n" for name, digest in sorted(self.about["files"].items()))
        return hashlib.sha256(f"{self.about['bundle']}\n{self.about['form']}\n{told}".encode()).hexdigest()

    def embed(self, items: Any, *, normalize: bool = True, batch_size: int = 64) -> Floats:
        """Return embeddings float32 ``[N, dim]``; row i is item i.

        Args:
            items: of images a uint8 array ``[N, H, W, 3]`` or ``[N, 3, H, W]``, or a list of such pictures of any
                sizes, or of ``bytes`` of their files; of texts a list of ``str``; of tables a float32 array ``[N, C]``
                of coded cells, or a list of mappings from column to number, date or text, ``None`` where missing.
            normalize: rows of length 1; else the features as the encoder gives them.
            batch_size: most items that are computed together; of texts fewer where they are long.

        Raises:
            Unusable: an item is none of these; names its position.
        """
        (out,) = self.compute(items, OUTPUTS[0 if normalize else 1], batch_size=batch_size)
        return out

    def classify(self, items: Any, *, batch_size: int = 64) -> Answers:
        """Return what the head in the graph says of items; row i is item i.

        Args:
            items, batch_size: see `embed`.

        Raises:
            Unusable: the export has no head, or an item cannot be used.
        """
        if "head" not in self.about:
            raise Unusable(f"{self.folder}: has no head in it; export it with one (fastness export --head NAME)")
        head = self.about["head"]
        probabilities, novelty = self.compute(items, *ANSWERS, batch_size=batch_size)
        return Answers.of(probabilities, novelty, head["classes"], head["threshold"])

    def compute(self, items: Any, *outputs: str, batch_size: int = 64) -> list[Floats]:
        """Return several of the graph's outputs of items at once, float32 ``[N, …]`` each; row i is item i.

        Args:
            items, batch_size: see `embed`.
            outputs: of ``embeddings``, ``features``, and with a head ``probabilities``, ``novelty``.
        """
        widths = {"probabilities": [len(self.about.get("head", {}).get("classes", ()))], "novelty": []}
        found = [np.zeros((len(items), *widths.get(name, [self.dim])), np.float32) for name in outputs]
        # A batch of pictures keeps all threads busy, and several at once would take several times its memory.
        run = several_at_once if self.about["modality"] == "text" else one_by_one
        for positions, computed in run(self.session, self.batches(items, batch_size), outputs):
            for out, part in zip(found, computed, strict=True):
                out[positions] = part
        return found


def load(folder: str | Path, *, threads: int | None = None, calls: int = 1, key: signature.Keys = None) -> Encoder:
    """Load an export.

    Args:
        folder: with ``export.json`` and the files that it names.
        threads: that compute; default: as many as there are cores for this process.
        calls: that are made at once, from as many threads of the caller's, each computed by ``threads``.
        key: files of public keys, of which one must have signed the export; default: those that the environment trusts
            (``FASTNESS_TRUSTED_KEYS``); an empty list for none.

    Raises:
        Unusable: no export is there, a file of it is missing or was changed, its runtime is not installed, or a key is
            given and no signature of it covers just what is there.
    """
    folder = Path(folder)
    if trusted := signature.trusted(key):
        signature.verify(folder, trusted)
    about = described(folder)
    try:
        session = SESSIONS[about["runtime"]](folder / about["graph"], about["input"]["name"], threads, calls)
        return Encoder(folder, about, session, INTAKES[about["modality"]](folder, about))
    except (KeyError, TypeError, AttributeError) as error:
        raise Unusable(f"{folder / DESCRIPTION}: describes no export ({type(error).__name__}: {error})") from None
    except (Unusable, OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - what runtimes and tokenizers raise has no common kind
        said = " ".join(str(error).split())[:200]
        raise Unusable(f"{folder}: {about['runtime']} cannot load it ({said}); upgrade that, or export anew") from None


def described(folder: Path) -> dict[str, Any]:
    """Return what ``export.json`` says of an export whose files are whole.

    Raises:
        Unusable: no export is there, or a file of it is missing or was changed.
    """
    path = folder / DESCRIPTION
    try:
        if path.stat().st_size > _LONGEST:
            raise Unusable(f"{path}: is larger than any export's; get an intact copy")
        about = dict(json.loads(path.read_text(encoding="utf-8")))
        if about["format"] != FORMAT:
            raise Unusable(f"{folder}: export format {about['format']} is not this version's ({FORMAT}); export anew")
        files: dict[str, str] = about["files"]
        if not _read(about) <= set(files) or not all(map(signature.plain, files)):
            raise Unusable(f"{path}: its list of files is not an export's; get an intact copy")
        for name, digest in files.items():
            if not (folder / name).is_file():
                raise FileNotFoundError(errno.ENOENT, "is missing", name)
            if signature.sha256(folder / name) != digest:
                raise Unusable(f"{folder / name}: was changed after the export was made; get an intact copy")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unusable(f"{folder}: no export here ({Path(str(error.filename)).name} is missing)") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unusable(f"{path}: describes no export ({type(error).__name__}: {error})") from None
    return about


def _read(about: Mapping[str, Any]) -> set[str]:
    """Return the names of the files that an export is read from; none is read that was not compared with its hash."""
    graph = str(about["graph"])
    beside = {"tokenizer.json"} if about["modality"] == "text" else set()
    return {graph, *beside} | ({f"{graph.removesuffix('.xml')}.bin"} if graph.endswith(".xml") else set())
