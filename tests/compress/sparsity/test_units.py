"""Dead units go, living ones are sorted, and the function stays."""

import pytest
import torch

from compress.dependency.groups import find_groups
from compress.recovery.masks import nonzeros
from compress.sparsity.dead import remove_dead_units
from compress.sparsity.order import in_order_of_weights, reorder_
from zoo.cost import count_parameters
from zoo.create import create_model


def sparse(name, size, share, **options):
    """A model of which a random share of the weights lives, and all else is random too."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=4, **options).double()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(0.5 + torch.rand_like(tensor) if tensor.ndim == 1 else torch.randn_like(tensor))
        for name, alive in nonzeros(model).items():
            model.get_submodule(name).weight.mul_(torch.rand(alive.shape) < share)
    return model.eval(), torch.randn(3, *size, dtype=torch.float64)


def test_units_that_nothing_reads_go_and_nothing_changes():
    model, images = sparse("lenet5_caffe", (1, 28, 28), 0.3)
    with torch.no_grad():
        model.conv1.weight[3] = 0.0
        model.conv1.bias[3] = 0.0
        model.conv2.weight[:, 5] = 0.0
        model.fc1.weight[:, 16 * 7 : 16 * 8] = 0.0  # channel 7 of conv2, 4 x 4 pixels
        model.fc2.weight[:, 100:] = 0.0
        expected = model(images)
    smaller = remove_dead_units(model, (1, 28, 28))
    assert smaller.conv1.out_channels == 18
    assert smaller.conv2.out_channels == 49
    assert smaller.fc1.out_features == int((model.fc2.weight != 0).any(dim=0).sum()) <= 100
    with torch.no_grad():
        torch.testing.assert_close(smaller(images), expected)
    assert count_parameters(model) == 431_080 - 6 * 501  # the caller's is as it was: ten classes less six


def test_what_fed_only_the_dead_is_dead_too():
    model, images = sparse("lenet_300_100", (1, 28, 28), 0.2)
    with torch.no_grad():
        model.fc3.weight[:, 1:] = 0.0  # one unit of fc2 is read
        model.fc2.weight[0, 7:] = 0.0  # and it reads seven of fc1
        expected = model(images)
    smaller = remove_dead_units(model, (1, 28, 28))
    assert smaller.fc2.out_features == 1
    assert smaller.fc1.out_features == int((model.fc2.weight[0] != 0).sum()) <= 7
    with torch.no_grad():
        torch.testing.assert_close(smaller(images), expected)


def test_a_unit_that_nothing_feeds_is_forgotten_with_its_bias():
    model, images = sparse("lenet_300_100", (1, 28, 28), 0.2)
    with torch.no_grad():
        model.fc1.weight[4] = 0.0
        model.fc1.bias[4] = 0.0
        expected = model(images)
        model.fc1.bias[4] = 3.0
    smaller = remove_dead_units(model, (1, 28, 28))
    assert smaller.fc1.out_features == 299
    with torch.no_grad():
        torch.testing.assert_close(smaller(images), expected)


def test_one_unit_stays_of_a_dead_layer():
    model, images = sparse("lenet_300_100", (1, 28, 28), 0.2)
    with torch.no_grad():
        model.fc2.weight.zero_()
    smaller = remove_dead_units(model, (1, 28, 28))
    assert (smaller.fc1.out_features, smaller.fc2.out_features) == (1, 1)
    assert smaller(images).shape == (3, 4)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("lenet5_caffe", (1, 28, 28), {"width": 0.4}),
        ("lenet_300_100", (1, 28, 28), {"width": 0.2}),
        ("resnet20", (3, 32, 32), {"stages": (1, 1), "width": 16}),
    ],
)
def test_order_changes_nothing_but_the_order(name, size, options):
    model, images = sparse(name, size, 0.3, **options)
    ordered = in_order_of_weights(model, size)
    with torch.no_grad():
        torch.testing.assert_close(ordered(images), model(images))
    groups = find_groups(ordered.float(), torch.zeros(1, *size)).groups
    assert groups
    for group in groups:
        first = group.slices[0]
        if len(group.slices) == 2:  # made by one layer and read by one: no residual, no norm
            made = (ordered.get_submodule(first.module).weight != 0).flatten(1).sum(1)
            reader = ordered.get_submodule(group.slices[1].module).weight
            read = (reader != 0).movedim(1, 0).flatten(1).sum(1).view(group.width, -1).sum(1)
            assert ((made + read).diff() <= 0).all()


def test_a_wrong_order_would_be_seen():
    """The control: a group reordered in all modules but one computes something else."""
    model, images = sparse("lenet_300_100", (1, 28, 28), 0.3)
    group = find_groups(model.float(), torch.zeros(1, 1, 28, 28)).groups[0]
    model = model.double()
    expected = model(images)
    reader = group.slices[-1]
    saved = model.get_submodule(reader.module).weight.detach().clone()
    reorder_(model, group, torch.randperm(group.width).numpy())
    with torch.no_grad():
        model.get_submodule(reader.module).weight.copy_(saved)
    assert (model(images) - expected).abs().max() > 0.1 * expected.std()
