"""The plan of a pipeline: what a YAML file says of it, checked before anything is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fastness.core.errors import BadInput
from fastness.core.recipe import Recipe, stated
from fastness.delivery.forms import FORMS
from fastness.evaluation.checks import CHECKS
from fastness.evaluation.gate import read_policy
from fastness.index.kinds import known
from fastness.registry.says import checked_alias, checked_name

Role = Literal["image", "text", "row", "label", "split", "group", "score"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _OfData(_Section):
    data: str
    columns: dict[Role, str] | None = None


class Evaluate(_OfData):
    """What the bundle is measured on, and what a gate judges by; see `fastness.evaluate`."""

    checks: list[str] | None = None
    slices: list[str] | None = None
    examples: bool = True
    seed: int = 0


class Head(_OfData):
    """The head that is fitted and answers within the exports; see `fastness.fit`."""

    name: str = "default"
    abstain: float = Field(0.05, ge=0, lt=1)
    seed: int = 0


class Sketch(_OfData):
    """How production should look, which is what a monitor compares it with; see `fastness.sketch`."""

    form: str | None = None
    most: int = Field(2000, ge=1)
    seed: int = 0


class Collection(_OfData):
    """What is searched: its index is built anew for the version; see `registry.reindex.rebuild`."""

    name: str
    kind: str | None = None
    to: str | None = None
    form: str | None = None
    previews: bool = False


class Plan(_Section):
    """What is made and released.

    Attributes:
        name: of the versions.
        data: what it learns from, and what exports are compared on.
        columns: which columns mean what, see `open_data`; a section's own stand in place of these.
        train: fields of a `Recipe`; what is not given is chosen.
        bundle: release this one, instead of training.
        evaluate, head, sketch, collection: see there.
        export: forms.
        sign: file of a private key.
        gate: file of a policy.
        alias: what is to name the version if the gate says yes.
    """

    name: str
    data: str | None = None
    columns: dict[Role, str] = {}
    train: dict[str, Any] = {}
    bundle: str | None = None
    evaluate: Evaluate | None = None
    head: Head | None = None
    export: list[str] = []
    sketch: Sketch | None = None
    sign: str | None = None
    collection: Collection | None = None
    gate: str | None = None
    alias: str | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Plan:
        if self.bundle is None and self.data is None:
            raise ValueError("nothing to release; give 'data' to train on, or a 'bundle'")
        if self.bundle is not None and self.train:
            raise ValueError("'train' and 'bundle' contradict each other; give one of them")
        if (self.gate is None) != (self.alias is None):
            raise ValueError("'gate' and 'alias' belong together: the gate lets a version in, the alias names it")
        if self.gate is not None and self.evaluate is None:
            raise ValueError("a 'gate' judges by what 'evaluate' measures; say on which data")
        if self.export and self.compared_on is None:
            raise ValueError("an 'export' is compared with the encoder on real items; give 'data'")
        for name, asked in (("collection", self.collection), ("sketch", self.sketch)):
            form = asked.form if asked else None
            if form is not None and form not in self.export and self.bundle is None:
                raise ValueError(f"the '{name}' is to be embedded by the form {form}, which 'export' does not make")
        return self

    @property
    def compared_on(self) -> _OfData | None:
        """The items on which exports are compared with the encoder."""
        return self.evaluate if self.data is None else _OfData(data=self.data)

    def of(self, section: _OfData | None = None) -> dict[str, Any]:
        """Return what columns of a section's data mean, or of those it learns from; for `open_data`."""
        own = None if section is None else section.columns
        return {str(role): column for role, column in (self.columns if own is None else own).items()}

    @property
    def recipe(self) -> Recipe:
        """How it learns."""
        return Recipe.parse(self.train, "train")

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan from a YAML file.

        Raises:
            BadInput: in one line, which field is wrong and what is allowed.
        """
        try:
            values = stated(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}; give the YAML file of a pipeline, see docs/ci.md") from None
        except (yaml.YAMLError, ValueError) as error:
            raise BadInput(f"{path}: no YAML ({' '.join(str(error).split())[:200]})") from None
        with _within(str(path)):
            if not isinstance(values, dict):
                raise BadInput(f"should hold 'field: value' lines; known: {', '.join(cls.model_fields)}")
            try:
                plan = cls.model_validate(values)
            except ValidationError as error:
                raise BadInput(_said(error)) from None
            plan._check_names()
        return plan

    def _check_names(self) -> None:
        """Raise what is wrong with a name or a file, which is better known before hours of training."""
        _ = self.recipe
        with _within("name"):
            checked_name(self.name)
        with _within("evaluate.checks"):
            for check in (self.evaluate and self.evaluate.checks) or ():
                _ = check == "all" or CHECKS.get(check)
        with _within("export"):
            for form in self.export:
                FORMS.get(form)
        if self.collection is not None:
            with _within("collection"):
                checked_name(self.collection.name)
                if self.collection.kind not in (None, *known()):
                    raise BadInput(f"unknown kind of index '{self.collection.kind}'; known: {', '.join(known())}")
        if self.alias is not None:
            with _within("alias"):
                checked_alias(self.alias)
            with _within("gate"):
                read_policy(Path(str(self.gate)))


@contextmanager
def _within(place: str) -> Iterator[None]:
    """Say where it was that something was wrong."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{place}: {error}") from None


def _said(error: ValidationError) -> str:
    """Return which field is wrong and what is allowed."""
    first = error.errors()[0]
    place = [str(part + 1 if isinstance(part, int) else part) for part in first["loc"] if part != "[key]"]
    said = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {
            "evaluate": Evaluate,
            "head": Head,
            "sketch": Sketch,
            "collection": Collection,
        }
        fields = sections.get(place[0] if len(place) > 1 else "", Plan).model_fields
        said = f"unknown field; known: {', '.join(fields)}"
    shown = str(first["input"])[:80] if isinstance(first["input"], str | int | float) else ""
    return f"{'.'.join(place)}{f' = {shown}' if shown else ''}: {said}".removeprefix(": ")
