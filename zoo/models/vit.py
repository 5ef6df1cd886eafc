"""Vision Transformer (Dosovitskiy et al. 2020, "An image is worth 16x16 words", https://arxiv.org/abs/2010.11929).

vit_*     base is the paper's; tiny and small are DeiT's sizes of it.
deit_*    the same networks (Touvron et al. 2020, https://arxiv.org/abs/2012.12877, Table 1), without the distillation
          token. They differ in their weights only, by the training: ImageNet-1k alone with strong augmentation, where
          the paper's were trained on ImageNet-21k first.
vit_pico  ours, for images of 28 to 64 px. Patches of 4 px make 64 tokens of a 32 px image, where 16 px would make 4;
          width and depth then put its cost, 84M MACs, between ResNet-20's 41M and ResNet-56's 126M. Its 1.2M
          parameters are more than theirs (0.3M, 0.9M): a Linear is used once a token, 65 times, a filter of theirs
          at up to 1,024 pixels. Four heads of 32 channels: of the usual 64 there would be two. At 64 px,
          patch_size=8 keeps the cost.

Parameter names are timm's (vit_tiny_patch16_224, deit_tiny_patch16_224). LayerNorm eps 1e-6, exact GELU.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from zoo.models.init import truncated_normal_
from zoo.models.layers import Attention, DropPath, LayerScale, Mlp
from zoo.models.registry import register_model

TINY: dict[str, dict[str, object]] = {
    "vit_tiny": {"image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "num_heads": 2, "num_classes": 10}
}


class PatchEmbed(nn.Module):
    """One token a patch: a convolution whose stride is its kernel. (B, C, H, W) -> (B, L, D), L = (H / P)(W / P)."""

    def __init__(self, *, image_size: int, patch_size: int, in_channels: int, width: int) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image_size={image_size} is not a multiple of patch_size={patch_size}")
        self.image_size = image_size
        self.num_patches = (image_size // patch_size) ** 2
        self.proj = nn.Conv2d(in_channels, width, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if (height, width) != (self.image_size, self.image_size):
            wanted = f"{self.image_size}x{self.image_size}, the size of its position embedding"
            raise ValueError(f"got images of {height}x{width}; this model takes {wanted}: build it with image_size")
        return self.proj(x).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) (eq. 2 and 3). (B, L, D) -> (B, L, D)."""

    def __init__(
        self, width: int, *, num_heads: int, hidden: int, layer_scale: float | None, dropout: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, num_heads=num_heads, dropout=dropout)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(width, start=layer_scale)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden=hidden, dropout=dropout)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(width, start=layer_scale)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Patches and a class token through a stack of blocks; the class token's last state is classified."""

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        num_heads: int,
        image_size: int = 224,
        patch_size: int = 16,
        mlp_ratio: float = 4.0,
        layer_scale: float | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.patch_embed = PatchEmbed(
            image_size=image_size, patch_size=patch_size, in_channels=in_channels, width=width
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.patch_embed.num_patches, width))
        self.pos_drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(
                Block(
                    width,
                    num_heads=num_heads,
                    hidden=int(width * mlp_ratio),
                    layer_scale=layer_scale,
                    dropout=dropout,
                    drop_path=drop_path * i / max(depth - 1, 1),  # grows linearly with depth (Huang et al. 2016)
                )
                for i in range(depth)
            )
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head_drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)
        truncated_normal_(self, kinds=(nn.Linear,))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)  # (B, 1 + L, D)
        x = self.pos_drop(x + self.pos_embed)
        x = self.norm(self.blocks(x))
        return self.head(self.head_drop(x[:, 0]))  # type: ignore[no-any-return]


# width, depth, heads: DeiT, Table 1, and for base also ViT, Table 1
_tiny = partial(VisionTransformer, width=192, depth=12, num_heads=3)
_small = partial(VisionTransformer, width=384, depth=12, num_heads=6)
_base = partial(VisionTransformer, width=768, depth=12, num_heads=12)
vit_tiny = register_model("vit_tiny", _tiny)
vit_small = register_model("vit_small", _small)
vit_base = register_model("vit_base", _base)
deit_tiny = register_model("deit_tiny", _tiny)
deit_small = register_model("deit_small", _small)
deit_base = register_model("deit_base", _base)
vit_pico = register_model(
    "vit_pico",
    partial(VisionTransformer, width=128, depth=6, num_heads=4, image_size=32, patch_size=4, num_classes=10),
    input_size=(3, 32, 32),
)
