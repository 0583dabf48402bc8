"""Renders the templates of this package: pages that need no other file, no network."""


def render(template: str, **values: object) -> str:
    """Renders a page.

    Args:
      template: name of its file.
      **values: what the template uses; all text in them is escaped.
    """
    import jinja2  # Only here, since only pages need it.

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("frcnn_jax", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**values)
