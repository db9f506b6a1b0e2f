"""HTML pages from the Jinja templates in `router/web/templates`, every value escaped."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from mastering.contract import ENGINE_VERSION
from router.web.pages.static_files import StaticFile, static_digest


def rendered(template: str, **values: object) -> StaticFile:
    """The page that `template` makes of `values`, ready to be sent. A value that is missing raises UndefinedError."""
    text = (
        _jinja()
        .get_template(template)
        .render(static=f"/static/{static_digest()}", engine_version=ENGINE_VERSION, **values)
    )
    return StaticFile.of("text/html; charset=utf-8", text.encode())


@cache
def _jinja() -> Environment:
    return Environment(
        loader=PackageLoader("router.web"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
