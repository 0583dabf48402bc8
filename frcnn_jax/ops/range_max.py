"""Maxima over rectangles of a feature map, the heart of RoI pooling.

A rectangle of any size is covered by copies of one window, 1 or WINDOW cells long along
each axis, that overlap where its length is not a multiple of the window's. The maxima
over all four kinds of windows are the rows of one table, so that the maximum over a
rectangle is that of a few rows: copies of contiguous memory, which are cheap.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

# Windows of 1 and 4 cells, at most 3 side by side, cover 1 to 12 cells in one trip: the
# bins of all 7 x 7 RoIs inside a map of up to 70 cells.
WINDOW = 4
LOOK_UPS = 3

# RoIs of which the backward pass finds the maxima at once: as many as need no more
# memory for 128 RoIs, since a GPU waits for the host in each iteration.
CHUNK = 32


@jax.custom_vjp
def range_max(
    features: Float[Array, "h w c"],
    rows: tuple[Int[Array, "r p"], Int[Array, "r p"]],
    columns: tuple[Int[Array, "r q"], Int[Array, "r q"]],
) -> Float[Array, "r p q c"]:
    """Computes the maximum of every channel over each rectangle.

    The gradient goes to the first cell in reading order that holds the maximum, as in
    Caffe's and torchvision's RoI pooling.

    Args:
      features: [H, W, C] feature map.
      rows: first row and end of the rectangles, [R, P] each, within the map.
      columns: first column and end, [R, Q] each.

    Returns:
      [R, P, Q, C] maxima; 0 for a rectangle without a cell.

    Example:
      >>> features = jnp.arange(12.0).reshape(3, 4, 1)
      >>> rows = jnp.array([[0]]), jnp.array([[2]])
      >>> columns = jnp.array([[1, 0]]), jnp.array([[3, 4]])
      >>> print(range_max(features, rows, columns)[0, 0, :, 0])
      [6. 7.]
    """
    return _maxima(_window_maxima(features), features.shape[:2], rows, columns)


def _range_max_forward(features, rows, columns):
    maxima = range_max(features, rows, columns)
    return maxima, (features, rows, columns, maxima)


def _range_max_backward(residuals, cotangent):
    """Finds where the maxima came from, some rectangles at a time to save memory."""
    features, rows, columns, maxima = residuals
    height, width, channels = features.shape
    table = _window_maxima(features)
    cells = _window_cells(table, (height, width))
    channel = jnp.arange(channels)[None, None, None]

    def add(gradient, rectangles):
        rows, columns, maxima, cotangent = rectangles
        first = _first_cells(table, cells, maxima, (height, width), rows, columns)
        # One flat index: on the CPU this scatter is three times as fast as one of two.
        entries = first.astype(jnp.int32) * channels + channel
        cotangent = jnp.where(_is_empty(rows, columns), 0.0, cotangent).astype(dtype)
        return gradient.at[entries].add(cotangent, mode="promise_in_bounds"), None

    chunks = jax.tree.map(_split, (rows, columns, maxima, cotangent))
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    gradient = jnp.zeros(features.size, dtype)
    gradient, _ = jax.lax.scan(add, gradient, chunks)
    return gradient.reshape(features.shape).astype(features.dtype), None, None


range_max.defvjp(_range_max_forward, _range_max_backward)


def _split(x: Array) -> Array:
    """Splits the first axis into chunks; the last one is filled up with zeros."""
    num_chunks = -(-x.shape[0] // CHUNK)
    filling = num_chunks * CHUNK - x.shape[0]
    x = jnp.pad(x, ((0, filling), *[(0, 0)] * (x.ndim - 1)))
    return x.reshape(num_chunks, CHUNK, *x.shape[1:])


def _is_empty(rows, columns):
    """Marks empty rectangles, [R, P, Q, 1]."""
    (y_begin, y_end), (x_begin, x_end) = rows, columns
    empty = (y_end <= y_begin)[:, :, None] | (x_end <= x_begin)[:, None]
    return empty[..., None]


def _maxima(table, map_size, rows, columns):
    empty = _is_empty(rows, columns)

    def update(maxima, table_rows):
        for row in table_rows:
            maxima = jnp.maximum(maxima, _look_up(table, row))
        # After the look-ups XLA would fuse this into whatever reads the maxima.
        return jnp.where(empty, 0.0, maxima)

    shape = rows[0].shape + columns[0].shape[1:] + table.shape[1:]
    return _over_look_ups(
        update, jnp.full(shape, -jnp.inf, table.dtype), map_size, rows, columns
    )


def _first_cells(table, cells, maxima, map_size, rows, columns):
    """Finds the first cell (row * width + column) that holds each maximum."""

    def update(first, table_rows):
        for row in table_rows:
            found = _look_up(table, row) == maxima
            first = jnp.minimum(first, jnp.where(found, _look_up(cells, row), first))
        return first

    last = map_size[0] * map_size[1] - 1
    first = jnp.full(maxima.shape, last, cells.dtype)
    return _over_look_ups(update, first, map_size, rows, columns)


def _look_up(table, row):
    return table.at[row].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _over_look_ups(update, state, map_size, rows, columns):
    """Gives `update` the table's rows that cover the rectangles, LOOK_UPS**2 at a time.

    There is one trip unless an interval is longer than WINDOW * LOOK_UPS; the map's
    size bounds their number.
    """
    height, width = map_size
    y_is_long, y_cells, y_trips = _cover(*rows, height)
    x_is_long, x_cells, x_trips = _cover(*columns, width)
    part = 2 * y_is_long[:, :, None] + x_is_long[:, None]  # [R, P, Q]

    def trip(y_trip, x_trip, state):
        # [y, x, R, P, Q]
        y = y_cells(y_trip)[:, None, :, :, None]
        x = x_cells(x_trip)[None, :, :, None]
        table_rows = (part[None, None] * height + y) * width + x
        return update(state, table_rows.reshape(LOOK_UPS**2, *part.shape))

    def next_trip(_, carry):
        y_trip, x_trip, state = carry
        is_last = x_trip + 1 == x_trips
        y_trip = jnp.where(is_last, y_trip + 1, y_trip)
        x_trip = jnp.where(is_last, 0, x_trip + 1)
        return y_trip, x_trip, trip(y_trip, x_trip, state)

    first = (jnp.int32(0), jnp.int32(0), trip(0, 0, state))
    return jax.lax.fori_loop(1, y_trips * x_trips, next_trip, first)[2]


def _cover(begin, end, num_cells):
    """Returns each interval's kind of window, its copies' first cells, and the trips.

    The first cells, [LOOK_UPS, R, P], are a function of the trip. The copies lie end to
    end, the last ones pushed back inside the interval.
    """
    length = jnp.maximum(end - begin, 1)
    is_long = (length >= WINDOW).astype(jnp.int32)
    window = jnp.where(is_long == 1, WINDOW, 1)
    # Shorter intervals than WINDOW take one trip as well.
    trips = -(-length.max(initial=1) // (LOOK_UPS * WINDOW))

    def cells(trip):
        look_up = trip * LOOK_UPS + jnp.arange(LOOK_UPS)[:, None, None]
        step = jnp.minimum(look_up * window[None], (length - window)[None])
        return jnp.clip(begin[None] + step, 0, num_cells - 1)

    return is_long, cells, trips


def _window_maxima(features: Float[Array, "h w c"]) -> Float[Array, "n c"]:
    """Computes the maxima over the windows of 1 x 1, 1 x 4, 4 x 1 and 4 x 4 cells.

    Row `(part * H + y) * W + x` is the window that begins at (y, x). Windows that leave
    the map hold garbage, which is never read.
    """
    _, width, channels = features.shape
    cells = features.reshape(-1, channels)
    across = functools.reduce(jnp.maximum, _shifts(cells, 1))
    down = functools.reduce(jnp.maximum, _shifts(cells, width))
    both = functools.reduce(jnp.maximum, _shifts(down, 1))
    return jnp.concatenate([cells, across, down, both])


def _window_cells(
    table: Float[Array, "n c"], map_size: tuple[int, int]
) -> Int[Array, "n c"]:
    """Finds the first cell that holds the maximum, for each row of the table."""
    height, width = map_size
    last = height * width - 1

    def first(shifted_values, shifted_cells, maxima):
        result = jnp.full(maxima.shape, last, dtype)
        for values, cells in zip(shifted_values, shifted_cells, strict=True):
            candidate = jnp.where(values == maxima, cells, dtype(last))
            result = jnp.minimum(result, candidate)
        return result

    values, max_across, max_down, max_both = jnp.split(table, 4)
    dtype = jnp.int16 if last <= jnp.iinfo(jnp.int16).max else jnp.int32
    cells = jnp.arange(height * width, dtype=dtype)[:, None]
    across = first(_shifts(values, 1), [cells + i for i in range(WINDOW)], max_across)
    down = first(
        _shifts(values, width), [cells + i * width for i in range(WINDOW)], max_down
    )
    both = first(_shifts(max_down, 1), _shifts(down, 1), max_both)
    cells = jnp.broadcast_to(cells, values.shape)
    return jnp.concatenate([cells, across, down, both])


def _shifts(x: Array, step: int) -> list[Array]:
    """Returns WINDOW copies, each shifted down by `step` rows more than the last."""
    padded = jnp.pad(x, ((0, (WINDOW - 1) * step), (0, 0)))
    return [padded[i * step : i * step + x.shape[0]] for i in range(WINDOW)]
