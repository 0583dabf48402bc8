"""`frcnn check-data`: checks, prints, and writes what is asked for."""

import json
from pathlib import Path

from frcnn_jax.checking.check import check
from frcnn_jax.checking.page import write_page
from frcnn_jax.checking.text import print_check
from frcnn_jax.config import Config
from frcnn_jax.errors import UserError
from frcnn_jax.files import check_new_file, replace_text


def check_data(
    config: Config,
    work_dir: Path | None = None,
    *,
    json_path: Path | None = None,
    page_path: Path | None = None,
) -> bool:
    """Checks the data of a config.

    Args:
      config: says which data, how images are resized, and which anchors there are.
      work_dir: of a run, whose detector may dispute labels.
      json_path: file to write everything to.
      page_path: HTML file to write plots and pictures to.

    Returns:
      Whether there is a mistake.

    Raises:
      UserError: if the data cannot be opened, there is no such run, or a file cannot
        be written.
    """
    for path in (json_path, page_path):
        if path is not None:
            check_new_file(path)
    if json_path is not None and json_path == page_path:
        raise UserError(f"{json_path}: both --json and --html, expected two files")
    if work_dir is None:
        checked = check(config)
    else:  # The detector first, as there may be none; it needs JAX, the rest does not.
        from frcnn_jax.checking.detection import add_suspects
        from frcnn_jax.detector import Detector

        detector = Detector.load(work_dir)
        checked = add_suspects(check(config), detector)
    print_check(checked)
    if json_path is not None:
        replace_text(json_path, json.dumps(checked.to_dict(), indent=1) + "\n")
    if page_path is not None:
        write_page(checked, page_path)
    return checked.is_wrong
