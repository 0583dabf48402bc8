"""The `frcnn` command: train (also `train.py`), evaluate, report, and more.

A user's mistake ends with one line on standard error and exit code 2.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from frcnn_jax.config import PREPROCESSINGS, Config
from frcnn_jax.config.loading import load_config, override_config, read_config
from frcnn_jax.errors import UserError
from frcnn_jax.files import expand_home


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the `frcnn` command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = {
        "train": _train,
        "evaluate": evaluate,
        "predict": predict,
        "report": report,
        "benchmark": benchmark,
        "init-config": init_config,
        "check-data": check_data,
        "export": export,
        "import-weights": import_weights,
        "export-weights": export_weights,
    }
    summaries = [f"  {name:15} {item.__doc__}" for name, item in commands.items()]
    parser = _Parser(
        prog="frcnn",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Faster R-CNN (VGG16) in JAX. `frcnn COMMAND --help` explains:\n\n"
        + "\n".join(summaries),
    )
    parser.add_argument("command", choices=commands, metavar="command")
    _exit_cleanly(
        lambda: commands[parser.parse_args(arguments[:1]).command](arguments[1:])
    )


def train(arguments: Sequence[str] | None = None) -> None:
    """Runs `train.py`, which is `frcnn train`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _exit_cleanly(lambda: _train(arguments, "train.py"))


def evaluate(arguments: Sequence[str]) -> None:
    """Evaluates a run's checkpoint, or a config's pretrained detector."""
    parser = _Parser(
        prog="frcnn evaluate",
        description="Evaluates a checkpoint of a run (--work-dir DIR), or the "
        "whole detector that a config starts from (--config PATH --model.pretrained "
        "FILE [--field value ...]).",
    )
    parser.add_argument("--work-dir", type=expand_home, help="run directory")
    parser.add_argument(
        "--config", type=expand_home, help="config file, as for training"
    )
    parser.add_argument("--split", help="split to evaluate; by default the test split")
    _add_step(parser)
    options, overrides = parser.parse_known_args(arguments)
    if options.config is not None:
        if options.step != "latest":
            raise UserError("--step needs --work-dir without --config")
        if options.work_dir is not None:
            overrides += ["--work-dir", str(options.work_dir)]
        config = override_config(
            load_config(options.config), overrides, "frcnn evaluate --config PATH"
        )
    elif options.work_dir is None:
        raise UserError(
            f"expected --work-dir DIR or --config PATH, got {' '.join(arguments)!r}"
        )
    elif overrides:
        raise UserError(
            f"{overrides[0]}: a run is evaluated with its own config; expected "
            "--config PATH to change it"
        )
    _start()
    from frcnn_jax.evaluation import evaluate as evaluation

    if options.config is not None:
        evaluation.evaluate_pretrained(config, options.split)
    else:
        evaluation.evaluate_run(options.work_dir, options.split, options.step)


def report(arguments: Sequence[str]) -> None:
    """Writes the report of evaluated runs."""
    parser = _Parser(
        prog="frcnn report",
        description="Writes report.html and report.md, of one run or of several side "
        "by side, into the first run directory; see docs/report.md.",
    )
    parser.add_argument(
        "runs", nargs="+", type=expand_home, metavar="run", help="directory"
    )
    parser.add_argument("--split", help="evaluated split; by default the test split")
    _add_step(parser)
    options = parser.parse_args(arguments)
    _start()
    from frcnn_jax.report.page import write_report

    step = None if options.step == "latest" else options.step
    print(write_report(options.runs, options.split, step))


def predict(arguments: Sequence[str]) -> None:
    """Detects objects in pictures; exits with 1 if some could not be read."""
    parser = _Parser(
        prog="frcnn predict",
        description="Detects objects in images. Writes DIR/predictions.jsonl, a row "
        "per image, and draws the detections into DIR/pictures/.",
    )
    parser.add_argument(
        "model", help="run directory, checkpoint, .safetensors, address or name"
    )
    parser.add_argument(
        "images", nargs="+", metavar="image", help="file, folder or glob pattern"
    )
    parser.add_argument("--out", type=expand_home, required=True, metavar="DIR")
    _add_step(parser)
    _add_detection_options(parser)
    parser.add_argument(
        "--classes", nargs="+", default=(), metavar="NAME", help="keep these only"
    )
    parser.add_argument(
        "--no-pictures", dest="pictures", action="store_false", help="draw nothing"
    )
    parser.add_argument(
        "--coco",
        type=expand_home,
        metavar="FILE",
        help="write the detections as a COCO data set with scores, too",
    )
    options = vars(parser.parse_args(arguments))
    model, images = options.pop("model"), options.pop("images")
    _start()
    from frcnn_jax import predict as prediction

    options["classes"] = tuple(options["classes"])
    broken = prediction.predict(model, images, prediction.Options(**options))
    for error in broken:
        print(f"error: {error}", file=sys.stderr)
    if broken:
        sys.exit(1)


