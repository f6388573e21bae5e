"""The recipe: everything that decides what a training run computes, in one checked, saved form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fastness.core.errors import BadInput

_POWER_OF_TEN = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")  # YAML 1.1 wants a point and a sign in it
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """Return the seconds that a duration such as ``90s``, ``10m``, ``1.5h`` means.

    Raises:
        BadInput: the text is no positive duration.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", text)
    if not match or float(match[1]) <= 0:
        raise BadInput(f"budget '{text}' is no duration; write for example 90s, 10m or 2h")
    return float(match[1]) * _UNITS[match[2]]


class Recipe(BaseModel):
    """What to train and how. Two runs with equal recipes, data and machine give equal weights.

    Fields left at ``None`` are chosen for the data and the method when the run starts; the recipe that
    is saved with the bundle has them filled in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field("auto", description="how the encoder learns")
    encoder: str = Field("auto", description="the network by name; see fastness train --help")
    width: int | None = Field(None, ge=1, le=1024, description="channels of the first stage, or width throughout")
    network: dict[str, Any] = Field(default_factory=dict, description="changes to the encoder's own options")
    stem: Literal["small", "imagenet"] | None = Field(None, description="first layers of a ResNet")
    init: str | None = Field(None, description="start from this bundle's weights, or timm:NAME")
    unfreeze: int | None = Field(
        None, ge=0, description="train only the last N blocks (0: the head alone); default all"
    )
    size: int | None = Field(
        None, ge=8, le=1024, description="side of the square image in pixels, or most tokens of a text"
    )
    epochs: float | None = Field(None, gt=0, description="length in passes over the data")
    steps: int | None = Field(None, gt=0, description="length in optimiser steps")
    budget: str | None = Field(None, description="wall time such as 10m; decides the number of steps")
    batch_size: int | None = Field(
        None, ge=2, description="items computed at a time: those of one loss, unless effective_batch"
    )
    accumulate: int = Field(1, ge=1, description="batches whose gradients are added before one step")
    effective_batch: int | None = Field(
        None, ge=2, description="items in one loss, computed batch_size at a time (gradient cache)"
    )
    optimizer: Literal["sgd", "lars", "adamw"] | None = Field(None, description="what makes steps of gradients")
    lr: float | None = Field(None, gt=0, description="peak learning rate, not scaled by batch size")
    weight_decay: float | None = Field(None, ge=0, description="of weights, not of biases or normalisation")
    warmup: float = Field(0.05, ge=0, le=1, description="share of the steps that raise the rate")
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    temperature: float | None = Field(None, gt=0, description="of the contrastive loss")
    views: dict[str, Any] = Field(default_factory=dict, description="changes to the method's views")
    options: dict[str, Any] = Field(default_factory=dict, description="changes to the method's own options")
    precision: Literal["auto", "float32", "bf16"] = Field("auto", description="bf16 where the hardware is fast at it")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="a GPU if there is one")
    compile: bool = Field(False, description="compile the encoder with torch.compile")
    seed: int = Field(0, ge=0, description="of every random choice")

    @model_validator(mode="after")
    def _one_length(self) -> Recipe:
        given = [name for name in ("epochs", "steps", "budget") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join('--' + g for g in given)} contradict each other; give one of them")
        if self.budget is not None:
            try:
                seconds(self.budget)
            except BadInput as error:
                raise ValueError(str(error)) from None
        if self.effective_batch is not None and self.accumulate > 1:
            raise ValueError("--accumulate and --effective-batch contradict each other; give one of them")
        if self.unfreeze is not None and self.init is None:
            raise ValueError("--unfreeze makes sense only with --init BUNDLE; give one or drop --unfreeze")
        return self

    @property
    def parts(self) -> int:
        """How many batches are computed for one step."""
        return self.effective_batch // (self.batch_size or 1) if self.effective_batch else self.accumulate

    @classmethod
    def parse(cls, values: dict[str, Any], where: str = "recipe") -> Recipe:
        """Return the checked recipe; ``loss`` may stand beside the fields, for the option of that name.

        Raises:
            BadInput: in one line, which field of ``where`` is wrong and what is allowed.
        """
        options = values.get("options", {})
        if "loss" in values and isinstance(options, dict):
            rest = {name: value for name, value in values.items() if name != "loss"}
            values = {**rest, "options": {**options, "loss": values["loss"]}}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            said = str(first["msg"]).removeprefix("Value error, ")
            if first["type"] == "extra_forbidden":
                said = f"unknown field; known: {', '.join(cls.model_fields)}"
            shown = f"{field} = {first['input']!r}: " if field else ""
            raise BadInput(f"{where}: {shown}{said}") from None

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe from a YAML or JSON file."""
        return cls.parse(read_mapping(Path(path)), str(path))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        values: dict[str, Any] = json.loads(self.model_dump_json())
        return values


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, too."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _POWER_OF_TEN, list("-+.0123456789"))


def stated(text: str) -> Any:
    """Return what a text says in YAML; raises what `yaml.load` does, and `ValueError` for a date that is none."""
    return yaml.load(text, _Loader)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file that holds one mapping.

    Raises:
        BadInput: the file is missing, is no YAML, or holds something else.
    """
    try:
        values = stated(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (yaml.YAMLError, ValueError) as error:  # the latter also of what is no UTF-8, or looks like a date
        raise BadInput(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise BadInput(f"{path}: should hold 'field: value' lines; known: {', '.join(Recipe.model_fields)}")
    return values
