"""Order of the training pictures in an epoch: shuffled, balanced, or with unlabelled pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from ..samples import Sample
from ..settings import OptimConfig


def epoch_steps(samples: Sequence[Sample], config: OptimConfig) -> int:
    """Number of batches in an epoch."""
    return len(draw_order(samples, config, torch.Generator())) // config.batch_size


def draw_order(samples: Sequence[Sample], config: OptimConfig, draws: torch.Generator) -> list[int]:
    """Draw the row numbers of one epoch.

    Args:
        samples: Rows of the training split.
        config: Uses ``sampling`` and ``unlabelled_share``: with a share, pictures without a label
            are drawn without replacement, with lower probability for large origins.
        draws: Random generator.
    """
    if config.sampling == "balanced":
        return _balanced(samples, draws)
    order: list[int] = torch.randperm(len(samples), generator=draws).tolist()
    if config.unlabelled_share is None:
        return order
    labelled = [i for i in order if samples[i].label is not None]
    others = [i for i in order if samples[i].label is None]
    share = config.unlabelled_share
    count = min(len(others), round(len(labelled) * share / (1 - share)))
    sizes = Counter(samples[i].origin for i in others)
    weights = torch.tensor([sizes[samples[i].origin] ** -0.5 for i in others])
    if count:
        drawn = torch.multinomial(weights, count, generator=draws).tolist()
        labelled += [others[i] for i in drawn]
    mixed = torch.randperm(len(labelled), generator=draws).tolist()
    return [labelled[i] for i in mixed]


def _balanced(samples: Sequence[Sample], draws: torch.Generator) -> list[int]:
    """Draw as many fractured as other pictures for every combination of regions."""
    kinds = [sample.regions for sample in samples]
    sizes, cells = Counter(kinds), Counter((s.regions, s.label) for s in samples)
    labels = {kind: len({label for k, label in cells if k == kind}) for kind in sizes}
    weights = [sizes[s.regions] / labels[s.regions] / cells[s.regions, s.label] for s in samples]
    drawn = torch.multinomial(torch.tensor(weights), len(samples), True, generator=draws)
    return drawn.tolist()
