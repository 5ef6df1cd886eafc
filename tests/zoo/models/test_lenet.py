import pytest
import torch
import torch.nn.functional as F

import zoo


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("lenet5", 61_706),  # 156 + 2,416 + 48,120 + 10,164 + 850
        ("lenet5_caffe", 431_080),  # Han et al. 2015, Table 4: 431K
        ("lenet_300_100", 266_610),  # Han et al. 2015, Table 3: 267K
    ],
)
def test_published_parameter_counts(name, parameters):
    assert zoo.count_parameters(zoo.create_model(name)) == parameters


def test_lenet5_is_the_function_of_its_docstring():
    model, x = zoo.create_model("lenet5").double(), torch.randn(2, 1, 28, 28).double()
    w = model.state_dict()
    out = F.pad(x, (2, 2, 2, 2))  # the paper's 32 x 32
    out = F.max_pool2d(F.conv2d(out, w["conv1.weight"], w["conv1.bias"]).relu(), 2)
    out = F.max_pool2d(F.conv2d(out, w["conv2.weight"], w["conv2.bias"]).relu(), 2)
    out = F.linear(out.reshape(2, 400), w["fc1.weight"], w["fc1.bias"]).relu()
    out = F.linear(out, w["fc2.weight"], w["fc2.bias"]).relu()
    torch.testing.assert_close(model(x), F.linear(out, w["fc3.weight"], w["fc3.bias"]))


def test_caffe_has_one_relu():
    model, x = zoo.create_model("lenet5_caffe").double(), torch.randn(2, 1, 28, 28).double()
    w = model.state_dict()
    out = F.max_pool2d(F.conv2d(x, w["conv1.weight"], w["conv1.bias"]), 2)
    out = F.max_pool2d(F.conv2d(out, w["conv2.weight"], w["conv2.bias"]), 2)
    out = F.linear(out.reshape(2, 800), w["fc1.weight"], w["fc1.bias"]).relu()
    torch.testing.assert_close(model(x), F.linear(out, w["fc2.weight"], w["fc2.bias"]))


def test_lenet_300_100_is_three_linears():
    model, x = zoo.create_model("lenet_300_100").double(), torch.randn(2, 1, 28, 28).double()
    w = model.state_dict()
    out = F.linear(x.reshape(2, 784), w["fc1.weight"], w["fc1.bias"]).relu()
    out = F.linear(out, w["fc2.weight"], w["fc2.bias"]).relu()
    torch.testing.assert_close(model(x), F.linear(out, w["fc3.weight"], w["fc3.bias"]))
