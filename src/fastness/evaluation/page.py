"""Pages: templates in the folder beside this file, rendered with what they share."""

from __future__ import annotations

from typing import Any


def render(template: str, **values: Any) -> str:
    """Return a page; names ending in ``.html.j2`` are escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fastness.evaluation", "pages"),
        autoescape=jinja2.select_autoescape(["html.j2"], default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = lambda value: f"{value:.3f}"
    environment.filters["signed"] = lambda value: f"{value:+.3f}"
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    environment.filters["sentence"] = lambda text: f"{text[:1].upper()}{text[1:]}"
    return environment.get_template(template).render(**values)
