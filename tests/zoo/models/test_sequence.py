import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import zoo
from zoo.models.registry import model_entry

NAMES = ["lstm", "gru", "transformer_encoder"]
DEEP = [
    ("lstm", {"width": 6}),
    ("gru", {"width": 6, "depth": 2, "bidirectional": True}),
    ("lstm", {"width": 6, "depth": 2, "bidirectional": True}),
    ("transformer_encoder", {"width": 6, "depth": 2, "num_heads": 2}),
]


def build(name, **options):
    torch.manual_seed(0)
    return zoo.create_model(name, **options)


def products(core, layer, x, h):
    """What every gate gets from the input and from the last state: W x + b and U h + b'."""
    w, u, b, b2 = (getattr(core, f"{part}_{layer}") for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return w @ x + b, u @ h + b2


def lstm_step(core, layer, x, state):
    """Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000."""
    h, c = state
    i, f, g, o = sum(products(core, layer, x, h)).chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_step(core, layer, x, state):
    """Cho et al. 2014, eq. 5 to 8, the reset gate after the recurrent product."""
    (h,) = state
    (r_x, z_x, n_x), (r_h, z_h, n_h) = (product.chunk(3) for product in products(core, layer, x, h))
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    return (z * h + (1 - z) * torch.tanh(n_x + r * n_h),)


STEPS = {"lstm": (lstm_step, 2), "gru": (gru_step, 1)}


def read(name: str, model: nn.Module, sequence: Tensor, width: int) -> Tensor:
    """(L, C) -> logits, an element, a layer and a direction at a time."""
    step, states = STEPS[name]
    for k in range(model.core.num_layers):
        outputs = []
        for suffix in ("", "_reverse")[: model.directions]:
            state, seen = (torch.zeros(width).double(),) * states, []
            for x in sequence.flip(0) if suffix else sequence:
                state = step(model.core, f"l{k}{suffix}", x, state)
                seen.append(state[0])
            outputs.append(torch.stack(seen[::-1] if suffix else seen))
        last = torch.cat([outputs[0][-1], *(o[0] for o in outputs[1:])])
        sequence = torch.cat(outputs, dim=1)
    return model.fc.weight @ last + model.fc.bias


@pytest.mark.parametrize(("name", "options"), [case for case in DEEP if case[0] in STEPS])
def test_a_recurrent_network_is_its_equations(name, options):
    model = build(name, in_channels=3, **options).double()
    x = torch.randn(2, 5, 3).double()
    torch.testing.assert_close(model(x), torch.stack([read(name, model, sequence, 6) for sequence in x]))


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 7, 1])])
def test_the_transformer_is_torchs_encoder_layers(lengths):
    D, L = 12, 7
    model = build("transformer_encoder", width=D, depth=2, num_heads=3, in_channels=5, dropout=0.0).double()
    x = torch.randn(3, L, 5).double()
    padding = None if lengths is None else torch.arange(L) >= lengths[:, None]
    positions = torch.tensor(
        [[(math.cos if i % 2 else math.sin)(p / 10000 ** (i // 2 * 2 / D)) for i in range(D)] for p in range(L)]
    )
    y = model.embed(x) + positions.double()
    for layer in model.layers:
        for norm in (layer.norm1, layer.norm2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.2, 0.2)
        reference = nn.TransformerEncoderLayer(
            D, 3, 4 * D, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        ).double()
        names = {
            "attn.qkv.weight": "self_attn.in_proj_weight",
            "attn.qkv.bias": "self_attn.in_proj_bias",
            "attn.proj.weight": "self_attn.out_proj.weight",
            "attn.proj.bias": "self_attn.out_proj.bias",
            "mlp.fc1.weight": "linear1.weight",
            "mlp.fc1.bias": "linear1.bias",
            "mlp.fc2.weight": "linear2.weight",
            "mlp.fc2.bias": "linear2.bias",
        }
        reference.load_state_dict({names.get(k, k): v for k, v in layer.state_dict().items()}, strict=True)
        y = reference(y, src_key_padding_mask=padding)
    y = F.layer_norm(y, (D,), eps=1e-5)
    lengths_of = [L] * 3 if lengths is None else lengths.tolist()
    mean = torch.stack([y[i, :n].mean(0) for i, n in enumerate(lengths_of)])
    expected = mean @ model.fc.weight.T + model.fc.bias
    torch.testing.assert_close(model(x, lengths), expected, rtol=1e-6, atol=1e-6)  # the positions are float32


@pytest.mark.parametrize("vocab_size", [None, 11])
@pytest.mark.parametrize(("name", "options"), DEEP)
def test_padding_changes_nothing(name, options, vocab_size):
    model = build(name, in_channels=3, vocab_size=vocab_size, **options).double().eval()
    lengths = torch.tensor([4, 9, 1, 6])
    x = torch.randn(4, 9, 3).double() if vocab_size is None else torch.randint(1, vocab_size, (4, 9))
    for padding in (0, 7):
        for sequence, n in zip(x, lengths.tolist(), strict=True):
            sequence[n:] = padding
        together = model(x, lengths)
        for i, n in enumerate(lengths.tolist()):
            torch.testing.assert_close(together[i : i + 1], model(x[i : i + 1, :n]), rtol=1e-12, atol=1e-12)
        changed = (model(x) - together).abs().amax(dim=1) > 1e-3
        assert changed.tolist() == [True, False, True, True]  # without lengths, all but the longest


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [
        ("lstm", 28 * 4 * 128 * (28 + 128), 4 * 128 * (28 + 128 + 2)),
        ("gru", 28 * 3 * 128 * (28 + 128), 3 * 128 * (28 + 128 + 2)),
        (
            "transformer_encoder",
            28 * 28 * 128 + 2 * (28 * 12 * 128**2 + 2 * 28**2 * 128),  # qkv and proj 4, MLP 8; both products
            29 * 128 + 2 * (12 * 128**2 + 13 * 128) + 2 * 128,  # biases 3 + 1 + 4 + 1, two norms
        ),
    ],
)
def test_costs_counted_by_hand(name, macs, parameters):
    model, entry = build(name), model_entry(name)
    assert (entry.kind, entry.input_size) == ("sequence", (28, 28))
    assert zoo.count_parameters(model) == parameters + 129 * 10
    assert zoo.count_macs(model, entry.input_size) == macs + 128 * 10


def train_(model, lr, epochs, labels, *inputs):
    """Adam, a rate that falls to zero, batches of 64."""
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(*(each[batch] for each in inputs)), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    return model.eval()


@pytest.mark.parametrize(("name", "lr", "accuracy"), [("lstm", 1e-2, 0.85), ("gru", 1e-2, 0.85), (NAMES[2], 5e-3, 0.9)])
def test_learns_digits_row_by_row(name, lr, accuracy):
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images, labels = torch.tensor(digits.images / 16).float()[order], torch.tensor(digits.target)[order]  # (n, 8, 8)
    model = train_(build(name, width=32, in_channels=8), lr, 10, labels[:1200], images[:1200])
    with torch.no_grad():
        assert (model(images[1200:]).argmax(1) == labels[1200:]).float().mean() > accuracy


@pytest.mark.parametrize(("name", "lr"), [("lstm", 1e-2), ("gru", 1e-2), ("transformer_encoder", 5e-3)])
def test_learns_a_majority_of_tokens_of_padded_sequences(name, lr):
    """Are most tokens 1 or 2, and not 3 or 4? Padding is filled with 1."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 5, (2000, 15), generator=generator)
    lengths = torch.randint(5, 16, (2000,), generator=generator)
    real = torch.arange(15) < lengths[:, None]
    labels = ((tokens <= 2) & real).sum(1).mul(2).gt(lengths).long()
    tokens[~real] = 1
    model = build(name, width=32, depth=1, vocab_size=5, num_classes=2)
    model = train_(model, lr, 4, labels[:1500], tokens[:1500], lengths[:1500])
    with torch.no_grad():
        assert (model(tokens[1500:], lengths[1500:]).argmax(1) == labels[1500:]).float().mean() > 0.95
        assert (model(tokens[1500:]).argmax(1) == labels[1500:]).float().mean() < 0.85  # fooled by the padding


@pytest.mark.filterwarnings("ignore:The tensor attributes self.core._flat_weights")  # torch's own, of nn.LSTM
@pytest.mark.parametrize(
    ("name", "options"),
    [("lstm", {}), ("gru", {"vocab_size": 11, "bidirectional": True}), ("transformer_encoder", {"vocab_size": 11})],
)
def test_exports_with_a_dynamic_batch(name, options):
    model = build(name, **options).eval()
    x = torch.randint(0, 11, (5, 28)) if "vocab_size" in options else torch.randn(5, 28, 28)
    program = torch.export.export(model, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for batch in (2, 5):
        torch.testing.assert_close(program(x[:batch]), model(x[:batch]))


def test_the_same_weights_serve_another_max_length():
    short, long = build("transformer_encoder", max_length=28).eval(), zoo.create_model("transformer_encoder").eval()
    long.load_state_dict(short.state_dict(), strict=True)
    x = torch.randn(2, 29, 28)
    torch.testing.assert_close(short(x[:, :20]), long(x[:, :20]))
    with pytest.raises(ValueError, match=r"got sequences of 29; this model takes up to max_length=28"):
        short(x)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_input_is_answered_with_the_right_one(name):
    rows, tokens = build(name), build(name, vocab_size=5)
    with pytest.raises(ValueError, match=r"shape \(2, 1, 28, 28\); this model takes floats \(B, L, in_channels\)"):
        rows(torch.zeros(2, 1, 28, 28))
    with pytest.raises(ValueError, match=r"shape \(2, 28\); .* tokens need vocab_size"):
        rows(torch.zeros(2, 28))
    with pytest.raises(ValueError, match=r"shape \(2, 28, 28\); this model takes tokens \(B, L\)"):
        tokens(torch.zeros(2, 28, 28))
    for lengths in ([0, 3], [4, 29]):
        with pytest.raises(ValueError, match=rf"lengths from {lengths[0]} to {lengths[1]}; wanted 1 to 28"):
            rows(torch.zeros(2, 28, 28), torch.tensor(lengths))
    with pytest.raises(ValueError, match="width=10 is not a multiple of num_heads=4"):
        build("transformer_encoder", width=10)
