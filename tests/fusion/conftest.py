"""What tests of several learned methods need."""

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def stir() -> Callable[[nn.Module], nn.Module]:
    """Give every batch norm of a module statistics and an affine part, as after training.

    A fresh one is the identity but for its epsilon, so that a test could not tell whether it is there.
    """

    def stirred(module: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(7)
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                with torch.no_grad():
                    for tensor in (norm.weight, norm.bias, norm.running_mean):
                        tensor.copy_(torch.randn(tensor.shape, generator=generator))
                    norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) + 0.5)
        return module

    return stirred
