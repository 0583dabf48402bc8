"""The order of the classes, which decides their labels."""

from collections.abc import Sequence

import numpy as np

from frcnn_jax.errors import UserError


def order_classes(
    own_names: Sequence[str], class_names: Sequence[str] | None, data_set: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """Orders the classes of a data set that has names for its labels.

    Args:
      own_names: these names, in the order of its labels.
      class_names: the same names in the order asked for; None for its own.
      data_set: what to call the data set in the error.

    Returns:
      The names in order, and the new label of each of its labels, [L] int32.

    Raises:
      UserError: if the names are not the same.

    Example:
      >>> order_classes(("cat", "dog"), ("dog", "cat"), "pets")
      (('dog', 'cat'), array([1, 0], dtype=int32))
    """
    ordered = tuple(class_names or own_names)
    if sorted(ordered) != sorted(own_names):
        raise UserError(
            f"class_names is {', '.join(ordered)}, expected those of {data_set} in any "
            f"order: {', '.join(own_names)}"
        )
    return ordered, np.array([ordered.index(name) for name in own_names], np.int32)
