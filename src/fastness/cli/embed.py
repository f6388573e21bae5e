"""``fastness embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options


@options.takes_columns
def embed(
    bundle: Annotated[str, typer.Argument(help="A bundle's or a run's folder.")],
    data: Annotated[str, typer.Argument(help="Folder, archive, file or name of a data set.")],
    out: Annotated[Path, typer.Option(help="embeddings.parquet (ids and vectors) or .npy (vectors).")] = Path(
        "embeddings.parquet"
    ),
    normalize: Annotated[bool, typer.Option(help="Scale vectors to length 1.")] = True,
    precision: Annotated[str, typer.Option(help="float32; bf16; auto: bf16 where the hardware has it.")] = "float32",
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Write the embeddings of DATA; damaged items are left out and listed beside the file."""
    from fastness.bundle import load
    from fastness.core.errors import BadInput
    from fastness.core.files import atomic_path
    from fastness.data.manifest import printable

    if out.suffix not in {".parquet", ".npy"}:
        raise BadInput(f"--out {out}: give a name that ends in .parquet or .npy")
    loaded = load(bundle)
    embedded = loaded.embed_dataset(loaded.open(data, **columns), normalize=normalize, precision=precision)
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_path(out) as temporary:
        if out.suffix == ".npy":
            with temporary.open("wb") as handle:
                np.save(handle, embedded.vectors)
        else:
            n, dim = embedded.vectors.shape
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(embedded.vectors.reshape(-1)), dim)
            ids = pa.array([printable(name) for name in embedded.ids], pa.string())
            pq.write_table(pa.table({"id": ids, "vector": vectors}), temporary)
            assert len(ids) == n
    damaged = embedded.dataset.quarantine
    quarantine = out.with_suffix(".quarantine.csv")
    quarantine.unlink(missing_ok=True)  # an earlier run's
    if damaged:
        embedded.dataset.write_quarantine(quarantine)
    if json:
        options.print_json(
            {
                "out": str(out),
                "items": len(embedded.ids),
                "dim": int(embedded.vectors.shape[1]),
                "quarantined": len(damaged),
                "handled": dict(embedded.dataset.handled),
            }
        )
        return
    print(f"{out}: {embedded.vectors.shape[0]:,} vectors of {embedded.vectors.shape[1]} dimensions")
    if damaged:
        print(f"{quarantine}: {len(damaged)} damaged items left out")
    for what, count in embedded.dataset.handled.items():
        print(f"{what}: {count}")
