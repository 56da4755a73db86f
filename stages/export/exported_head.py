"""What is exported of a network from the cut on: blocks, decisions, calibration."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.bundle import FractureTypes

from ..network.model import Network, evidence_of, part_of, pooled, pooled_depths


class Head(nn.Module):
    """Everything from the cut on, with calibration: feature map (or image) → decisions.

    Args:
        network: The trained network; its modules are shared, not copied.
        cut: First block of the head.
        columns: Outputs of the network that belong to this stage.
        temperature, bias: One value per column: probability = sigmoid(logit / temperature + bias).
        density: From (N, F) :func:`pooled_depths` to (N,), if this stage has a density gate.
        types: Types of fracture of this stage, with their calibration; None for none.
    """

    temperature: Tensor
    bias: Tensor
    type_temperature: Tensor
    type_bias: Tensor

    def __init__(
        self,
        network: Network,
        cut: str,
        columns: Sequence[int],
        temperature: Sequence[float],
        bias: Sequence[float],
        density: nn.Module | None = None,
        types: FractureTypes | None = None,
    ) -> None:
        super().__init__()
        start = network.position(cut)
        blocks = part_of(network.backbone, network.blocks[start:])
        if start == 0:
            blocks = OrderedDict(normalise=network.normalise, **blocks)
        for name, module in blocks.items():
            self.add_module(name, module)
        self._order = tuple(blocks)
        self._takes_features = start > 0
        self.grid = network.grid
        self.heatmap = network.heatmap
        self.fc = rows_of(network.fc, columns)
        self.register_buffer("temperature", torch.tensor(temperature))
        self.register_buffer("bias", torch.tensor(bias))
        self.density = density
        self.types: nn.Linear | None = None
        if types is not None:
            self.types = rows_of(network.fc, [network.labels.index(name) for name in types.labels])
            self.register_buffer("type_temperature", torch.tensor(types.temperature))
            self.register_buffer("type_bias", torch.tensor(types.bias))
            self.exclusive = types.activation == "softmax"

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run the head.

        Returns:
            Logits (N, K) and calibrated probabilities (N, K). With a heatmap, evidence
            (N, K, h, w); its mean over h and w plus the linear layer's bias is the logit (class
            activation map, Zhou et al. 2016, arXiv 1512.04150). With a density gate, density (N,).
            With T types of fracture, their logits (N, T) and calibrated probabilities (N, T).
        """
        taken = x if self._takes_features else None
        for name in self._order:
            x = self.get_submodule(name)(x)
        x = self.grid(x)
        logits = self.fc(pooled(x))
        probabilities = torch.sigmoid(logits / self.temperature + self.bias)
        evidence = (evidence_of(x, self.fc),) if self.heatmap else ()
        density = () if self.density is None else (self.density(pooled_depths(taken, x)),)
        types = () if self.types is None else self._told_types(self.types(pooled(x)))
        return logits, probabilities, *evidence, *density, *types

    def _told_types(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        scaled = logits / self.type_temperature + self.type_bias
        return logits, torch.softmax(scaled, 1) if self.exclusive else torch.sigmoid(scaled)


def rows_of(linear: nn.Linear, rows: Sequence[int]) -> nn.Linear:
    """A layer with some outputs of another."""
    chosen = nn.Linear(linear.in_features, len(rows))
    chosen.load_state_dict({"weight": linear.weight[list(rows)], "bias": linear.bias[list(rows)]})
    return chosen
