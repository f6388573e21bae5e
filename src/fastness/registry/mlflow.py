"""Versions go to MLflow's registry and come from it; its aliases stay there, since no gate of ours let them in."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastness.core.errors import BadInput, Failure
from fastness.registry.registry import Registry, Version

if TYPE_CHECKING:
    from collections.abc import Iterator

_BUNDLE = "bundle"  # folder of a run's artifacts
_TAG, _OF = "fastness.manifest", "fastness.version"
_EXPERIMENT = "fastness"


@dataclass(frozen=True)
class Sent:
    """A version of MLflow's: its model's name and its number there."""

    model: str
    version: str


def to_mlflow(registry: Registry, spec: str, uri: str, model: str | None = None) -> Sent:
    """Write a version into MLflow's registry: its files as artifacts of a run, its ids as tags.

    What is there already is found again by its tag. MLflow's aliases are set to those that name the version here.

    Args:
        registry: where the version is.
        spec: ``NAME@NUMBER`` or ``NAME@ALIAS``.
        uri: of MLflow's server or database, ``http://…`` or ``sqlite:///FILE``.
        model: name there; default: the same.

    Raises:
        BadInput: MLflow is not installed, or there is no such version.
        Failure: what MLflow says.
    """
    version = registry.find(spec)
    model = model or version.name
    named = [alias for alias, move in registry.serving(version.name).items() if move.number == version.number]
    with _client(uri) as client, tempfile.TemporaryDirectory(prefix="fastness-mlflow-") as place:
        folder = registry.pull(str(version), Path(place) / _BUNDLE)
        if not client.search_registered_models(f"name = '{model}'"):
            client.create_registered_model(model)
        there = [v for v in client.search_model_versions(f"name = '{model}'") if v.tags.get(_TAG) == version.manifest]
        if not there:
            experiment = client.get_experiment_by_name(_EXPERIMENT)
            run = client.create_run(experiment.experiment_id if experiment else client.create_experiment(_EXPERIMENT))
            client.log_artifacts(run.info.run_id, str(folder), _BUNDLE)
            client.set_terminated(run.info.run_id)
            tags = {_TAG: version.manifest, _OF: str(version), "fastness.bundle": version.bundle}
            source = f"{run.info.artifact_uri}/{_BUNDLE}"
            there = [client.create_model_version(model, source, run.info.run_id, tags=tags, description=version.note)]
        for alias in named:
            client.set_registered_model_alias(model, alias, there[0].version)
        return Sent(model, str(there[0].version))


def from_mlflow(registry: Registry, model: str, uri: str, name: str | None = None) -> Version:
    """Add a version of MLflow's registry.

    Args:
        registry: where to.
        model: ``MODEL/3`` or ``MODEL@ALIAS``. Its artifacts hold a bundle, or a model that sentence-transformers or
            transformers saved as safetensors, which is adopted; what was pickled is not loaded.
        uri: see `to_mlflow`.
        name: of the version here; default: the model's.

    Raises:
        BadInput: MLflow is not installed, has no such version, or it holds nothing that can be loaded.
        Failure: what MLflow says.
    """
    wanted, mark, which = model.partition("@") if "@" in model else model.partition("/")
    if not which:
        raise BadInput(f"'{model}': say which version of MLflow's: {wanted}/3, or {wanted}@champion")
    with _client(uri) as client, tempfile.TemporaryDirectory(prefix="fastness-mlflow-") as place:
        found = (
            client.get_model_version_by_alias(wanted, which) if mark == "@" else client.get_model_version(wanted, which)
        )
        import mlflow

        source = client.get_model_version_download_uri(wanted, found.version)
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=place, tracking_uri=uri))
        note = f"MLflow {wanted}/{found.version}"
        return registry.add(_bundle_of(folder, Path(place), model), name or wanted.lower(), note=note)


def _bundle_of(folder: Path, place: Path, model: str) -> Path:
    """Return the bundle among artifacts, or what an encoder among them is adopted as."""
    bundles = sorted(path.parent for path in folder.rglob("bundle.json"))
    if bundles:
        return bundles[0]
    saved = sorted(folder.rglob("modules.json")) or sorted(p for p in folder.rglob("config.json") if _weighs(p.parent))
    if not saved:
        raise BadInput(f"{model}: holds no bundle and no safetensors of sentence-transformers or transformers")
    from fastness.bundle.adopt import adopt

    adopt(str(saved[0].parent), place / "adopted")
    return place / "adopted"


def _weighs(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


@contextmanager
def _client(uri: str) -> Iterator[Any]:
    """Yield MLflow's client, which tells nobody that it was used."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise BadInput("MLflow is not installed; pip install mlflow") from None
    try:
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)
    except MlflowException as error:
        raise Failure(f"{uri}: {' '.join(str(error).split())[:300]}") from error
