"""Training on one image: every stage, the losses and the gradient, in two recipes.

VGG16 at its full width with random parameters. The samples are those that we draw; the
reference makes sure that it could have drawn them. What decides, as NMS does, is given
our own numbers, as rounding may tip a decision, and must then be the same exactly.
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from configs import notebook, voc07_vgg16
from frcnn_jax.models import Losses
from tests.parity import images, reference, reference_boxes, reference_layers, stages

TOLERANCE = 1e-5  # norm of the difference / norm of the reference
GRADIENT_TOLERANCE = 1e-4

pytestmark = pytest.mark.slow

CASES = {
    "notebook": (reference.NOTEBOOK, notebook, images.square_batch),
    "voc07": (reference.VOC07, voc07_vgg16, images.padded_batch),
}


class Case(NamedTuple):
    """A recipe, an image, and all that we computed."""

    recipe: reference.Recipe
    image: np.ndarray  # [H, W, 3] RGB bytes
    scale: float
    gt_boxes: np.ndarray  # [M, 4]
    gt_labels: np.ndarray  # [M], from 0
    state: dict[str, torch.Tensor]
    ours: stages.Stages
    losses: Losses
    gradient: dict[str, torch.Tensor]


class Outputs(NamedTuple):
    """What the networks of the reference compute."""

    features: torch.Tensor  # [1, C, H, W]
    logits: torch.Tensor  # [N, 2]
    deltas: torch.Tensor  # [N, 4]
    pooled: torch.Tensor  # [R, C, 7, 7]
    roi_logits: torch.Tensor  # [R, L + 1]
    roi_deltas: torch.Tensor  # [R, L + 1, 4]


@pytest.fixture(scope="module", params=CASES)
def case(request, data_root):
    recipe, config, make_batch = CASES[request.param]
    batch = make_batch(data_root)
    image, present = images.cut_image(batch), batch.box_mask[0]
    graphdef, params = stages.make_detector(config.get_config().model)
    ours, losses, gradient = stages.run(graphdef, params, batch)
    return Case(
        recipe=recipe,
        image=image,
        scale=batch.scales.mean(),
        gt_boxes=batch.boxes[0][present],
        gt_labels=batch.labels[0][present].astype(int),
        state=stages.to_state(params),
        ours=stages.cut_padding(ours, image.shape[:2]),
        losses=losses,
        gradient=stages.to_state(gradient),
    )


@pytest.fixture(scope="module")
def anchors(case):
    feature_size = np.array(case.image.shape[:2]) // 16
    return reference_boxes.make_anchors(feature_size, scale_major=True)


@pytest.fixture(scope="module")
def anchor_targets(case, anchors):
    """Labels and deltas of all anchors, of our sample."""
    drawn = case.ours.anchor_targets.labels
    return reference_boxes.anchor_targets(
        anchors,
        case.gt_boxes,
        case.image.shape[:2],
        positives=np.flatnonzero(drawn == 1),
        negatives=np.flatnonzero(drawn == 0),
    )


@pytest.fixture(scope="module")
def proposal_targets(case):
    """RoIs, labels and deltas, of our proposals and sample."""
    proposals = case.ours.proposals.boxes[case.ours.proposals.mask]
    if case.recipe.append_gt:
        proposals = np.concatenate([proposals, case.gt_boxes])
    drawn = case.ours.proposal_targets
    same = (drawn.rois[drawn.mask][:, None] == proposals[None]).all(axis=2)
    assert same.any(axis=1).all()
    sample = same.argmax(axis=1)
    num_positives = (drawn.labels > 0).sum()
    return reference_boxes.proposal_targets(
        proposals,
        case.gt_boxes,
        case.gt_labels,
        positives=sample[:num_positives],
        negatives=sample[num_positives:],
        touching=case.recipe.touching,
    )


@pytest.fixture(scope="module")
def outputs(case, proposal_targets):
    state, guide, recipe = case.state, case.ours.activations, case.recipe
    for name, parameter in state.items():
        parameter.requires_grad_(reference.is_trained(name, recipe))
    image = reference_layers.normalize(case.image)
    features = reference_layers.extract(state, image, guide)
    pooled = recipe.pool(features, proposal_targets[0], guide["extractor.28"])
    return Outputs(
        features,
        *reference_layers.rpn(state, features, recipe.activation, guide),
        pooled,
        *reference_layers.head(state, pooled, recipe.activation, guide),
    )


@pytest.fixture(scope="module")
def losses(case, outputs, anchor_targets, proposal_targets):
    return reference.losses(case.recipe, outputs, anchor_targets, proposal_targets)


@pytest.fixture(scope="module")
def gradient(case, losses):
    sum(losses).backward()
    return {name: parameter.grad for name, parameter in case.state.items()}


def relative_error(got, expected):
    got = torch.asarray(got, copy=True)
    expected = torch.as_tensor(expected).detach()
    assert got.shape == expected.shape
    return ((got - expected).norm() / expected.norm()).item()


def assert_close(got, expected):
    assert relative_error(got, expected) <= TOLERANCE


def test_features_agree(case, outputs):
    assert_close(case.ours.activations["extractor.28"], outputs.features)


def test_anchors_agree(case, anchors):
    assert_close(case.ours.anchors, anchors)


def test_the_rpn_scores_and_moves_anchors_alike(case, outputs):
    assert_close(case.ours.logits, outputs.logits)
    assert_close(case.ours.deltas, outputs.deltas)


def test_sampled_anchors_have_the_same_labels_and_deltas(case, anchor_targets):
    labels, deltas = anchor_targets
    ours = case.ours.anchor_targets
    np.testing.assert_array_equal(ours.labels, labels)
    assert_close(ours.deltas[labels == 1], deltas[labels == 1])


def test_boxes_are_decoded_and_clipped_alike(case, anchors):
    boxes = reference_boxes.decode(anchors, case.ours.deltas)
    assert_close(case.ours.boxes, reference_boxes.clip(boxes, case.image.shape[:2]))


def test_boxes_are_ranked_by_the_same_score(case, outputs):
    scores = outputs.logits
    if case.recipe.by_probability:
        scores = torch.softmax(scores, dim=1)
    assert_close(case.ours.objectness, scores[:, 1])


def test_the_same_boxes_become_proposals_in_the_same_order(case):
    ours, proposals = case.ours, case.ours.proposals
    chosen = reference_boxes.propose(
        ours.boxes,
        ours.objectness,
        min_size=16 * case.scale,
        pre_nms=12000,
        post_nms=2000,
    )
    np.testing.assert_array_equal(proposals.boxes[proposals.mask], ours.boxes[chosen])
    scores = ours.objectness[chosen]
    np.testing.assert_array_equal(proposals.scores[proposals.mask], scores)


def test_sampled_proposals_have_the_same_labels_and_deltas(case, proposal_targets):
    rois, labels, deltas = proposal_targets
    ours = case.ours.proposal_targets
    assert ours.mask.all()
    np.testing.assert_array_equal(ours.rois, rois)
    np.testing.assert_array_equal(ours.labels, labels)
    assert_close(ours.deltas[labels > 0], deltas[labels > 0])


def test_rois_are_pooled_alike(case, outputs):
    assert_close(np.moveaxis(case.ours.pooled, -1, 1), outputs.pooled)


def test_the_head_scores_and_moves_rois_alike(case, outputs):
    assert_close(case.ours.roi_logits, outputs.roi_logits)
    assert_close(case.ours.roi_deltas, outputs.roi_deltas)


def test_the_four_losses_agree(case, losses):
    for ours, expected in zip(case.losses, losses, strict=True):
        assert_close(float(ours), expected)


def test_every_parameter_has_the_same_gradient(case, gradient):
    errors = {
        name: relative_error(case.gradient[name], expected)
        for name, expected in gradient.items()
        if reference.is_trained(name, case.recipe)
    }
    assert {n: e for n, e in errors.items() if not e <= GRADIENT_TOLERANCE} == {}


def test_frozen_layers_have_no_gradient(case, gradient):
    for name, expected in gradient.items():
        if not reference.is_trained(name, case.recipe):
            assert expected is None
            assert (case.gradient[name] == 0).all()
