"""A collection is embedded for a version, beside whatever serves; killed half-way it goes on where it was.

The index's address says which version, which items and which form, so that the same again is found again and other
items are another index. What is written down is whole: the registry hears of an index when all of it is there.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from fastness.core.errors import BadInput
from fastness.registry.indexes import Indexed, at, indexed, recorded
from fastness.registry.registry import Registry, Version
from fastness.registry.says import checked_name

if TYPE_CHECKING:
    from fastness.bundle import Bundle
    from fastness.data import Dataset
    from fastness.index import Index

CHUNK = 1024  # items that are kept at once
_SIDE, _LETTERS = 128, 300  # of a preview
_POSTGRES = ("postgresql://", "postgres://")
_DIGITS = 12  # of a SHA-256, which tell indexes apart
Say = Callable[[str], None]


@dataclass(frozen=True)
class _Collection:
    """What is to be in the index.

    Attributes:
        dataset: the items, the damaged ones among them too.
        ids: of the items.
        known: what is known of them, a value each by column.
        fingerprint: SHA-256 of all that.
    """

    dataset: Dataset
    ids: list[str]
    known: dict[str, list[Any]]
    fingerprint: str


def rebuild(
    registry: Registry,
    spec: str,
    data: str | Path | None = None,
    *,
    collection: str,
    kind: str | None = None,
    to: str | Path | None = None,
    form: str | None = None,
    previews: bool = False,
    by: str | None = None,
    say: Say | None = None,
    **columns: str | None,
) -> Indexed:
    """Embed a collection with a version into an index of its own, and write it down when it is whole.

    May be killed at any moment and be run again; what was whole before is returned as it is.

    Args:
        registry: that keeps the version.
        spec: ``NAME@NUMBER`` or ``NAME@ALIAS``.
        data: address of the items, see `open_data`; default: those of the name's newest index of this collection, with
            its columns.
        collection: what the items are called: small letters, digits, ``.``, ``_`` and ``-``.
        kind: see `Index.build`; default: as the newest index, else ``flat``.
        to: a folder, or ``postgresql://user@host/database?table=PREFIX``; default: ``indexes`` beside
            the registry's database in its folder.
        form: of the version's export that embeds, as its folder is called; default: the encoder itself.
        previews: keep how items look beside an index in a folder.
        by: who does it; default: the user.
        say: called with lines of progress.
        **columns: see `open_data`.

    Raises:
        BadInput: no such version, form or data, or an index of another kind is there.
        Failure: another process builds the same.
    """
    tell: Say = say or (lambda line: None)
    checked_name(collection)
    version = registry.find(spec)
    last = indexed(registry, version.name, None, collection)
    source, roles = _meant(data, columns, last, version, collection)
    bundle, space = _embedder(registry.pull(str(version)), version, form)
    items = _opened(bundle, source, roles)
    address = _address(registry, to, version, collection, items.fingerprint, form)
    if previews and address.startswith(_POSTGRES):
        raise BadInput(f"{to}: previews are kept beside an index in a folder alone; leave --previews out")

    from fastness.index.turns import alone

    with alone(address):
        before = at(registry, version.name, version.number, collection, address)
        usual = before or last
        with _index(address, bundle.dim, kind, usual.kind if usual else None, space) as index:
            held = _fill(index, bundle, items, address if previews else None, tell)
            return recorded(
                registry,
                name=version.name,
                number=version.number,
                collection=collection,
                address=address,
                kind=index.about.kind,
                items=held,
                data=source,
                columns=roles,
                fingerprint=items.fingerprint,
                form=form,
                by=by,
            )


def _meant(
    data: str | Path | None, columns: dict[str, str | None], last: Indexed | None, version: Version, collection: str
) -> tuple[str, dict[str, str]]:
    """Return the address of the items, which says the same in every folder, and what their columns mean."""
    given = {name: value for name, value in columns.items() if value is not None}
    if data is not None:
        return (str(Path(data).absolute()) if Path(data).exists() else str(data)), given
    if last is None:
        raise BadInput(f"{collection}: no index of it was built for {version.name} yet; say of which data")
    return last.data, {**last.columns, **given}


def _embedder(folder: Path, version: Version, form: str | None) -> tuple[Bundle, str]:
    """Return what embeds, and what its vectors can be compared with."""
    from fastness.bundle import load

    if form is None:
        bundle = load(folder)
        return bundle, bundle.id
    from fastness.bundle.exported import load_exported
    from fastness.bundle.whole import core_of
    from fastness.delivery.forms import FORMS

    exports = folder / "exports"
    there = sorted(path.name for path in exports.iterdir() if path.is_dir()) if exports.is_dir() else []
    if form not in there:
        raise BadInput(f"{version}: has no export '{form[:80]}'; there are: {', '.join(there) or 'none'}")
    exported = load_exported(exports / form)
    own = FORMS.get(str(exported.recipe["form"])).judged == "order"  # its vectors are near no vector of the encoder
    return exported, exported.id if own else str(core_of(folder)["id"])


def _opened(bundle: Bundle, source: str, columns: dict[str, str]) -> _Collection:
    from fastness.data.manifest import printable
    from fastness.index.checked import checked_ids
    from fastness.tasks.index import metadata

    dataset = bundle.open(source, **columns)
    ids = checked_ids([printable(name) for name in dataset.manifest.names])
    known = metadata(dataset)
    digest = hashlib.sha256(f"fastness-collection-1\n{dataset.fingerprint}\n".encode())
    digest.update(json.dumps(ids).encode())
    for name, values in sorted(known.items()):
        digest.update(json.dumps([name, values]).encode())
    return _Collection(dataset, ids, known, digest.hexdigest())


def _address(
    registry: Registry, to: str | Path | None, version: Version, collection: str, fingerprint: str, form: str | None
) -> str:
    """Return where the index of these very items is, as this very version embeds them."""
    if to is None:
        if registry.folder is None:
            raise BadInput(
                f"{registry.shown}: say where indexes are kept: --to FOLDER or --to postgresql://…?table=NAME"
            )
        to = registry.folder / "indexes"
    if not str(to).startswith(_POSTGRES):
        called = "-".join([version.name, str(version.number), fingerprint[:_DIGITS], *([form] if form else [])])
        return str(Path(to).absolute() / collection / called)
    parts = urlsplit(str(to))
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.password or "password" in options:
        raise BadInput(
            "--to: an address is kept in the registry, where no password should be; use ~/.pgpass or PGPASSWORD"
        )
    if "table" not in options:
        raise BadInput(f"{to}: say how its tables' names begin: …?table=NAME")
    # A table's name is short, and tables of all collections lie side by side.
    told = hashlib.sha256(json.dumps([version.name, collection, form, fingerprint]).encode()).hexdigest()
    options["table"] = f"{options['table']}_{version.number}_{told[:_DIGITS]}"
    return urlunsplit(parts._replace(query=urlencode(options)))


def _index(address: str, dim: int, kind: str | None, usual: str | None, space: str) -> Index:
    """Open the index at an address, or make it."""
    from fastness.index import Index

    try:
        index = Index.open(address)
    except BadInput:
        return Index.build(address, dim, kind or usual or "flat", space)
    try:
        index.same_space(space, "this version")
        if kind not in (None, index.about.kind):
            raise BadInput(
                f"{index.address}: is there, of kind {index.about.kind}; ask for that, or choose another --to"
            )
    except BadInput:
        index.close()
        raise
    return index


def _fill(index: Index, bundle: Bundle, items: _Collection, previews: str | None, say: Say) -> int:
    """Let an index hold just these items, adding what it has not; return how many they are."""
    import numpy as np

    taking = bundle.taking(items.dataset)
    say(f"making {len(items.ids):,} items ready")
    ready = taking.encoder.prepare(items.dataset)
    usable = np.flatnonzero(np.isin(items.dataset.rows, ready.dataset.rows))
    if not len(usable):
        raise BadInput(f"{items.dataset.whole.source}: holds no item that can be embedded")
    held = set(index.ids())
    if extra := sorted(held.difference(items.ids[place] for place in usable)):
        index.remove(extra)
    for start in range(0, len(usable), CHUNK):
        chunk = range(start, min(start + CHUNK, len(usable)))
        absent = [i for i in chunk if items.ids[usable[i]] not in held]
        if absent:
            places = usable[absent].tolist()
            vectors = taking.embed_items(ready.select(np.asarray(absent)))
            known = {name: [values[place] for place in places] for name, values in items.known.items()}
            index.add([items.ids[place] for place in places], vectors, known)
            say(f"{chunk.stop:,} of {len(usable):,} embedded")
    if previews is not None:
        _keep_previews(previews, items, usable.tolist(), say)
    if damaged := len(ready.dataset.quarantine):
        say(f"{damaged:,} damaged items left out")
    return len(usable)


def _keep_previews(address: str, items: _Collection, places: Sequence[int], say: Say) -> None:
    """Keep how the items at some places look, those that were kept before excepted."""
    from fastness.index.previews import Previews

    previews = Previews(address)
    try:
        held = set(previews.ids())
        previews.remove(sorted(held.difference(items.ids[place] for place in places)))
        absent = [place for place in places if items.ids[place] not in held]
        for start in range(0, len(absent), CHUNK):
            chunk = absent[start : start + CHUNK]
            previews.add([(items.ids[place], *_preview(items.dataset, place)) for place in chunk])
            say(f"{start + len(chunk):,} of {len(absent):,} previews kept")
    finally:
        previews.close()


def _preview(dataset: Dataset, position: int) -> tuple[str, bytes]:
    """Return how an item looks: a small picture, or the beginning of a text."""
    from fastness.data.show import shown
    from fastness.index.previews import PLAIN, WEBP

    seen = shown(dataset, position)
    if isinstance(seen, str):
        return PLAIN, seen[:_LETTERS].encode("utf-8")
    picture = seen.convert("RGB")
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    return WEBP, buffer.getvalue()
