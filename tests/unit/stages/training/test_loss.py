"""Losses: unknown targets, exclusive outputs, class weights, focal loss, boxes."""

import numpy as np
import pytest
import torch

from stages.settings import OptimConfig
from stages.training.loss import box_loss, loss_weights, masked_loss


def test_unknown_targets_give_no_gradient():
    logits = torch.zeros(2, 2, requires_grad=True)
    targets = torch.tensor([[1.0, float("nan")], [float("nan"), 0.0]])
    masked_loss(logits, targets, torch.ones(2), torch.ones(2)).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad == 0, torch.isnan(targets))


def test_exclusive_outputs_have_one_softmax_loss():
    logits = torch.tensor([[0.5, 1.0, -1.0], [2.0, 0.0, 3.0], [-1.0, 4.0, 0.0]], requires_grad=True)
    nan = float("nan")
    targets = torch.tensor([[1.0, 1.0, 0.0], [0.0, nan, nan], [1.0, 0.0, 1.0]])
    ones, scale = torch.ones(3), torch.tensor([1.0, 0.5, 0.5])
    loss = masked_loss(logits, targets, ones, scale, exclusive=2)
    decision = masked_loss(logits[:, :1], targets[:, :1], ones[:1], scale[:1])
    types = -(torch.log_softmax(logits[:, 1:], 1) * targets[:, 1:])[[0, 2]].sum(1).mean()
    assert loss.item() == pytest.approx((decision + 0.5 * types).item(), rel=1e-6)
    loss.backward()
    assert torch.equal(logits.grad[:, 1:] == 0, torch.isnan(targets[:, 1:]))


def test_positives_of_a_rare_output_have_a_larger_weight():
    targets = np.array([[1, 1], [0, 1], [0, 0], [0, np.nan], [0, 0]], np.float32)
    np.testing.assert_allclose(loss_weights(targets, 0.5), [2.0, 1.0])
    np.testing.assert_allclose(loss_weights(targets, 0.0), [1.0, 1.0])


def test_focal_loss_is_smaller_for_confident_correct_cases():
    targets = torch.tensor([[1.0], [1.0]])
    one = torch.ones(1)

    def loss(logit, kind):
        return float(masked_loss(torch.full((2, 1), logit), targets, one, one, kind))

    plain, focal = OptimConfig(), OptimConfig(loss="focal")
    assert loss(3.0, focal) / loss(3.0, plain) == pytest.approx(
        (1 - torch.sigmoid(torch.tensor(3.0)).item()) ** 2
    )
    assert loss(-5.0, focal) / loss(-5.0, plain) > 0.98


def test_label_smoothing_penalises_certainty():
    one, target = torch.ones(1), torch.ones(1, 1)
    smooth = OptimConfig(label_smoothing=0.1)
    losses = [
        float(masked_loss(torch.full((1, 1), x), target, one, one, smooth)) for x in (2.2, 9.0)
    ]
    assert losses[0] < losses[1]


def test_box_loss_is_small_for_evidence_inside_and_ignores_its_mean():
    masks = torch.zeros(2, 1, 8, 8)
    masks[0, :, :2, :2] = 1  # the second picture has no box
    inside, outside = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    inside[0, 0, 0, 0], outside[0, 0, 3, 3] = 6.0, 6.0
    assert box_loss(inside, masks) < 0.1 < 3 < box_loss(outside, masks)
    torch.testing.assert_close(box_loss(inside + 5, masks), box_loss(inside, masks))
    evidence = torch.zeros(2, 1, 4, 4, requires_grad=True)
    box_loss(evidence, masks).backward()
    assert evidence.grad[0].abs().sum() > 0
    assert evidence.grad[1].abs().sum() == 0


def test_box_loss_of_a_batch_without_boxes_is_zero():
    evidence = torch.randn(2, 1, 4, 4, requires_grad=True)
    loss = box_loss(evidence, torch.zeros(2, 1, 8, 8))
    loss.backward()
    assert loss.item() == 0.0
