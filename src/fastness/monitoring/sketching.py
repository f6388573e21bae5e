"""Make a reference sketch of a bundle on data, or of any embeddings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastness.bundle import Bundle, heads, load
from fastness.bundle.exported import Exported
from fastness.bundle.heads import Head
from fastness.core.errors import BadInput
from fastness.core.seeds import derive, numpy_generator
from fastness.data import Dataset, traits
from fastness.data.cache import DecodedImages
from fastness.data.items import Items
from fastness.data.manifest import printable
from fastness.data.table import TableItems
from fastness.data.text import texts_of
from fastness.evaluation.slices import LABEL, known_of, telling_words
from fastness.evaluation.subject import Subject
from fastness.monitoring.sketch import FOLDER, Sketch
from fastness.monitoring.window import Array, Floats, Window
from fastness_runtime.decode import DamagedItem, decode
from fastness_runtime.encoder import described

TRUTH, RIGHT = "truth", "right"
"""Columns of a reference: the class that an item has, and whether the head says so."""

_EACH, _MOST_CLUSTERS = 20, 30  # items to a cluster, and clusters
_TYPICAL, _WORDS = 5, 3


def sketch(
    bundle: Bundle | str | Path,
    data: Any,
    *,
    form: str | None = None,
    head: str | None = None,
    side: str | None = None,
    most: int = 2000,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    **columns: str | None,
) -> Sketch:
    """Embed a sample of data that production should look like, and keep it beside a bundle in ``sketch/``.

    Items that the encoder was trained on lie otherwise than new ones. So of data with splits ``test`` (or
    ``validation``) is taken, and of data that the head was fitted on the part that was held out from it.

    Args:
        bundle: a bundle or its path.
        data: see `open_data`.
        form: of an export of it, by which production embeds; ``None``: the encoder itself.
        head: what answers; may be left out where there is one or none.
        side: which side of things with several.
        most: items that are kept.
        seed: of the sample and the clusters.
        say: called with a line of progress.
        **columns: see `open_data`.

    Raises:
        BadInput: the bundle, the form, the head or the data is unusable.
    """
    if most < 1:
        raise BadInput(f"--items {most}: keep one at least")
    whole, say = bundle if isinstance(bundle, Bundle) else load(bundle), say or (lambda line: None)
    if isinstance(whole, Exported):
        raise BadInput(f"{whole.path}: is an export; give the bundle's folder, and --form {whole.recipe['form']}")
    one, answering = whole.one_side(side), head_of(whole, head, side)
    items = sample(one, one.open(data, **columns), answering, most, seed)
    dataset = items.dataset
    computing = one if form is None else load(export_of(whole.path, form, side))
    say(f"embedding {len(items):,} items …")
    window = embedded(computing, items, answering)
    about = {
        "bundle": whole.id,
        "form": form or "float32",
        "side": side,
        "head": answering and answering.name,
        "source": dataset.whole.source,
        "fingerprint": dataset.fingerprint,
        "trained": float(np.mean([item.tobytes().hex() in whole.item_hashes for item in dataset.manifest.hashes])),
    }
    say("clustering …")
    found = of_window(window, about, texts_of(dataset) if dataset.modality == "text" else (), seed)
    found.write(whole.path / FOLDER)
    return found


def embedded(computing: Bundle, items: Items, answering: Head | None) -> Window:
    """Return items as a service would see them: vectors, what is known of each, and what a head says.

    Args:
        computing: an encoder, or an export of it.
        items: made ready for it.
        answering: a head of the same bundle.
    """
    dataset = items.dataset
    features = computing.embed_items(items, normalize=False)
    vectors = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return Window(
        vectors.astype(np.float16).astype(np.float32),
        {**_known(dataset), **told(items), **({} if answering is None else _answered(answering, features, dataset))},
        [printable(name) for name in dataset.manifest.names],
    )


def head_of(bundle: Bundle, name: str | None, side: str | None) -> Head | None:
    """Return the head that answers, if there is one: the named one, or the only one.

    Raises:
        BadInput: there is none of that name, or it is of another side.
    """
    if name is None and len(heads.names(bundle)) != 1:
        return None
    found = heads.read(bundle, name)
    if found.about["side"] == side:
        return found
    if name is not None:
        raise BadInput(f"{found.folder}: was fitted on side {found.about['side']}, not {side}; name that one (--side)")
    return None


def export_of(bundle: Path, form: str, side: str | None) -> Path:
    """Return the folder of a bundle's export in a form.

    Raises:
        BadInput: it has none.
    """
    there = {}
    for path in sorted(bundle.glob("exports/*/export.json")):
        about = described(path.parent)
        if about["side"] == side:
            there[str(about["form"])] = path.parent
    if form not in there:
        raise BadInput(f"--form {form}: {bundle} has {', '.join(there) or 'no export'}; export it first")
    return there[form]


def sample(
    bundle: Bundle, dataset: Dataset, head: Head | None, most: int, seed: int, *, held_out: bool = True
) -> Items:
    """Return at most so many items, with ``held_out`` of those that are new to the encoder and the head.

    Raises:
        BadInput: each thing has several sides, or nothing can be embedded.
    """
    if dataset.sides > 1:
        raise BadInput(f"{dataset.whole.source}: each thing has several sides; name the column of one")
    held = next((name for name in ("test", "validation") if name in dataset.split_names), None)
    if not held_out:
        held = head = None
    if held is not None:
        dataset = dataset.split(held)
    elif head is not None and dataset.labels is not None and (dataset.labels >= 0).any():
        subject = Subject.of(bundle, dataset.labelled(), int(head.about["seed"]))
        if subject.data == head.about["data"]["held_out_fingerprint"]:
            dataset = subject.test.dataset
    if len(dataset) > most:
        chosen = numpy_generator(seed, "sketch").choice(len(dataset), most, replace=False)
        dataset = dataset.select(np.sort(chosen))
    items = bundle.encoder.prepare(dataset)
    if not len(items):
        raise BadInput(f"{dataset.whole.source}: none of its items can be embedded")
    return items


def _known(dataset: Dataset) -> dict[str, Array]:
    """Return what the source says of items; the class as ``truth``, since ``label`` is what a head says."""
    found = {
        name: values.astype(object) if values.dtype.kind == "U" else values
        for name, values in known_of(dataset).items()
    }
    return {TRUTH if name == LABEL else name: values for name, values in found.items()}


def told(items: Items) -> dict[str, Array]:
    """Return what a service would tell of the same items, by the same functions."""
    dataset = items.dataset
    if isinstance(items, TableItems):
        columns = [
            {
                "name": name,
                "kind": column.kind,
                "values": getattr(column, "values", ()),
                "origin": getattr(column, "origin", 0.0),
            }
            for name, column in items.schema.used.items()
        ]
        return traits.of_cells(items.cells, columns)
    if dataset.modality == "text":
        return _by_name(traits.OF_TEXT, [traits.of_text(text) for text in texts_of(dataset)])
    assert isinstance(items, DecodedImages)
    return _by_name(traits.OF_PICTURE, [_of_picture(dataset, int(row), items.size) for row in dataset.rows])


def _of_picture(dataset: Dataset, row: int, size: int) -> tuple[float, ...]:
    try:
        return traits.of_picture(decode(dataset.payloads.read(row), size))
    except (DamagedItem, OSError):  # it could be decoded when it was made ready
        return (np.nan,) * len(traits.OF_PICTURE)


def _by_name(names: Sequence[str], rows: Sequence[tuple[float, ...]]) -> dict[str, Array]:
    return dict(zip(names, np.array(rows, np.float64).reshape(-1, len(names)).T, strict=True))


def _answered(head: Head, features: Floats, dataset: Dataset) -> dict[str, Array]:
    """Return what a head says, and whether it is right, as far as classes are known."""
    answers = head.answer(features)
    found: dict[str, Array] = {
        "label": np.array([str(label) for label in answers.labels], object),
        "confidence": answers.probabilities.max(1).astype(np.float64),
        "novelty": answers.novelty.astype(np.float64),
        "abstained": answers.abstained.astype(np.float64),
    }
    if dataset.labels is not None:
        truth = np.array([*dataset.class_names, ""], object)[dataset.labels]
        found[RIGHT] = np.where(truth == "", np.nan, (found["label"] == truth).astype(np.float64))
    return found


def of_window(window: Window, about: dict[str, Any], texts: Sequence[str] = (), seed: int = 0) -> Sketch:
    """Return the sketch of items that are embedded already, of ours or of any other model.

    Args:
        window: the items; by ``truth`` or ``label``, if there, clusters are named.
        about: what is to be said of them.
        texts: the items, if they are texts; clusters are named by their words.
        seed: of the clusters.

    Raises:
        BadInput: there are no items.
    """
    if not len(window):
        raise BadInput("a sketch is of one item at least")
    centroids, cluster = _clusters(window.vectors, seed)
    nearness = window.vectors @ centroids.T - np.square(centroids).sum(1) / 2
    order = [
        rows[np.argsort(-nearness[rows, k])] for k in range(len(centroids)) for rows in [np.flatnonzero(cluster == k)]
    ]
    typical = [[window.ids[int(row)] for row in rows[:_TYPICAL]] if len(window.ids) else [] for rows in order]
    return Sketch(
        {**about, "items": len(window), "typical": typical, "seed": seed},
        window,
        centroids,
        _names(window, order, typical, texts),
        np.bincount(cluster, minlength=len(centroids)) / len(window),
    )


def _clusters(vectors: Floats, seed: int) -> tuple[Floats, Array]:
    """Return the centroids of k-means (Arthur and Vassilvitskii 2007), and which cluster each item is in."""
    from sklearn.cluster import KMeans

    K = max(1, min(_MOST_CLUSTERS, len(vectors) // _EACH, len(np.unique(vectors, axis=0))))
    fitted = KMeans(K, n_init=4, random_state=derive(seed, "sketch clusters") % 2**32).fit(vectors)
    found = fitted.labels_.astype(np.int64)
    there, found = np.unique(found, return_inverse=True)
    return fitted.cluster_centers_[there].astype(np.float32), found


def _names(
    window: Window, members: Sequence[Array], typical: Sequence[Sequence[str]], texts: Sequence[str]
) -> tuple[str, ...]:
    """Return what clusters are called: by the class of most of their items, else by words, else by a typical item.

    Where two would be called the same, the next of these is added.
    """
    classes = window.columns.get(TRUTH, window.columns.get(LABEL))
    found: list[str] = []
    for k, rows in enumerate(members):
        said = [] if classes is None else _usual(classes[rows])
        if texts:
            said.append(", ".join(telling_words([texts[int(row)] for row in rows], texts, _WORDS)))
        if typical[k]:
            said.append(f"like {typical[k][0]}")
        said = [part for part in said if part] or [f"cluster {k + 1}"]
        longer = [": ".join(said[:n]) for n in range(1, len(said) + 1)]
        found.append(next((name for name in longer if name not in found), f"{longer[-1]} ({k + 1})"))
    return tuple(found)


def _usual(classes: Array) -> list[str]:
    """Return the class that half of the items have, if there is one."""
    usual, times = Counter(classes.tolist()).most_common(1)[0]
    return [str(usual)] if usual and 2 * times >= len(classes) else []
