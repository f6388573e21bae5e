"""What is asked for: bodies of requests checked, and their items as the runtime takes them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import gc
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError, from_json

from fastness.core.errors import BadInput
from fastness.serving.batching import Unreadable
from fastness_runtime.decode import DamagedItem, declared, decode

PICTURE = "data:image/"
_WHERE = 4000  # characters of a condition: while it is parsed nobody else is answered
_HITS = 10_000  # in a request: while they are written nobody else is answered
_NAMES = 16  # in an object of metadata


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Refuse a row with a list or an object in it: once, not once a cell."""
    if any(isinstance(cell, dict | list) for cell in row.values()):
        raise PydanticCustomError("cell", "A row should have a text, a number, true, false or null in each cell")
    return row


def _few(told: Any) -> Any:
    """Refuse what has too many names before each of them is looked at."""
    if isinstance(told, dict) and len(told) > _NAMES:
        raise PydanticCustomError("too_long", f"An object should have at most {_NAMES} names")
    return told


_Cell = Annotated[Any, WithJsonSchema({"anyOf": [{"type": t} for t in ("string", "number", "boolean", "null")]})]
Row = Annotated[dict[str, _Cell], AfterValidator(_flat)]
Item = str | Row
_Items = Annotated[list[Item], Field(fail_fast=True)]
RESERVED = ("label", "confidence", "novelty", "abstained", "right", "truth", "route", "side", "payload")
"""Columns that metadata may not be called: what is found out of an item stands there."""

_Int = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Name = Annotated[str, Field(max_length=200)]
_Said = Annotated[str, Field(max_length=200)] | bool | _Int | Annotated[float, Field(allow_inf_nan=False)] | None
_Names = dict[Annotated[str, Field(min_length=1, max_length=64)], _Said]
_Metadata = Annotated[_Names, Field(max_length=_NAMES), BeforeValidator(_few)]
Body = TypeVar("Body", bound="Wanted")


class Wanted(BaseModel):
    """What all requests have: one item, or a list of them.

    A text, or a picture as a data URL (``data:image/jpeg;base64,…``), or a row of a table as an object.
    """

    model_config = ConfigDict(extra="ignore")
    input: Item | _Items
    model: str | None = Field(None, description="Ignored: the alias says what answers.")
    side: str | None = Field(None, description="Of things with several sides, where the item does not tell.")
    ids: Annotated[list[_Name], Field(fail_fast=True)] | None = Field(
        None, description="What you call the items, one each: labels are joined by it."
    )
    metadata: Annotated[list[_Metadata], Field(fail_fast=True)] | None = Field(
        None, description="What you know of the items, an object each: where traffic is watched, kept with its vector."
    )

    @property
    def items(self) -> list[Item]:
        """The items, also of one alone."""
        return self.input if isinstance(self.input, list) else [self.input]


class Embeddings(Wanted):
    """For ``/v1/embeddings``, as OpenAI has it."""

    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="If given, the length that embeddings have here.")


class Search(Wanted):
    """For ``/v1/search``."""

    k: int = Field(10, ge=1, le=1000)
    where: str | None = Field(
        None, max_length=_WHERE, description="Only items for which this holds: price < 20 and colour == 'red'."
    )


def read(kind: type[Body], body: bytes, most: int) -> Body:
    """Return a checked body.

    Args:
        kind: what it must be.
        body: its bytes, JSON.
        most: items that are allowed.

    Raises:
        BadInput: it is something else; names the field.
    """
    told = _parsed(body)
    _check_lengths(told, most)
    try:
        found = kind.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"] if not str(part).endswith("]")) or "body"
        raise BadInput(f"{place}: {first['msg']}") from None
    if not found.items:
        raise BadInput("input: is empty; give at least one item")
    _check_told(found)
    if isinstance(found, Search) and (hits := found.k * len(found.items)) > _HITS:
        raise BadInput(f"k: {found.k} for {len(found.items)} items is {hits:,} hits; at most {_HITS:,} in a request")
    return found


def _parsed(body: bytes) -> Any:
    """Return what JSON says, as plain as it is."""
    collects = gc.isenabled()
    gc.disable()  # none of it is garbage, and to look for some among millions of lists takes ten times as long
    try:
        return from_json(body)
    except ValueError as error:
        raise BadInput(f"body: Invalid JSON: {error}") from None
    finally:
        if collects:
            gc.enable()


def _check_lengths(told: Any, most: int) -> None:
    """Refuse lists that are too long before anything is made of what is in them."""
    for name in ("input", "ids", "metadata") if isinstance(told, dict) else ():
        if isinstance(told.get(name), list) and len(told[name]) > most:
            raise BadInput(f"{name}: {len(told[name])} items; at most {most} in a request")


def _check_told(wanted: Wanted) -> None:
    """Refuse what a client says of its items if it is not said of each, or under a name that is taken."""
    for name, told in (("ids", wanted.ids), ("metadata", wanted.metadata)):
        if told is not None and len(told) != len(wanted.items):
            raise BadInput(f"{name}: {len(told)} for {len(wanted.items)} items; give one each, or none")
    taken = next((key for said in wanted.metadata or () for key in said if key in RESERVED), None)
    if taken is not None:
        raise BadInput(f"metadata: '{taken}' is what is found out here; call it otherwise")


def modality_of(items: list[Item]) -> str:
    """Return which modality all items are of.

    Raises:
        BadInput: they are of several.
    """
    kinds = {_modality(item) for item in items}
    if len(kinds) > 1:
        raise BadInput(f"input: {' and '.join(sorted(kinds))} items in one request; ask for each kind by itself")
    return kinds.pop()


def _modality(item: Item) -> str:
    if not isinstance(item, str):
        return "table"
    return "image" if item[: len(PICTURE)].lower() == PICTURE else "text"


async def pictures(
    items: list[Item], pool: Executor, allow: Callable[[int], None], side: int | None = None
) -> list[Any]:
    """Return pictures as uint8 ``[H, W, 3]``, decoded on a pool's threads.

    Args:
        items: data URLs.
        pool: whose threads decode.
        allow: asked before anything is decoded whether there is room for so many pixels; raises if not.
        side: of the pixels that the encoder takes, so that they are decoded as they were when it was trained.

    Raises:
        Unreadable: an item is damaged; names its position.
    """
    files = [_file(str(item), position) for position, item in enumerate(items)]
    allow(sum(map(declared, files)))
    loop = asyncio.get_running_loop()
    return await asyncio.gather(*(loop.run_in_executor(pool, _picture, file, i, side) for i, file in enumerate(files)))


def _file(url: str, position: int) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise Unreadable(f"item {position}: a picture is given as data:image/jpeg;base64,…")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unreadable(f"item {position}: its base64 is none ({error})") from None


def _picture(file: bytes, position: int, side: int | None) -> Any:
    try:
        return decode(file, side)
    except DamagedItem as error:
        raise Unreadable(f"item {position}: {error}; leave it out or mend it") from None
