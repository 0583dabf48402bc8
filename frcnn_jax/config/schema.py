"""Configuration: frozen dataclasses that refuse wrong types and impossible values.

The text behind each field is its `--help`. `loading` reads and stores configs.
"""

import dataclasses
import os
from typing import Annotated, Literal

from frcnn_jax.config.preprocessing import (
    PIXEL_MEANS,
    PIXEL_SCALES,
    PREPROCESSINGS,
    Colors,
    Preprocessing,
)
from frcnn_jax.config.ranges import Range, Section
from frcnn_jax.errors import UserError

Canvases = tuple[tuple[int, int], ...]
Deltas = tuple[float, float, float, float]
Numbers = tuple[float, ...]

COUNT = Range(1, 2**31 - 1)  # steps, which JAX counts in int32
SIZE = Range(1, 10**6)  # slots of an array
PIXELS = Range(16, 2**14)  # at least one cell of the feature map
FRACTION = Range(0, 1)
INNER_FRACTION = Range(0, 1, above_low=True, below_high=True)
POSITIVE = Range(1e-9, 10**9)  # with its square, far from the limits of float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resizing(Section, path="resizing"):
    """How an image is resized and padded."""

    shorter_side: Annotated[int, PIXELS] = 600
    """Length that the shorter side is resized to, in pixels."""
    longer_side: Annotated[int, PIXELS] = 1000
    """Largest length of the longer side; an image that would exceed it becomes
    smaller."""
    keep_aspect_ratio: bool = True
    """Whether images keep their aspect ratio; otherwise they are stretched to exactly
    shorter_side and longer_side."""
    canvases: Annotated[Canvases, PIXELS] = ((608, 800), (608, 1008), (1008, 608))
    """Sizes (height, width) that images are padded to, in pixels; each image takes
    the smallest it fits into."""

    @classmethod
    def from_config(cls, data: "DataConfig") -> "Resizing":
        """Takes these fields of a data config."""
        fields = dataclasses.fields(Resizing)
        return Resizing(**{field.name: getattr(data, field.name) for field in fields})

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        super().__post_init__()
        shorter, longer = self.shorter_side, self.longer_side
        self._check(
            longer >= shorter, "longer_side", f"at least shorter_side, {shorter}"
        )
        self._check(
            any(min(c) >= shorter and max(c) >= longer for c in self.canvases),
            "canvases",
            f"room for images of {shorter} x {longer} pixels "
            "(shorter_side x longer_side)",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Resizing, path="data"):
    """Which images, and how they reach the device."""

    source: Literal["voc", "coco", "yolo", "csv", "tfds", "shapes"] = "voc"
    """A folder in one of four formats (docs/custom-data.md), a prepared TensorFlow
    Datasets builder, or drawn shapes."""
    root: str = ""
    """The folder, or the one that holds several; for TFDS the data directory, its
    default if empty."""
    name: str = "voc/2007"
    """TFDS builder name (source tfds only)."""
    train_split: str = "trainval"
    """Split to train on. A slice, as in all[:80%], takes a part of it; + joins two, of
    one folder or of several: VOC2007/trainval+VOC2012/trainval."""
    validation_split: str = ""
    """Split that every checkpoint is validated on; none if empty."""
    test_split: str = "test"
    """Split to evaluate on."""
    split_seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    """Decides which images a slice has (folders only)."""
    class_names: tuple[str, ...] | None = None
    """Class names in order; by default those of the data set (voc, and csv without
    classes.csv: sorted)."""
    rename_classes: tuple[tuple[str, str], ...] = ()
    """Pairs of a class of the data set and its new name; equal names make one class."""
    drop_other_classes: bool = False
    """Leave out objects whose class is not in class_names, instead of refusing them."""
    min_object_size: Annotated[float, Range(0, 2**14)] = 0.0
    """Objects whose shorter side is less, in pixels of the original image, count as
    difficult."""
    difficult_objects: Literal["ignore", "use", "drop"] = "ignore"
    """What to do with difficult objects and crowds: neither train on nor count them,
    use them as the others, or leave them out, so that finding one is a mistake."""
    skip_empty_images: bool = False
    """Leave out images without objects, or with difficult ones only."""
    limit: Annotated[int | None, COUNT] = None
    """Use only the first images of every split, this many; all by default."""
    skip_broken: bool = False
    """Leave out images that cannot be decoded (every image is read once at start; a
    drawn one is never broken)."""
    num_train_images: Annotated[int, SIZE] = 2000
    """Images drawn for training (source shapes only)."""
    num_test_images: Annotated[int, SIZE] = 128
    """Images drawn for evaluation (source shapes only)."""
    shapes_size: Annotated[tuple[int, int], PIXELS] = (128, 128)
    """Height and width of a drawn image, in pixels (source shapes only)."""
    max_objects: Annotated[int, SIZE] = 64
    """Slots for objects per image; more in an image is an error."""
    flip_probability: Annotated[float, FRACTION] = 0.5
    """Probability of a horizontal flip in training."""
    vertical_flip_probability: Annotated[float, FRACTION] = 0.0
    """Probability of a vertical flip in training."""
    rotation_probability: Annotated[float, FRACTION] = 0.0
    """Probability of a rotation by 90, 180 or 270 degrees in training; canvases need
    room for the images upright and on their sides."""
    scale_range: Annotated[tuple[float, float], Range(0.1, 10)] = (1.0, 1.0)
    """Smallest and largest factor by which the size of training images varies;
    canvases need room for the largest."""
    min_crop: Annotated[float, Range(0.1, 1)] = 1.0
    """Training images are replaced by random enlarged crops that keep all objects; the
    sides of a crop are at least this fraction of the image's."""
    color_jitter: Annotated[float, FRACTION] = 0.0
    """Brightness, contrast and saturation of training images change by up to this
    fraction."""
    image_cache: str = ""
    """Folder that keeps decoded and resized images for later epochs and runs; none if
    empty."""
    image_cache_gigabytes: Annotated[float, Range(0, 10**6)] = 20.0
    """Size limit of the folder, in 10**9 bytes; a full one keeps what it has."""
    num_workers: Annotated[int, Range(0, 1024)] = 0
    """Processes that read and resize images; 0 reads in threads of this process."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        super().__post_init__()
        for name in ("train_split", "test_split"):
            self._check(getattr(self, name) != "", name, "the name of a split")
        self._check(
            self.source != "shapes" or self.train_split != self.test_split,
            "test_split",
            "another split than data.train_split: shapes of one name are one data set",
        )
        smallest, largest = self.scale_range
        self._check(smallest <= largest, "scale_range", "the smaller factor first")
        has_one_size = smallest == largest == self.min_crop == 1.0
        self._check(
            has_one_size or not self.image_cache,
            "image_cache",
            "none, as scale_range or min_crop makes every training image another one",
        )
        self._check_classes()

    def without_augmentation(self) -> "DataConfig":
        """Returns what evaluation uses: nothing is random."""
        return dataclasses.replace(
            self,
            flip_probability=0.0,
            vertical_flip_probability=0.0,
            rotation_probability=0.0,
            scale_range=(1.0, 1.0),
            min_crop=1.0,
            color_jitter=0.0,
        )

    def _check_classes(self) -> None:
        names = self.class_names
        is_list = names is None or 0 < len(names) == len(set(names))
        self._check(is_list, "class_names", "different names, at least one")
        self._check(
            names is not None or not self.drop_other_classes,
            "class_names",
            "names, as drop_other_classes is set",
        )
        old_names = [old for old, _ in self.rename_classes]
        is_unique = len(set(old_names)) == len(old_names)
        self._check(is_unique, "rename_classes", "one new name for each old one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProposalConfig(Section, path="model.proposals"):
    """How the region proposal network's boxes are ranked and filtered."""

    rank_by: Literal["probability", "logit"] = "probability"
    """Rank by the softmax probability of an object or, like the notebook, its logit."""
    pre_nms_train: Annotated[int, SIZE] = 12000
    """Best boxes that enter NMS in training."""
    post_nms_train: Annotated[int, SIZE] = 2000
    """Proposals that NMS keeps in training."""
    pre_nms_test: Annotated[int, SIZE] = 6000
    """Best boxes that enter NMS in detection."""
    post_nms_test: Annotated[int, SIZE] = 300
    """Proposals that NMS keeps in detection."""
    iou_threshold: Annotated[float, INNER_FRACTION] = 0.7
    """NMS drops boxes that overlap a better one by more than this IoU."""
    min_size: Annotated[float, Range(0, 2**14)] = 16.0
    """Proposals with a side below this many pixels of the original image are
    dropped."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnchorTargetConfig(Section, path="model.anchor_targets"):
    """Which anchors the region proposal network learns from."""

    num_samples: Annotated[int, SIZE] = 256
    """Anchors sampled per image."""
    positive_fraction: Annotated[float, FRACTION] = 0.5
    """Largest share of positives among them."""
    positive_iou: Annotated[float, Range(0, 1, above_low=True)] = 0.7
    """An anchor is positive from this IoU on."""
    negative_iou: Annotated[float, FRACTION] = 0.3
    """An anchor is negative below this IoU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProposalTargetConfig(Section, path="model.proposal_targets"):
    """Which proposals the RoI head learns from."""

    num_samples: Annotated[int, SIZE] = 128
    """Proposals sampled per image."""
    positive_fraction: Annotated[float, FRACTION] = 0.25
    """Largest share of objects among them."""
    positive_iou: Annotated[float, Range(0, 1, above_low=True)] = 0.5
    """A proposal is an object from this IoU on."""
    negative_iou_high: Annotated[float, FRACTION] = 0.5
    """Upper limit of the background's IoU, excluded."""
    negative_iou_low: Annotated[float, FRACTION] = 0.0
    """Lower limit of the background's IoU, included."""
    append_gt: bool = True
    """Whether the annotated boxes are proposals, too."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        super().__post_init__()
        low, high = self.negative_iou_low, self.negative_iou_high
        expected = f"at least negative_iou_low, {low}"
        self._check(low <= high, "negative_iou_high", expected)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig(Section, path="model.losses"):
    """How the four losses are scaled."""

    normalizer: Literal["positives", "samples"] = "samples"
    """What divides the localization losses: positives (notebook) or all samples."""
    localization_weight: Annotated[float, POSITIVE] = 1.0
    """Weight of the localization losses; 10 in the notebook."""
    rpn_beta: Annotated[float, POSITIVE] = 1.0 / 9.0
    """Smooth L1 beta of the region proposal network (1 / sigma**2)."""
    roi_beta: Annotated[float, POSITIVE] = 1.0
    """Smooth L1 beta of the RoI head."""
    delta_std: Annotated[Deltas, POSITIVE] = (0.1, 0.1, 0.2, 0.2)
    """The RoI head predicts its deltas divided by these."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionConfig(Section, path="model.detection"):
    """What is reported as a detection."""

    score_threshold: Annotated[float, FRACTION] = 0.05
    """Detections score more than this."""
    iou_threshold: Annotated[float, INNER_FRACTION] = 0.3
    """NMS within a class drops boxes that overlap by more than this IoU."""
    max_detections: Annotated[int, SIZE] = 100
    """Detections per image at most."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(Section, path="model"):
    """Faster R-CNN: the network, its targets, losses and detections."""

    width: Annotated[float, Range(0.01, 16)] = 1.0
    """Multiplies the channels of VGG16."""
    backbone_init: Literal["he", "near_identity"] = "he"
    """Kernels VGG16 starts from; near_identity if it learns from scratch."""
    frozen_blocks: Annotated[int, Range(0, 5)] = 2
    """VGG16 blocks, from the first, that are not trained."""
    rpn_channels: Annotated[int, Range(1, 2**16)] = 512
    """Channels of the region proposal network's 3 x 3 convolution."""
    head_channels: Annotated[int, Range(1, 2**16)] = 4096
    """Channels of fc6 and fc7."""
    activation: Literal["relu", "none"] = "relu"
    """After the RPN's 3 x 3 convolution, fc6 and fc7; the notebook has none."""
    dropout: Annotated[float, Range(0, 1, below_high=True)] = 0.0
    """Dropout rate after fc6 and fc7 in training."""
    anchor_scales: Annotated[Numbers, Range(1 / 16, 2**10)] = (8.0, 16.0, 32.0)
    """Sides of the square anchors, in cells of 16 pixels."""
    anchor_ratios: Annotated[Numbers, Range(0.01, 100)] = (0.5, 1.0, 2.0)
    """Heights of the anchors divided by their widths."""
    pooling: Literal["max", "align"] = "max"
    """RoI max pooling (Fast R-CNN) or RoIAlign (Mask R-CNN)."""
    rounding: Literal["round", "floor"] = "round"
    """How RoI max pooling turns pixels into cells; the notebook truncates."""
    channel_order: Literal["RGB", "BGR"] | None = None
    """Order of the channels; this, pixel_mean and pixel_std default to those of the
    pretrained weights."""
    pixel_mean: Annotated[Colors | None, PIXEL_MEANS] = None
    """Subtracted from the pixels, 0..255, channel by channel in channel_order."""
    pixel_std: Annotated[Colors | None, PIXEL_SCALES] = None
    """What the pixels are divided by after pixel_mean is subtracted."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """What the layers compute in; parameters, losses, boxes and NMS are float32."""
    pretrained: str = ""
    """Weights to start from: a run directory, a file, hf://OWNER/NAME, https://... or a
    published detector, e.g. chainercv:voc07 (docs/weights.md); random if empty."""
    proposals: ProposalConfig = ProposalConfig()
    anchor_targets: AnchorTargetConfig = AnchorTargetConfig()
    proposal_targets: ProposalTargetConfig = ProposalTargetConfig()
    losses: LossConfig = LossConfig()
    detection: DetectionConfig = DetectionConfig()

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        super().__post_init__()
        for name in ("anchor_scales", "anchor_ratios"):
            self._check(len(getattr(self, name)) > 0, name, "at least one")
        preprocessing = (self.channel_order, self.pixel_mean, self.pixel_std)
        if preprocessing.count(None) not in (0, 3):
            raise UserError(
                f"model.channel_order, pixel_mean, pixel_std is {preprocessing}, "
                "expected all three or none"
            )

    @property
    def preprocessing(self) -> Preprocessing:
        """The three fields; torchvision's where they are not given."""
        order, mean, std = self.channel_order, self.pixel_mean, self.pixel_std
        if order is None or mean is None or std is None:
            return PREPROCESSINGS["torchvision"]
        return Preprocessing(order, mean, std)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Section, path="optimizer"):
    """Stochastic gradient descent with momentum, or AdamW, and its schedule."""

    name: Literal["sgd", "adam"] = "sgd"
    """SGD with momentum as in the recipe, or AdamW for training from scratch."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Step size before any drop."""
    rate_batch_size: Annotated[int | None, SIZE] = None
    """Batch size that learning_rate is meant for: it is scaled linearly to batch_size;
    by default it is taken as it is."""
    momentum: Annotated[float, Range(0, 1, below_high=True)] = 0.9
    """Momentum (sgd only)."""
    weight_decay: Annotated[float, Range(0, 10**3)] = 5e-4
    """Weight decay of the kernels, not of biases: an L2 penalty with sgd, decoupled
    (AdamW) with adam."""
    bias_rate_factor: Annotated[float, POSITIVE] = 2.0
    """The biases' learning rate divided by that of the kernels."""
    boundaries: Annotated[tuple[int | float, ...], POSITIVE] = ()
    """When the learning rate drops, in boundary_unit."""
    boundary_unit: Literal["steps", "epochs"] = "steps"
    """Unit of boundaries."""
    decay_factor: Annotated[float, Range(1e-9, 1)] = 0.1
    """What each drop multiplies the learning rate by."""
    warmup_steps: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Steps of linear warm-up; the first has 1 / warmup_steps of the learning rate."""
    clip_norm: Annotated[float | None, POSITIVE] = None
    """Largest norm of the gradient of all parameters; unlimited by default."""
    ema_decay: Annotated[float | None, INNER_FRACTION] = None
    """Decay of a moving average of the parameters, which is then evaluated; by default
    the parameters themselves are."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        super().__post_init__()
        is_rising = list(self.boundaries) == sorted(set(self.boundaries))
        self._check(is_rising, "boundaries", f"rising {self.boundary_unit}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResumeConfig(Section, path="resume"):
    """How a run directory's run is continued. Not stored there."""

    allow_changes: bool = False
    """Continue with another config, or other data, than the run was started with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributedConfig(Section, path="distributed"):
    """Several processes train together, each on its own devices. Not stored."""

    coordinator_address: str = ""
    """HOST:PORT of process 0; JAX_COORDINATOR_ADDRESS by default."""
    num_processes: Annotated[int | None, Range(1, 2**16)] = None
    """Processes in all; JAX_NUM_PROCESSES by default."""
    process_id: Annotated[int | None, Range(0, 2**16 - 1)] = None
    """Number of this process, from 0; JAX_PROCESS_ID by default."""
    cluster: bool = False
    """Take the three from Slurm, Open MPI, Kubernetes or a TPU pod instead."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        super().__post_init__()
        count, number = self.num_processes, self.process_id
        is_one = count is None or number is None or number < count
        self._check(is_one, "process_id", f"below num_processes, {count}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Section, path=""):
    """Everything a run depends on."""

    work_dir: str = "runs/frcnn"
    """Run directory: config, metrics, checkpoints, evaluation and pictures."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    """Seed of the weights, the order of images, augmentation, samples and dropout."""
    num_steps: Annotated[int, COUNT] = 70_000
    """Updates in all."""
    num_epochs: Annotated[int | float | None, POSITIVE] = None
    """Passes over the training images in all; if given, it replaces num_steps."""
    batch_size: Annotated[int, SIZE] = 1
    """Images per update, of all devices together."""
    micro_batches: Annotated[int, SIZE] = 1
    """Parts that a batch is split into, computed one by one to save memory; the update
    stays that of the whole batch."""
    log_every: Annotated[int, COUNT] = 20
    """Steps between rows of metrics.jsonl."""
    log_hardest: bool = False
    """Write the ten images of largest loss of every epoch to hardest_images.jsonl."""
    checkpoint_every: Annotated[int, COUNT] = 1000
    """Steps between checkpoints; one is always written at the end. Each is validated if
    data.validation_split is given."""
    max_to_keep: Annotated[int, COUNT] = 2
    """Number of latest checkpoints to keep; the best validated one stays as well."""
    max_bad_steps: Annotated[int, COUNT] = 10
    """Number of skipped updates (loss or gradient not finite) that ends the run."""
    compilation_cache: str = "~/.cache/frcnn_jax"
    """Folder of compiled programs, for a quick second start; none if empty. JAX's own
    JAX_COMPILATION_CACHE_DIR takes precedence."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    resume: ResumeConfig = ResumeConfig()
    distributed: DistributedConfig = DistributedConfig()

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        super().__post_init__()
        # Or a folder called ~ would be created.
        object.__setattr__(self, "work_dir", os.path.expanduser(self.work_dir))
        parts = self.micro_batches
        expected = f"a multiple of micro_batches, {parts}"
        self._check(self.batch_size % parts == 0, "batch_size", expected)

    def in_steps(self, steps_per_epoch: int) -> "Config":
        """Converts epochs to steps, given the number of steps of an epoch."""
        optimizer, num_steps = self.optimizer, self.num_steps
        if optimizer.boundary_unit == "epochs":
            optimizer = dataclasses.replace(
                optimizer,
                boundaries=tuple(
                    max(1, round(e * steps_per_epoch)) for e in optimizer.boundaries
                ),
                boundary_unit="steps",
            )
        if self.num_epochs is not None:
            num_steps = max(1, round(self.num_epochs * steps_per_epoch))
        return dataclasses.replace(
            self, num_steps=num_steps, num_epochs=None, optimizer=optimizer
        )
