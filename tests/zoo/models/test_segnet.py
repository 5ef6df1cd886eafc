import pytest
import torch
import torchvision
from torch import nn

import zoo
from zoo.models import registry
from zoo.models.init import he_normal_

TINY = {"width": 1 / 32, "num_classes": 10}


def unpooled(x, indices, size):
    """Each value at the place, counted along the rows, that its maximum came from."""
    out = torch.zeros(*x.shape[:2], *size, dtype=x.dtype)
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            for value, index in zip(x[b, c].flatten(), indices[b, c].flatten(), strict=True):
                out[b, c, index // size[1], index % size[1]] = value
    return out


def maxima(x):
    """Max-pooling over 2 x 2, rounded up, by a loop; and the place of each maximum, counted along the rows."""
    rows, columns = x.shape[-2:]
    pooled = torch.empty(*x.shape[:2], -(-rows // 2), -(-columns // 2), dtype=x.dtype)
    indices = torch.empty(pooled.shape, dtype=torch.long)
    for b, c, i, j in torch.cartesian_prod(*(torch.arange(n) for n in pooled.shape)).tolist():
        places = [(y, z) for y in (2 * i, 2 * i + 1) for z in (2 * j, 2 * j + 1) if y < rows and z < columns]
        y, z = max(places, key=lambda place: x[b, c, place[0], place[1]])
        pooled[b, c, i, j], indices[b, c, i, j] = x[b, c, y, z], y * columns + z
    return pooled, indices


def test_the_function_is_the_papers():
    torch.manual_seed(0)
    model = zoo.create_model("segnet", **TINY).double().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_mean", "bias")):
                tensor.uniform_(-0.2, 0.2)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
        x = torch.randn(2, 3, 37, 23).double()
        steps = [m for m in model.features if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
        back = [m for m in model.decoder if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
        stages = (2, 2, 3, 3, 3)
        out, found = x, []
        for repeats in stages:
            for _ in range(repeats):
                conv, norm, *steps = steps
                out = norm(conv(out)).clamp(min=0)
            size = out.shape[-2:]
            out, indices = maxima(out)
            found.append((indices, size))
        for s in reversed(range(5)):
            out = unpooled(out, *found[s])
            for i in range(stages[s]):
                conv, *back = back
                out = conv(out)
                if (s, i) != (0, 1):
                    norm, *back = back
                    out = norm(out).clamp(min=0)
        assert not steps
        assert not back
        torch.testing.assert_close(model(x), out)
        model.decoder[1].weight *= 1.1
        assert not torch.allclose(model(x), out)


def test_the_count_by_hand():
    conv = lambda i, o: 9 * i * o + o  # noqa: E731
    encoder = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512)]
    encoder += [(512, 512)] * 5
    decoder = [(o, i) for i, o in encoder[1:]] + [(64, 11)]
    norms = 2 * sum(o for _, o in encoder) + 2 * sum(o for _, o in decoder[:-1])
    expected = sum(conv(i, o) for i, o in encoder + decoder) + norms
    assert round(expected / 1e6, 1) == 29.4
    with torch.device("meta"):
        assert zoo.count_parameters(zoo.create_model("segnet")) == expected == 29_449_355


def test_torchvisions_weights_start_the_encoder():
    torch.manual_seed(0)
    with torch.device("meta"):  # its Linears stay there
        reference = torchvision.models.vgg16_bn().eval()
    reference.features.to_empty(device="cpu")
    he_normal_(reference.features)
    for layer in reference.features:
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in layer.state_dict().values():
                tensor.copy_(0.5 + torch.rand(tensor.shape))
    model = zoo.create_model("segnet").eval()
    keys = model.load_state_dict(reference.state_dict(), strict=False)
    assert all(key.startswith("classifier.") for key in keys.unexpected_keys)
    assert all(key.startswith("decoder.") for key in keys.missing_keys)
    seen = []
    model.features[-1].register_forward_hook(lambda _, __, out: seen.append(out[0]))
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        model(x)
        torch.testing.assert_close(seen[0], reference.features(x))


@pytest.mark.parametrize("size", [(64, 96), (45, 61), (33, 32), (3, 1)])
def test_every_pixel_gets_logits(size):
    model = zoo.create_model("segnet", **TINY).eval()
    assert model(torch.randn(2, 3, *size)).shape == (2, 10, *size)


def test_the_papers_sizes():
    assert registry.model_entry("segnet").input_size == (3, 360, 480)
    assert registry.model_entry("segnet").kind == "dense"
    sizes = []
    with torch.device("meta"):
        model = zoo.create_model("segnet").eval()
        for layer in model.features:
            if isinstance(layer, nn.MaxPool2d):
                layer.register_forward_hook(lambda _, __, out: sizes.append(tuple(out[0].shape[-2:])))
        assert model(torch.empty(1, 3, 360, 480)).shape == (1, 11, 360, 480)
    # the release has upsample_h 23 and 45 for the two deepest, which only rounding up gives
    assert sizes == [(180, 240), (90, 120), (45, 60), (23, 30), (12, 15)]


def test_dropout_is_where_bayesian_segnet_has_it():
    model = zoo.create_model("segnet", width=1 / 8, dropout=0.5).train()
    zeros = {}  # shares of zeros that each dropout made of ones
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_pre_hook(lambda _, inputs: (torch.ones_like(inputs[0]),))
            module.register_forward_hook(
                lambda _, __, out, name=name: zeros.update(
                    {name: (tuple(out.shape[1:]), float((out == 0).float().mean()))}
                )
            )
    model(torch.randn(2, 3, 64, 64))
    # encdrop3, 4, 5 after the poolings, decdrop5, 4, 3 before the unpoolings of stages 4, 3, 2
    places = [(32, 8, 8), (64, 4, 4), (64, 2, 2), (64, 4, 4), (32, 8, 8), (16, 16, 16)]
    assert [shape for shape, _ in zeros.values()] == places
    assert all(share == pytest.approx(0.5, abs=0.13) for _, share in zeros.values())
