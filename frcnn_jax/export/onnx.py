"""Exports a detector as ONNX, by jax2onnx, which the extra `onnx` installs.

A function for each canvas takes one image (B is 1) and returns padded detections;
normalization and NMS are inside. All share the parameters in one file, which is also
a `.safetensors` of ours.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, ShapeDtypeStruct
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from frcnn_jax.config import DetectorSpec
from frcnn_jax.detector import Detector, in_original_pixels
from frcnn_jax.export.folder import ARGUMENTS, RESULTS, Canvas, write_description
from frcnn_jax.files import new_folder
from frcnn_jax.models.parameters import abstract_detector
from frcnn_jax.weights.exporting import save_weights
from frcnn_jax.weights.files import import_extra

PARAMETERS = "parameters.safetensors"
OPSET = 23
_NOTES = "One image at a time: B is 1. The parameters are read along with a function."


def export_onnx(detector: Detector, path: str | Path) -> None:
    """Writes a folder with which ONNX Runtime detects objects.

    Args:
      detector: trained.
      path: of the new folder.

    Raises:
      UserError: if jax2onnx is not installed, or the folder exists and is not empty, or
        cannot be written.
    """
    import_extra("jax2onnx", "onnx")
    import onnx_ir

    with new_folder(Path(path)) as folder:
        save_weights(detector.to_weights(), folder / PARAMETERS)
        files = {}
        for canvas in detector.spec.resizing.canvases:
            model = _convert(detector.spec, canvas)
            _move_parameters(model.graph, folder / PARAMETERS)
            _tidy_constants(model)
            files[canvas] = f"{canvas[0]}x{canvas[1]}.onnx"
            onnx_ir.save(model, folder / files[canvas])
        write_description(
            folder,
            detector.spec,
            files,
            language="ONNX",
            parameters=PARAMETERS,
            arguments=ARGUMENTS,
            requires={"opset": OPSET},
            notes=_NOTES,
        )


def as_on_cpu(traced: ClosedJaxpr) -> Callable[..., list[Array]]:
    """Returns the function, with the CPU's branch of each `jax.lax.platform_dependent`.

    jax2onnx converts no choice between platforms. One inside of a nested `jax.jit` or
    loop stays.

    Args:
      traced: by `jax.make_jaxpr`.
    """
    jaxpr = traced.jaxpr

    def function(*arguments: Array) -> list[Array]:
        values = dict(zip(jaxpr.constvars, traced.consts, strict=True))
        values |= zip(jaxpr.invars, arguments, strict=True)

        def read(variable: Any) -> Any:
            is_literal = isinstance(variable, Literal)
            return variable.val if is_literal else values[variable]

        for equation in jaxpr.eqns:
            primitive, options = equation.primitive, equation.params
            if primitive.name == "platform_index":
                continue
            if platforms := options.get("branches_platforms"):
                inputs = map(read, equation.invars[1:])  # without the platform's index
                branch = next(
                    branch
                    for branch, names in zip(
                        options["branches"], platforms, strict=True
                    )
                    if names is None or "cpu" in names  # None: all others
                )
                results = jaxpr_as_fun(branch)(*inputs)
            else:
                inputs = map(read, equation.invars)
                results = primitive.bind(*inputs, **primitive.get_bind_params(options))
                results = results if primitive.multiple_results else [results]
            values |= zip(equation.outvars, results, strict=True)
        return [read(variable) for variable in jaxpr.outvars]

    return function


def _convert(spec: DetectorSpec, canvas: Canvas) -> Any:
    """Returns the function of one canvas; the parameters come before its arguments."""
    import jax2onnx

    graphdef, shapes = abstract_detector(spec.model, len(spec.class_names))

    def detect(
        parameters: dict[str, Array], images: Array, image_sizes: Array, scales: Array
    ) -> list[Array]:
        model = nnx.merge(graphdef, unflatten_dict(parameters, sep="."))
        for layer in (model.head.fc6, model.head.fc7):
            layer.dot_general = jax.lax.dot_general  # jax2onnx converts no barrier
        outputs = model(images, image_sizes, scales)
        # Without vmap: jax2onnx converts no batched gather.
        detections = model.image_detections(jax.tree.map(lambda x: x[0], outputs))
        results = in_original_pixels(detections, image_sizes[0], scales[0])._asdict()
        return [results[name][None] for name in RESULTS]

    parameters = dict(sorted(flatten_dict(shapes, sep=".").items()))
    arguments = {
        "images": ShapeDtypeStruct((1, *canvas, 3), jnp.uint8),
        "image_sizes": ShapeDtypeStruct((1, 2), jnp.float32),
        "scales": ShapeDtypeStruct((1, 2), jnp.float32),
    }
    # Of primitives only: jax2onnx would replace functions of jax.numpy by its own.
    traced = jax.make_jaxpr(detect)(parameters, *arguments.values())
    return jax2onnx.to_onnx(
        as_on_cpu(traced),
        [*parameters.values(), *arguments.values()],
        model_name="faster_rcnn",
        opset=OPSET,
        input_names=[*parameters, *arguments],
        output_names=list(RESULTS),
        return_mode="ir",
    )


def _move_parameters(graph: Any, file: Path) -> None:
    """Makes the parameters constants, whose values lie in a `.safetensors`."""
    import onnx_ir

    with file.open("rb") as content:
        start = 8 + int.from_bytes(content.read(8), "little")
        header = json.loads(content.read(start - 8))
    for value in [value for value in graph.inputs if value.name in header]:
        begin, end = header[value.name]["data_offsets"]
        graph.inputs.remove(value)
        value.const_value = onnx_ir.ExternalTensor(
            file.name,
            start + begin,
            end - begin,
            onnx_ir.DataType.FLOAT,
            shape=value.shape,
            name=value.name,
            base_dir=file.parent,
        )
        graph.register_initializer(value)


def _tidy_constants(model: Any) -> None:
    """Removes unused constants, and shrinks those that fill a `where` to one value.

    ONNX broadcasts it. As jax2onnx writes them, the zeros outside of the image take
    0.8 GB for full-width VGG16 on 608 x 1008 pixels. ONNX Runtime warns of unused ones.
    """
    import onnx_ir

    for graph in model.graphs():
        for value in list(graph.initializers.values()):
            # Nodes that were removed still count as users.
            is_used = any(node.graph is not None for node, _ in value.uses())
            if not is_used and not value.is_graph_output():
                del graph.initializers[value.name]
    for value in model.graph.initializers.values():
        selections = [node for node, _ in value.uses()]
        if any(
            node.op_type != "Where" or node.inputs[0].shape != value.shape
            for node in selections
        ):
            continue
        array = value.const_value.numpy()
        if array.size > 1 and (array == array.flat[0]).all():
            array = array.flat[:1].reshape([1] * array.ndim)
            value.const_value = onnx_ir.tensor(array, name=value.name)
            value.shape = onnx_ir.Shape(array.shape)