def benchmark(arguments: Sequence[str]) -> None:
    """Times detection on this machine."""
    parser = _Parser(
        prog="frcnn benchmark",
        description="Times detection on this machine for each canvas and batch size: "
        "from pixels on the host to detections on the host. Reading and resizing the "
        "files is not included.",
    )
    parser.add_argument(
        "model", help="run directory, checkpoint, .safetensors, address or name"
    )
    _add_step(parser)
    parser.add_argument(
        "--batch-sizes",
        type=int,
        nargs="+",
        default=[1, 4],
        metavar="N",
        help="images computed at once (default: 1 4)",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=10,
        metavar="N",
        help="timed runs per setting, after one warm-up run (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    _start()
    from frcnn_jax import benchmark as timing

    timing.benchmark(
        options.model,
        options.step,
        batch_sizes=options.batch_sizes,
        repeats=options.repeats,
    )


def init_config(arguments: Sequence[str]) -> None:
    """Writes a config for a folder of annotated images."""
    parser = _Parser(
        prog="frcnn init-config",
        description="Looks at a folder of annotated images, in a format that "
        "docs/custom-data.md describes, and writes a config that trains on it: splits, "
        "class names, and sizes that fit images and objects.",
    )
    parser.add_argument("root", type=expand_home, metavar="DIR", help="the folder")
    parser.add_argument(
        "output", type=expand_home, metavar="OUT.py", help="new config file"
    )
    parser.add_argument(
        "--source",
        choices=("coco", "yolo", "voc", "csv"),
        help="format of the folder (default: detected)",
    )
    options = parser.parse_args(arguments)
    _start()
    from frcnn_jax import init_config as writing

    writing.write_config(options.root, options.output, options.source)


def check_data(arguments: Sequence[str]) -> None:
    """Checks the data of a config; exits with 1 if something is wrong."""
    parser = _Parser(
        prog="frcnn check-data",
        description="Reads all images and annotations that a config uses, and the "
        "others in its folder, and lists what is wrong with them: see "
        "docs/custom-data.md. Exits with 1 if there are mistakes. Fields of the config "
        "may follow: [--field value ...].",
    )
    parser.add_argument(
        "--config", type=expand_home, help="config file, as for training"
    )
    parser.add_argument(
        "--json", type=expand_home, metavar="FILE", help="write all findings as JSON"
    )
    parser.add_argument(
        "--html",
        type=expand_home,
        metavar="FILE",
        help="write a page with plots and pictures",
    )
    parser.add_argument(
        "--work-dir",
        type=expand_home,
        metavar="RUN",
        help="also list labels that this run's detector disagrees with; without "
        "--config the data are those of the run",
    )
    options, overrides = parser.parse_known_args(arguments)
    config = _config_to_check(options.config, options.work_dir, overrides)
    _start()
    from frcnn_jax.checking import command

    is_wrong = command.check_data(
        config, options.work_dir, json_path=options.json, page_path=options.html
    )
    if is_wrong:
        sys.exit(1)


def _config_to_check(
    path: Path | None, work_dir: Path | None, overrides: Sequence[str]
) -> Config:
    if path is not None:
        config = load_config(path)
    elif work_dir is not None:
        config = read_config(work_dir / "config.json")
    else:
        raise UserError("expected --config PATH or --work-dir RUN, got neither")
    return override_config(config, overrides, "frcnn check-data --config PATH")


def export(arguments: Sequence[str]) -> None:
    """Exports a detector for programs without frcnn_jax."""
    parser = _Parser(
        prog="frcnn export",
        description="Writes a trained detector into a folder: a function for each "
        "canvas, the parameters, and detector.json, which explains them. jax alone "
        "runs StableHLO, on a CPU, NVIDIA GPU or TPU; ONNX Runtime runs ONNX. See "
        "docs/export.md.",
    )
    parser.add_argument(
        "source", help="run directory, checkpoint, .safetensors, address or name"
    )
    parser.add_argument("output", type=expand_home, help="new folder")
    parser.add_argument(
        "--format",
        choices=("stablehlo", "onnx"),
        default="stablehlo",
        help="language of the functions; onnx needs the extra onnx (default: "
        "%(default)s)",
    )
    _add_step(parser)
    options = parser.parse_args(arguments)
    _start()
    from frcnn_jax.detector import Detector
    from frcnn_jax.export import export_onnx, export_stablehlo

    write = {"stablehlo": export_stablehlo, "onnx": export_onnx}[options.format]
    detector = Detector.load(options.source, options.step)
    write(detector, options.output)
    print(f"wrote {options.output}, from {detector.source}")


def _add_detection_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=0.5,
        metavar="S",
        help="detections score more than this, 0 to 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--max-detections",
        type=int,
        default=100,
        metavar="N",
        help="per image, the best ones (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="images computed at once (default: %(default)s)",
    )


