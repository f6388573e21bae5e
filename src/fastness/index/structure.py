"""The file of an index's structure: named in the ledger with its hash, so that a damaged one is known as such."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastness.core.files import atomic_path, sha256_file
from fastness.index.exact import Floats
from fastness.index.kinds import KINDS, Kind
from fastness.index.ledger import State

_BLOCK = 65_536
_LEARN_AGAIN = 4  # when there are so many times the vectors that a structure was learnt of


def grown(kind: str, structure: Kind | None, vectors: Floats, learnt: int) -> tuple[Kind, int]:
    """Return a structure that covers all vectors, and of how many it was learnt."""
    if structure is None or len(vectors) > _LEARN_AGAIN * learnt:
        structure, learnt = KINDS.get(kind).learnt(vectors), len(vectors)
    for start in range(len(structure), len(vectors), _BLOCK):
        structure.add(vectors[start : start + _BLOCK])
    return structure, learnt


def write_structure(folder: Path, structure: Kind, state: State) -> tuple[str, str]:
    """Write a structure's file beside those there are and return its name and SHA-256."""
    name = f"structure-{state.generation}-{len(structure)}"
    with atomic_path(folder / name) as temporary:
        structure.write(temporary)
        return name, sha256_file(temporary)


def read_structure(folder: Path, kind: str, state: State) -> Kind | None:
    """Return the structure of a state; ``None`` if it has none, or the file is missing or damaged."""
    path = folder / state.structure
    if not state.structure or not path.is_file():
        return None
    content = path.read_bytes()
    return KINDS.get(kind).read(content) if hashlib.sha256(content).hexdigest() == state.sha256 else None


def kept(name: str, state: State) -> bool:
    """Whether a file of vectors or of a structure belongs to a state."""
    return name in {f"vectors-{state.generation}.f32", state.structure}
