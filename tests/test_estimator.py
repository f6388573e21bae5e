"""The scikit-learn face: its own checks, pipelines, grid search, clones, pickles, every kind of items."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator

import fastness as fs

SMALL: dict[str, Any] = {"steps": 4, "width": 16, "batch_size": 16, "random_state": 0}


# All but the one of array libraries beside NumPy, which are not supported.
OWN = [
    (estimator, check)
    for estimator, check in estimator_checks_generator(
        fs.ContrastiveEncoder(steps=2, width=8, batch_size=8, random_state=0)
    )
    if "array_api" not in check.func.__name__
]


@pytest.mark.parametrize(("estimator", "check"), OWN, ids=[check.func.__name__ for _, check in OWN])
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def table() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = draw.normal(0, 1, (120, 6)) + 3 * y[:, None] * np.array([1, -1, 0, 0, 1, 0])
    x[draw.random(x.shape) < 0.05] = np.nan
    return x, y


def test_it_works_in_pipelines_and_grid_search(table: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = table
    line = make_pipeline(fs.ContrastiveEncoder(**SMALL), LogisticRegression())
    search = GridSearchCV(line, {"contrastiveencoder__views": [{}, {"corrupt": 0.3}]}, cv=2, error_score="raise")
    assert search.fit(x, y).score(x, y) > 0.8


def test_a_clone_is_unfitted_and_learns_the_same_and_a_pickle_gives_the_same(
    table: tuple[np.ndarray, np.ndarray],
) -> None:
    x, _ = table
    made = fs.ContrastiveEncoder(**SMALL).fit(x)
    z = made.transform(x)
    assert z.shape == (120, made.bundle_.dim) and np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    assert not hasattr(clone(made), "bundle_")
    assert np.array_equal(clone(made).fit(x).transform(x), z)
    assert np.array_equal(pickle.loads(pickle.dumps(made)).transform(x), z)  # noqa: S301
    assert len(made.get_feature_names_out()) == made.bundle_.dim


def test_it_learns_from_texts_and_pictures_and_by_labels() -> None:
    texts = [f"{'red' if i % 2 else 'blue'} thing number {i}" for i in range(40)]
    small = {**SMALL, "network": {"layers": 1}}
    assert fs.ContrastiveEncoder(**small).fit(texts).transform(texts[:3]).shape == (3, 16)
    pictures, y = load_digits(return_X_y=True)
    pictures = (pictures[:64] * 16).clip(0, 255).astype(np.uint8).reshape(-1, 8, 8)
    made = fs.ContrastiveEncoder("supcon", **{**SMALL, "width": 4}).fit(pictures, y[:64])
    assert made.transform(pictures[:5]).shape[0] == 5
    rows = [{"size": float(i % 7), "kind": "xyz"[i % 3]} for i in range(60)]
    assert fs.ContrastiveEncoder(steps=3).fit(rows).transform(rows[:2]).shape[0] == 2
    with pytest.raises(fs.BadInput, match="needs labels"):
        fs.ContrastiveEncoder("supcon", **{**SMALL, "width": 4}).fit(pictures)
