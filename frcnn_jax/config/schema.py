"""Configuration: frozen dataclasses that refuse impossible values.

The text behind each field is its `--help`. `loading` reads and stores configs.
"""

import dataclasses
from typing import Any, Literal

from frcnn_jax.config.preprocessing import PREPROCESSINGS, Preprocessing
from frcnn_jax.errors import UserError


def _check(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        raise UserError(f"{name} is {value}, expected {expected}")


def _check_positive(section: str, config: Any, *fields: str) -> None:
    """Checks numbers, or non-empty tuples of numbers, to be positive."""
    for field in fields:
        value = getattr(config, field)
        values = value if isinstance(value, tuple) else (value,)
        is_positive = all(_is_number(v) and v > 0 for v in values)
        _check(
            bool(values) and is_positive,
            f"{section}.{field}",
            value,
            "positive numbers",
        )


def _check_fraction(
    section: str, config: Any, *fields: str, open_interval: bool = False
) -> None:
    for field in fields:
        value = getattr(config, field)
        inside = _is_number(value) and 0 <= value <= 1
        if open_interval:
            inside = inside and 0 < value < 1
        _check(inside, f"{section}.{field}", value, "a number between 0 and 1")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and how they reach the device."""

    source: Literal["voc", "tfds", "shapes"] = "voc"
    """A VOC-format folder, a prepared TensorFlow Datasets builder, or drawn shapes."""
    root: str = ""
    """The VOC-format folder, or the one that holds several; for TFDS the data directory
    (empty: its default)."""
    name: str = "voc/2007"
    """TFDS builder name (source tfds only)."""
    train_split: str = "trainval"
    """Split to train on; of several VOC folders VOC2007/trainval+VOC2012/trainval."""
    validation_split: str = ""
    """Split that every checkpoint is validated on; none if empty."""
    test_split: str = "test"
    """Split to evaluate on."""
    class_names: tuple[str, ...] | None = None
    """Class names in order; by default those found in the annotations, sorted."""
    skip_broken: bool = False
    """Leave out images that cannot be decoded (every image is read once at start)."""
    num_train_images: int = 2000
    """Images drawn for training (source shapes only)."""
    num_test_images: int = 128
    """Images drawn for evaluation (source shapes only)."""
    shapes_size: tuple[int, int] = (128, 128)
    """Height and width of a drawn image, in pixels (source shapes only)."""
    shorter_side: int = 600
    """Images are resized to this shorter side, in pixels ..."""
    longer_side: int = 1000
    """... unless the longer side would exceed this."""
    canvases: tuple[tuple[int, int], ...] = ((608, 800), (608, 1008), (1008, 608))
    """Sizes (height, width) that images are padded to, in pixels; each image takes
    the smallest it fits into."""
    max_objects: int = 64
    """Slots for objects per image; more in an image is an error."""
    flip_probability: float = 0.5
    """Probability of a horizontal flip in training."""
    num_workers: int = 0
    """Processes that read and resize images; 0 reads in threads of this process."""

    def __post_init__(self):
        """Refuses impossible values."""
        _check_positive("data", self, "shorter_side", "longer_side", "max_objects")
        _check_positive("data", self, "num_train_images", "num_test_images")
        _check_fraction("data", self, "flip_probability")
        _check(self.num_workers >= 0, "data.num_workers", self.num_workers, ">= 0")
        _check(
            self.longer_side >= self.shorter_side,
            "data.longer_side",
            self.longer_side,
            f"at least data.shorter_side, {self.shorter_side}",
        )
        self._check_canvases()

    def _check_canvases(self) -> None:
        name, canvases = "data.canvases", self.canvases
        are_pairs = all(
            isinstance(canvas, tuple) and len(canvas) == 2 and min(canvas) > 0
            for canvas in canvases
        )
        has_pairs = bool(canvases) and are_pairs
        _check(has_pairs, name, canvases, "pairs of positive numbers")
        _check(
            any(
                min(canvas) >= self.shorter_side and max(canvas) >= self.longer_side
                for canvas in canvases
            ),
            name,
            canvases,
            f"room for images of {self.shorter_side} x {self.longer_side} pixels "
            "(data.shorter_side x data.longer_side)",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProposalConfig:
    """How the region proposal network's boxes are ranked and filtered."""

    rank_by: Literal["probability", "logit"] = "probability"
    """Rank by the softmax probability of an object or, as the notebook, its logit."""
    pre_nms_train: int = 12000
    """Best boxes that enter NMS in training."""
    post_nms_train: int = 2000
    """Proposals that leave it in training."""
    pre_nms_test: int = 6000
    """Best boxes that enter NMS in detection."""
    post_nms_test: int = 300
    """Proposals that leave it in detection."""
    iou_threshold: float = 0.7
    """NMS drops boxes that overlap a better one by more than this IoU."""
    min_size: float = 16.0
    """Proposals with a shorter side are dropped, in pixels of the original image."""

    def __post_init__(self):
        """Refuses impossible values."""
        _check_positive("model.proposals", self, "pre_nms_train", "post_nms_train")
        _check_positive("model.proposals", self, "pre_nms_test", "post_nms_test")
        _check_fraction("model.proposals", self, "iou_threshold", open_interval=True)
        _check(
            self.min_size >= 0.0, "model.proposals.min_size", self.min_size, "pixels"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnchorTargetConfig:
    """Which anchors the region proposal network learns from."""

    num_samples: int = 256
    """Anchors sampled per image."""
    positive_fraction: float = 0.5
    """Largest share of positives among them."""
    positive_iou: float = 0.7
    """An anchor is positive from this IoU on."""
    negative_iou: float = 0.3
    """An anchor is negative below this IoU."""

    def __post_init__(self):
        """Refuses impossible values."""
        name = "model.anchor_targets"
        _check_positive(name, self, "num_samples")
        _check_fraction(name, self, "positive_fraction", "positive_iou", "negative_iou")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProposalTargetConfig:
    """Which proposals the RoI head learns from."""

    num_samples: int = 128
    """Proposals sampled per image."""
    positive_fraction: float = 0.25
    """Largest share of objects among them."""
    positive_iou: float = 0.5
    """A proposal is an object from this IoU on."""
    negative_iou_high: float = 0.5
    """Background lies below this IoU ..."""
    negative_iou_low: float = 0.0
    """... and not below this one."""
    append_gt: bool = True
    """Whether the annotated boxes are proposals, too."""

    def __post_init__(self):
        """Refuses impossible values."""
        name = "model.proposal_targets"
        _check_positive(name, self, "num_samples")
        _check_fraction(name, self, "positive_fraction", "positive_iou")
        _check_fraction(name, self, "negative_iou_high", "negative_iou_low")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """How the four losses are scaled."""

    normalizer: Literal["positives", "samples"] = "samples"
    """What divides the localization losses: positives (notebook) or all samples."""
    localization_weight: float = 1.0
    """Weight of the localization losses; 10 in the notebook."""
    rpn_beta: float = 1.0 / 9.0
    """Smooth L1 beta of the region proposal network (1 / sigma**2)."""
    roi_beta: float = 1.0
    """Smooth L1 beta of the RoI head."""
    delta_std: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    """The RoI head predicts its deltas divided by these."""

    def __post_init__(self):
        """Refuses impossible values."""
        _check_positive("model.losses", self, "rpn_beta", "roi_beta")
        _check_positive("model.losses", self, "localization_weight", "delta_std")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionConfig:
    """What is reported as a detection."""

    score_threshold: float = 0.05
    """Detections score more than this."""
    iou_threshold: float = 0.3
    """NMS within a class drops boxes that overlap by more than this IoU."""
    max_detections: int = 100
    """Detections per image at most."""

    def __post_init__(self):
        """Refuses impossible values."""
        _check_fraction("model.detection", self, "score_threshold")
        _check_fraction("model.detection", self, "iou_threshold", open_interval=True)
        _check_positive("model.detection", self, "max_detections")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Faster R-CNN: the network, its targets, losses and detections."""

    width: float = 1.0
    """Multiplies the channels of VGG16."""
    backbone_init: Literal["he", "near_identity"] = "he"
    """Kernels VGG16 starts from; near_identity if it learns from scratch."""
    frozen_blocks: int = 2
    """VGG16 blocks, from the first, that are not trained."""
    rpn_channels: int = 512
    """Channels of the region proposal network's 3 x 3 convolution."""
    head_channels: int = 4096
    """Channels of fc6 and fc7."""
    activation: Literal["relu", "none"] = "relu"
    """After the RPN's 3 x 3 convolution, fc6 and fc7; the notebook has none."""
    dropout: float = 0.0
    """Dropout rate after fc6 and fc7 in training."""
    anchor_scales: tuple[float, ...] = (8.0, 16.0, 32.0)
    """Sides of the square anchors, in cells of 16 pixels."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Heights of the anchors divided by their widths."""
    pooling: Literal["max", "align"] = "max"
    """RoI max pooling (Fast R-CNN) or RoIAlign (Mask R-CNN)."""
    rounding: Literal["round", "floor"] = "round"
    """How RoI max pooling turns pixels into cells; the notebook truncates."""
    channel_order: Literal["RGB", "BGR"] | None = None
    """Order of the colors; this and the next two default to model.pretrained's."""
    pixel_mean: tuple[float, float, float] | None = None
    """Subtracted from the colors, in channel_order, 0..255."""
    pixel_std: tuple[float, float, float] | None = None
    """The colors are then divided by these."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """What the layers compute in; parameters, losses, boxes and NMS are float32."""
    pretrained: str = ""
    """Weights to start from, a file or hf://OWNER/NAME (docs/weights.md); or random."""
    proposals: ProposalConfig = ProposalConfig()
    anchor_targets: AnchorTargetConfig = AnchorTargetConfig()
    proposal_targets: ProposalTargetConfig = ProposalTargetConfig()
    losses: LossConfig = LossConfig()
    detection: DetectionConfig = DetectionConfig()

    def __post_init__(self):
        """Refuses impossible values."""
        _check_positive("model", self, "width", "rpn_channels", "head_channels")
        _check_positive("model", self, "anchor_scales", "anchor_ratios")
        colors = (self.channel_order, self.pixel_mean, self.pixel_std)
        _check(
            colors.count(None) in (0, 3),
            "model.channel_order, pixel_mean, pixel_std",
            colors,
            "all three or none",
        )
        if self.pixel_std is not None:
            _check_positive("model", self, "pixel_std")
        _check_fraction("model", self, "dropout")
        _check(self.dropout < 1.0, "model.dropout", self.dropout, "less than 1")
        _check(
            0 <= self.frozen_blocks <= 5,
            "model.frozen_blocks",
            self.frozen_blocks,
            "0 to 5",
        )

    @property
    def preprocessing(self) -> Preprocessing:
        """The three fields; torchvision's where they are not given."""
        order, mean, std = self.channel_order, self.pixel_mean, self.pixel_std
        if order is None or mean is None or std is None:
            return PREPROCESSINGS["torchvision"]
        return Preprocessing(order, mean, std)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Stochastic gradient descent with momentum, or Adam, and its schedule."""

    name: Literal["sgd", "adam"] = "sgd"
    """SGD with momentum as in the recipe, or Adam for training from scratch."""
    learning_rate: float = 1e-3
    """Step size before any drop."""
    rate_batch_size: int | None = None
    """Batch size that learning_rate is meant for: it is scaled linearly to batch_size;
    by default it is taken as it is."""
    momentum: float = 0.9
    """Momentum (sgd only)."""
    weight_decay: float = 5e-4
    """L2 penalty on kernels; biases have none."""
    bias_rate_factor: float = 2.0
    """The biases' learning rate divided by that of the kernels."""
    boundaries: tuple[int | float, ...] = ()
    """When the learning rate drops, in boundary_unit."""
    boundary_unit: Literal["steps", "epochs"] = "steps"
    """What boundaries count."""
    decay_factor: float = 0.1
    """What each drop multiplies the learning rate by."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0, linearly."""
    clip_norm: float | None = None
    """Largest norm of the gradient of all parameters; unlimited by default."""
    ema_decay: float | None = None
    """Evaluate with a moving average of the parameters, of which a step keeps this
    share; by default with the parameters themselves."""

    def __post_init__(self):
        """Refuses impossible values."""
        _check_positive("optimizer", self, "learning_rate", "bias_rate_factor")
        _check_positive("optimizer", self, "decay_factor")
        _check_fraction("optimizer", self, "momentum")
        decay = self.weight_decay
        _check(decay >= 0.0, "optimizer.weight_decay", decay, "a number >= 0")
        warmup = self.warmup_steps
        _check(warmup >= 0, "optimizer.warmup_steps", warmup, "a number >= 0")
        _check(
            list(self.boundaries) == sorted(set(self.boundaries)),
            "optimizer.boundaries",
            self.boundaries,
            f"rising {self.boundary_unit}",
        )
        if self.rate_batch_size is not None:
            _check_positive("optimizer", self, "rate_batch_size")
        if self.clip_norm is not None:
            _check_positive("optimizer", self, "clip_norm")
        if self.ema_decay is not None:
            _check_fraction("optimizer", self, "ema_decay", open_interval=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResumeConfig:
    """How a run directory's run is continued. Not stored there."""

    allow_changes: bool = False
    """Continue with another config, or other data, than the run was started with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """Several processes train together, each on its own devices. Not stored."""

    coordinator_address: str = ""
    """HOST:PORT of process 0; JAX_COORDINATOR_ADDRESS by default."""
    num_processes: int | None = None
    """Processes in all; JAX_NUM_PROCESSES by default."""
    process_id: int | None = None
    """Number of this process, from 0; JAX_PROCESS_ID by default."""
    cluster: bool = False
    """Take the three from Slurm, Open MPI, Kubernetes or a TPU pod instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything a run depends on."""

    work_dir: str = "runs/frcnn"
    """Run directory: config, metrics, checkpoints, evaluation and pictures."""
    seed: int = 0
    """Seed of the weights, the order of images, flips, samples and dropout."""
    num_steps: int = 70_000
    """Updates in all."""
    num_epochs: int | float | None = None
    """Passes over the training images in all; if given, instead of num_steps."""
    batch_size: int = 1
    """Images per update, of all devices together."""
    micro_batches: int = 1
    """Parts that a batch is computed in, one after the other, to save memory; the
    update stays that of the whole batch."""
    log_every: int = 20
    """Steps between rows of metrics.jsonl."""
    log_hardest: bool = False
    """Write the ten images of largest loss of every epoch to hardest_images.jsonl."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; one is always written at the end. Each is validated if
    data.validation_split is given."""
    max_to_keep: int = 2
    """Checkpoints kept: the latest ones, and the best one of those validated."""
    max_bad_steps: int = 10
    """Skipped updates, of a loss or gradient not finite, that end the run."""
    compilation_cache: str = "~/.cache/frcnn_jax"
    """Folder of compiled programs, for a quick second start; none if empty. JAX's own
    JAX_COMPILATION_CACHE_DIR takes precedence."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    resume: ResumeConfig = ResumeConfig()
    distributed: DistributedConfig = DistributedConfig()

    def __post_init__(self):
        """Refuses impossible values."""
        positive = ("num_steps", "batch_size", "micro_batches", "log_every")
        for name in (*positive, "checkpoint_every", "max_to_keep", "max_bad_steps"):
            value = getattr(self, name)
            _check(value > 0, name, value, "a positive number")
        is_seed = _is_number(self.seed) and 0 <= self.seed < 2**32
        _check(is_seed, "seed", self.seed, "a number from 0 to 2**32 - 1")
        if self.num_epochs is not None:
            _check(self.num_epochs > 0, "num_epochs", self.num_epochs, "positive")
        _check(
            self.batch_size % self.micro_batches == 0,
            "batch_size",
            self.batch_size,
            f"a multiple of micro_batches, {self.micro_batches}",
        )

    def in_steps(self, steps_per_epoch: int) -> "Config":
        """Counts what is given in epochs in steps, of which an epoch has that many."""
        optimizer, num_steps = self.optimizer, self.num_steps
        if optimizer.boundary_unit == "epochs":
            optimizer = dataclasses.replace(
                optimizer,
                boundaries=tuple(
                    round(e * steps_per_epoch) for e in optimizer.boundaries
                ),
                boundary_unit="steps",
            )
        if self.num_epochs is not None:
            num_steps = max(1, round(self.num_epochs * steps_per_epoch))
        return dataclasses.replace(
            self, num_steps=num_steps, num_epochs=None, optimizer=optimizer
        )