def _add_step(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--step",
        type=_step,
        default="latest",
        metavar="N|latest|best",
        help="checkpoint of the run (default: %(default)s)",
    )


def _step(text: str) -> int | str:
    if text in ("latest", "best"):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number, latest or best")
    return int(text)


def import_weights(arguments: Sequence[str]) -> None:
    """Converts weights of another project into one file of ours."""
    parser = _Parser(
        prog="frcnn import-weights",
        description="Converts VGG16, or a whole detector with it, into a .safetensors "
        "for --model.pretrained, which knows how its pixels are preprocessed. Reads "
        "torchvision, timm, Caffe-derived and Keras VGG16, detectors of "
        "simple-faster-rcnn-pytorch and of chainercv, and .npz of layers; see "
        "docs/weights.md. Nothing in a file is executed.",
    )
    parser.add_argument("source", help="file, hf://OWNER/NAME, URL or chainercv:voc07")
    parser.add_argument("output", type=expand_home, help="new .safetensors file")
    parser.add_argument(
        "--preprocessing",
        choices=PREPROCESSINGS,
        metavar="NAME",
        help="how pixels are preprocessed, if the file does not say or its project "
        f"differs: {', '.join(PREPROCESSINGS)}",
    )
    for name, default in (("scales", "8 16 32"), ("ratios", "0.5 1 2")):
        parser.add_argument(
            f"--anchor-{name}",
            type=float,
            nargs="+",
            metavar="N",
            help=f"anchor {name} that a detector was trained with, if not {default}",
        )
    parser.add_argument(
        "--class-names",
        nargs="+",
        metavar="NAME",
        help="classes of a detector, in order, if they are not VOC's twenty",
    )
    options = vars(parser.parse_args(arguments))
    source, output = options.pop("source"), options.pop("output")
    _start()
    from frcnn_jax.weights import convert

    given = {name: value for name, value in options.items() if value is not None}
    convert.import_file(source, output, **given)


def export_weights(arguments: Sequence[str]) -> None:
    """Writes the weights of a run or of a file, for other projects, too."""
    parser = _Parser(
        prog="frcnn export-weights",
        description="Writes the weights of a run's checkpoint, or of a file that "
        "import-weights reads: frcnn_jax (.safetensors, for --model.pretrained), or a "
        "state dict of torchvision's VGG16 or of simple-faster-rcnn-pytorch (.pth or "
        ".safetensors).",
    )
    parser.add_argument("source", help="run directory, or weight file")
    parser.add_argument(
        "output", type=expand_home, help="new .safetensors or .pth file"
    )
    parser.add_argument(
        "--format",
        choices=("frcnn_jax", "torchvision", "chenyuntc"),
        default="frcnn_jax",
        help="format of the output (default: %(default)s)",
    )
    _add_step(parser)
    options = parser.parse_args(arguments)
    _start()
    from frcnn_jax.weights import convert

    convert.export(options.source, options.output, options.format, options.step)


def _train(arguments: Sequence[str], program: str = "frcnn train") -> None:
    """Trains a detector and evaluates it, or continues a run."""
    parser = _Parser(prog=program, add_help=False)
    parser.add_argument("--config", type=expand_home)
    options, overrides = parser.parse_known_args(arguments)
    if options.config is None and not {"-h", "--help"} & set(overrides):
        raise UserError("--config is missing, expected e.g. --config configs/shapes.py")
    config = load_config(options.config) if options.config else Config()
    config = override_config(config, overrides, f"{program} --config PATH")
    _start()
    from frcnn_jax.training import train as training

    training.train(config)


def _start() -> None:
    """Sets up messages. JAX is imported only after this, so that --help is quick."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("frcnn_jax").setLevel(logging.INFO)
    # Orbax logs tracebacks of what it also raises, and that ends as one line.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # It warns of every value inside a loop whose type it does not know.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    sys.unraisablehook = _report_unraisable
    # XLA logs 3 kB as an "error" for every program that it finds in the cache, on the
    # CPU that compiled it. Real errors are raised. Read once, when JAX is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _report_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Reports as usual, but not that threads outlive a failed checkpoint."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _exit_cleanly(function: Callable[[], None]) -> None:
    try:
        function()
    except UserError as error:
        message = str(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # as of `frcnn train --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that must not be written to
        message = f"{error.filename or 'input or output'}: {error.strerror or error}"
    else:
        return
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
