"""Sequences (Hochreiter & Schmidhuber 1997; Cho et al. 2014; Vaswani et al. 2017, https://arxiv.org/abs/1706.03762).

lstm                 Hochreiter & Schmidhuber, "Long short-term memory", https://doi.org/10.1162/neco.1997.9.8.1735
gru                  Cho et al., "Learning phrase representations using RNN encoder-decoder", arXiv 1406.1078
transformer_encoder  Vaswani et al., "Attention is all you need"

They classify sequences of floats (B, L, in_channels), an image row by row say, or, given vocab_size, of tokens (B, L).
Shorter ones are padded at the end; `lengths` (B,) tells how much of each is real, and then padding changes nothing.

Differs from the papers:
- lstm has a forget gate (Gers et al. 2000), which 1997's had not; it is nn.LSTM.
- gru's reset gate acts on U h + b, not on h before the product: as in cuDNN, one product then serves all gates.
- transformer_encoder normalizes before each branch, not after the sum, and so needs no warm-up (Xiong et al. 2020,
  arXiv 2002.04745); GELU in place of ReLU.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from zoo.models.init import xavier_uniform_
from zoo.models.layers import Attention, Mlp
from zoo.models.registry import register_model

TINY: dict[str, dict[str, object]] = {
    "lstm": {"width": 16, "num_classes": 10},
    "transformer_encoder": {"width": 16, "depth": 1, "num_heads": 2, "num_classes": 10},
}


def _check_input(x: Tensor, lengths: Tensor | None, *, vocab_size: int | None) -> None:
    rows, tokens = "floats (B, L, in_channels): tokens need vocab_size", "tokens (B, L): it was built with vocab_size"
    if x.dim() != (3 if vocab_size is None else 2):
        wanted = rows if vocab_size is None else tokens
        raise ValueError(f"got a tensor of shape {tuple(x.shape)}; this model takes {wanted}")
    if lengths is not None and not (lengths.min() >= 1 and lengths.max() <= x.shape[1]):
        raise ValueError(f"got lengths from {lengths.min()} to {lengths.max()}; wanted 1 to {x.shape[1]}, the batch's")


class Recurrent(nn.Module):
    """An LSTM or a GRU; the state after the last element is classified, Cho et al.'s summary of the whole (sec. 2.2).

    A mean over all states would do too, but the recurrence is there to carry what matters to the end.

    Args:
        width: of the state, of each direction, and of a token's embedding.
        depth: recurrent layers on top of each other, with dropout between them.
        bidirectional: a second reader from the end to the start; both last states are classified.
    """

    def __init__(
        self,
        cell: type[nn.LSTM] | type[nn.GRU],
        *,
        width: int = 128,
        depth: int = 1,
        bidirectional: bool = False,
        vocab_size: int | None = None,
        num_classes: int = 10,
        in_channels: int = 28,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.vocab_size = vocab_size
        self.directions = 2 if bidirectional else 1
        self.embed = nn.Identity() if vocab_size is None else nn.Embedding(vocab_size, width)
        self.core = cell(  # fresh weights are PyTorch's: U(-a, a), a = width ** -0.5
            in_channels if vocab_size is None else width,
            width,
            depth,
            batch_first=True,
            dropout=dropout if depth > 1 else 0.0,
            bidirectional=bidirectional,
        )
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(self.directions * width, num_classes)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:  # -> (B, num_classes)
        _check_input(x, lengths, vocab_size=self.vocab_size)
        x = self.embed(x)  # (B, L, C)
        if lengths is None:
            _, state = self.core(x)
        else:
            _, state = self.core(
                nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            )
        last = state[0] if isinstance(state, tuple) else state  # an LSTM's second is its cells
        last = last[-self.directions :].transpose(0, 1).flatten(1)  # (depth directions, B, D) -> (B, directions D)
        return self.fc(self.drop(last))  # type: ignore[no-any-return]


def sinusoids(length: int, width: int) -> Tensor:
    """(L, D): sines in the even columns, cosines in the odd ones, wavelengths from 2 pi to 10000 * 2 pi (sec. 3.5)."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    angle = position * 10000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)  # (L, D / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width].float()


class EncoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). (B, L, D) -> (B, L, D)."""

    def __init__(self, width: int, *, num_heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, num_heads=num_heads, dropout=dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden=hidden, dropout=dropout)

    def forward(self, x: Tensor, real_B11L: Tensor | None) -> Tensor:
        x = x + self.attn(self.norm1(x), real_B11L)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class TransformerEncoder(nn.Module):
    """A stack of encoder layers; the mean over the real elements is classified, since none of them comes last.

    Positions are sines and cosines: as good as learned ones in the paper (Table 3, row E), and without parameters, so
    that the same weights serve another max_length.

    Args:
        width, depth: of the layers, and their number.
        mlp_ratio: the perceptron's width over `width`.
        max_length: the longest sequence that is taken.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        width: int = 128,
        depth: int = 2,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,  # Table 3, base: 2048 / 512
        max_length: int = 512,
        vocab_size: int | None = None,
        num_classes: int = 10,
        in_channels: int = 28,
        dropout: float = 0.1,  # Table 3, base
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.vocab_size = vocab_size
        self.embed = nn.Linear(in_channels, width) if vocab_size is None else nn.Embedding(vocab_size, width)
        self.register_buffer("positions", sinusoids(max_length, width), persistent=False)
        self.pos_drop = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(width, num_heads=num_heads, hidden=int(width * mlp_ratio), dropout=dropout)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)
        xavier_uniform_(self, kinds=(nn.Linear,))  # as in nn.Transformer; embeddings keep PyTorch's N(0, 1)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:  # -> (B, num_classes)
        _check_input(x, lengths, vocab_size=self.vocab_size)
        if x.shape[1] > len(self.positions):
            raise ValueError(f"got sequences of {x.shape[1]}; this model takes up to max_length={len(self.positions)}")
        x = self.pos_drop(self.embed(x) + self.positions[: x.shape[1]])  # (B, L, D)
        real = None
        if lengths is not None:
            real = torch.arange(x.shape[1], device=x.device) < lengths[:, None, None, None]  # (B, 1, 1, L)
        for layer in self.layers:
            x = layer(x, real)
        x = self.norm(x)
        if real is None:
            x = x.mean(1)  # (B, D)
        else:
            weight = real[:, 0, 0, :, None]  # (B, L, 1)
            x = (x * weight).sum(1) / weight.sum(1)
        return self.fc(self.drop(x))  # type: ignore[no-any-return]


_sequence = partial(register_model, kind="sequence", input_size=(28, 28))  # (length, channels): MNIST by rows
lstm = _sequence("lstm", partial(Recurrent, nn.LSTM))
gru = _sequence("gru", partial(Recurrent, nn.GRU))
transformer_encoder = _sequence("transformer_encoder", TransformerEncoder)
