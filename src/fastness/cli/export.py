"""``fastness export``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options

_FORMS = "onnx, onnx-fp16, onnx-bf16, onnx-int8, openvino, openvino-int8, static."


@options.takes_columns
def export(
    bundle: Annotated[str, typer.Argument(help="A bundle's or a run's folder.")],
    data: Annotated[str, typer.Argument(help="Real items, by which the export is compared with the encoder.")],
    form: Annotated[
        str, typer.Option("--format", help="onnx, onnx-fp16, onnx-bf16, onnx-int8, openvino, openvino-int8.")
    ] = "onnx",
    side: Annotated[str | None, typer.Option(help="Which side of things with several.")] = None,
    head: Annotated[str | None, typer.Option(help="A head of the bundle, to answer within; see fastness fit.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: exports/FORMAT in the bundle's.")] = None,
    floor: Annotated[float | None, typer.Option(min=-1, max=1, help="Least cosine to the encoder's vectors.")] = None,
    seed: Annotated[int, typer.Option(help="By which items are taken.")] = 0,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Write the encoder as one graph, preprocessing inside, and prove on DATA that it gives the same vectors."""
    from fastness.delivery.export import export as make

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    made = make(bundle, data, form, side=side, head=head, out=out, floor=floor, seed=seed, say=say, **columns)
    if json:
        options.print_json(
            {"export": str(made.folder), "form": made.form, "bytes": made.bytes, "parity": made.parity.to_dict()}
        )
        return
    parity = made.parity
    print(f"export     {made.folder} ({made.bytes / 1e6:.1f} MB)")
    print(f"parity     cosine {parity.least:.6f} at least, {parity.mean:.6f} on average, over {parity.items:,} items")
    if parity.head is not None:
        same, apart = parity.head.same, parity.head.probability
        print(f"head       {same:.1%} of them are given the same answer, or none; probabilities differ by {apart:.4f}")
