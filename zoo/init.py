"""How fresh weights are drawn: Xavier, He, truncated normal. Each function walks a model and changes it in place."""

from __future__ import annotations

from torch import nn


def xavier_uniform_(model: nn.Module) -> None:
    """Convolutions, Linears: U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16); zero bias."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            _zero_bias_(module)


def he_normal_(model: nn.Module) -> None:
    """Convolutions: N(0, 2 / fan_out) (He et al. 2015, eq. 14), fan_out within a group: a depthwise filter feeds one.

    Linears keep PyTorch's own uniform draw, as in torchvision's ResNet; BatchNorm starts as the identity anyway.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight.shape[0] // module.groups * module.weight[0, 0].numel()
            nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
            _zero_bias_(module)


def truncated_normal_(model: nn.Module, *, std: float = 0.02) -> None:
    """Linears: N(0, std^2) cut at +-2 (Vision Transformers, after BERT); zero bias."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=std)
            _zero_bias_(module)


def _zero_bias_(module: nn.Conv2d | nn.Linear) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)
