import pytest
import torch
import torch.nn.functional as F

import zoo


def test_the_count_by_hand():
    assert zoo.count_parameters(zoo.create_model("mlp")) == 785 * 512 + 513 * 256 + 257 * 10


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_mlp_is_the_function_of_its_docstring(activation):
    torch.manual_seed(0)
    model = zoo.create_model("mlp", widths=(7, 5, 6), in_channels=2, image_size=4, activation=activation).double()
    x = torch.randn(3, 2, 4, 4).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # fresh biases are 0
            if name.endswith("bias"):
                parameter.uniform_(-1, 1)
    w = model.state_dict()
    out = x.reshape(3, 32)
    for i in (0, 3, 6):
        out = getattr(torch, activation or "relu")(F.linear(out, w[f"layers.{i}.weight"], w[f"layers.{i}.bias"]))
    expected = F.linear(out, w["fc.weight"], w["fc.bias"])
    torch.testing.assert_close(model(x), expected)
    with torch.no_grad():
        model.layers[3].weight *= 1.1
    assert not torch.allclose(model(x), expected)


def test_gradients_are_the_papers_back_propagation():
    model = zoo.create_model("mlp", widths=(7, 5), image_size=4, activation="sigmoid").double()
    x, labels = torch.randn(3, 1, 4, 4).double(), torch.tensor([0, 3, 9])
    first, second, last = model.layers[0], model.layers[3], model.fc
    F.cross_entropy(model(x), labels, reduction="sum").backward()
    with torch.no_grad():
        y0 = x.reshape(3, 16)
        y1 = 1 / (1 + torch.exp(-(y0 @ first.weight.T + first.bias)))
        y2 = 1 / (1 + torch.exp(-(y1 @ second.weight.T + second.bias)))
        e = torch.exp(y2 @ last.weight.T + last.bias)
        delta = e / e.sum(1, keepdim=True)  # dE/dx of the outputs: cross-entropy in place of the paper's eq. 4 and 5
        delta[range(3), labels] -= 1
        torch.testing.assert_close(last.weight.grad, delta.T @ y2)  # eq. 6
        delta = delta @ last.weight * y2 * (1 - y2)  # eq. 7, then 5
        torch.testing.assert_close(second.weight.grad, delta.T @ y1)
        delta = delta @ second.weight * y1 * (1 - y1)
        torch.testing.assert_close(first.weight.grad, delta.T @ y0)
        torch.testing.assert_close(first.bias.grad, delta.sum(0))


def test_no_hidden_layer_is_softmax_regression():
    model, x = zoo.create_model("mlp", widths=()), torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(model(x), F.linear(x.flatten(1), model.fc.weight, model.fc.bias))


def test_dropout_follows_every_hidden_layer():
    model = zoo.create_model("mlp", widths=(1000, 1000), dropout=0.5).train()
    for i in (0, 3):
        model.layers[i].register_forward_hook(lambda _, __, out: torch.ones_like(out))
    seen = []
    model.layers[3].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.randn(1, 1, 28, 28))
    for hidden in seen:
        assert set(hidden.unique().tolist()) == {0.0, 2.0}
        assert hidden.count_nonzero() / 1000 == pytest.approx(0.5, abs=0.1)  # 6 standard deviations
    assert len(seen) == 2
