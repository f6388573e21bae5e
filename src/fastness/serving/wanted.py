"""What is asked for: bodies of requests checked, and their items as the runtime takes them."""

from __future__ import annotations

import asyncio
import base64
import binascii
from concurrent.futures import Executor
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastness.core.errors import BadInput
from fastness_runtime.decode import DamagedItem, decode

Row = dict[str, str | float | int | bool | None]
Item = str | Row
PICTURE = "data:image/"
Body = TypeVar("Body", bound="Wanted")


class Wanted(BaseModel):
    """What all requests have: one item, or a list of them.

    A text, or a picture as a data URL (``data:image/jpeg;base64,…``), or a row of a table as an object.
    """

    model_config = ConfigDict(extra="ignore")
    input: Item | list[Item]
    model: str | None = Field(None, description="Ignored: the alias says what answers.")
    side: str | None = Field(None, description="Of things with several sides, where the item does not tell.")

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
    return found


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


async def ready(items: list[Item], modality: str, pool: Executor) -> list[Any]:
    """Return items as the runtime takes them: pictures as uint8 ``[H, W, 3]``, decoded on a pool's threads.

    Raises:
        BadInput: an item is damaged; names its position.
    """
    if modality == "text":
        for position, text in enumerate(items):
            assert isinstance(text, str)
            if not text.strip():
                raise BadInput(f"item {position}: a text without words; leave it out")
    if modality != "image":
        return list(items)
    loop = asyncio.get_running_loop()
    return await asyncio.gather(*(loop.run_in_executor(pool, _picture, item, i) for i, item in enumerate(items)))


def _picture(url: Item, position: int) -> Any:
    assert isinstance(url, str)
    head, comma, data = url.partition(",")
    try:
        if not comma or not head.endswith(";base64"):
            raise BadInput(f"item {position}: a picture is given as data:image/jpeg;base64,…")
        return decode(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"item {position}: its base64 is none ({error})") from None
    except DamagedItem as error:
        raise BadInput(f"item {position}: {error}; leave it out or mend it") from None
