"""What is asked for: bodies of requests checked, and their items as the runtime takes them."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastness.core.errors import BadInput
from fastness.serving.batching import Unreadable
from fastness_runtime.decode import DamagedItem, declared, decode

Row = dict[str, str | float | int | bool | None]
Item = str | Row
PICTURE = "data:image/"
RESERVED = ("label", "confidence", "novelty", "abstained", "right", "truth", "route", "side", "payload")
"""Columns that metadata may not be called: what is found out of an item stands there."""

_Int = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Name = Annotated[str, Field(max_length=200)]
_Said = Annotated[str, Field(max_length=200)] | bool | _Int | Annotated[float, Field(allow_inf_nan=False)] | None
_Metadata = Annotated[dict[Annotated[str, Field(min_length=1, max_length=64)], _Said], Field(max_length=16)]
Body = TypeVar("Body", bound="Wanted")


class Wanted(BaseModel):
    """What all requests have: one item, or a list of them.

    A text, or a picture as a data URL (``data:image/jpeg;base64,…``), or a row of a table as an object.
    """

    model_config = ConfigDict(extra="ignore")
    input: Item | list[Item]
    model: str | None = Field(None, description="Ignored: the alias says what answers.")
    side: str | None = Field(None, description="Of things with several sides, where the item does not tell.")
    ids: list[_Name] | None = Field(None, description="What you call the items, one each: labels are joined by it.")
    metadata: list[_Metadata] | None = Field(
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
    where: str | None = Field(None, description="Only items for which this holds: price < 20 and colour == 'red'.")


def read(kind: type[Body], body: bytes, most: int) -> Body:
    """Return a checked body.

    Args:
        kind: what it must be.
        body: its bytes, JSON.
        most: items that are allowed.

    Raises:
        BadInput: it is something else; names the field.
    """
    try:
        found = kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"] if not str(part).endswith("]")) or "body"
        raise BadInput(f"{place}: {first['msg']}") from None
    if not found.items:
        raise BadInput("input: is empty; give at least one item")
    if len(found.items) > most:
        raise BadInput(f"input: {len(found.items)} items; at most {most} in a request")
    _check_told(found)
    return found


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


async def pictures(items: list[Item], pool: Executor, allow: Callable[[int], None]) -> list[Any]:
    """Return pictures as uint8 ``[H, W, 3]``, decoded on a pool's threads.

    Args:
        items: data URLs.
        pool: whose threads decode.
        allow: asked before anything is decoded whether there is room for so many pixels; raises if not.

    Raises:
        Unreadable: an item is damaged; names its position.
    """
    files = [_file(str(item), position) for position, item in enumerate(items)]
    allow(sum(map(declared, files)))
    loop = asyncio.get_running_loop()
    return await asyncio.gather(*(loop.run_in_executor(pool, _picture, file, i) for i, file in enumerate(files)))


def _file(url: str, position: int) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise Unreadable(f"item {position}: a picture is given as data:image/jpeg;base64,…")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unreadable(f"item {position}: its base64 is none ({error})") from None


def _picture(file: bytes, position: int) -> Any:
    try:
        return decode(file)
    except DamagedItem as error:
        raise Unreadable(f"item {position}: {error}; leave it out or mend it") from None
