"""One interface over what runs a network: torch, eager and compiled, onnxruntime with its providers, and OpenVINO.

Each runs the network alone, from prepared tensors to logits. Those that run ONNX import no torch: start-up and memory
would otherwise be torch's. What would silently run elsewhere than it was asked to is an error.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from compress.benchmark.clock import Clock, CudaClock, HostClock
from zoo.errors import SlimzooError, UsageError
from zoo.files.onnx_session import open_session, refusal

if TYPE_CHECKING:
    import onnx

ONNX_FILE = "model.onnx"


class Runtime(Protocol):
    """A network that is ready to run.

    Attributes:
        name: its key in RUNTIMES.
        device: "cpu", or the GPU's name.
        precision: "fp32", "tf32", "fp16", "bf16", "int8" or "int8-dynamic"; of an ONNX file, that of its weights.
        input_shape: (C, H, W) of one prepared image.
    """

    name: str
    device: str
    precision: str
    input_shape: tuple[int, int, int]

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, C, H, W) to logits (B, classes); returns when they are there."""


@runtime_checkable
class OnDevice(Protocol):
    """A runtime that tells its device apart from the way to it.

    Attributes:
        device_ms: how long the last run kept the device busy.
    """

    device_ms: float | None

    def device_peak_bytes(self) -> int | None:
        """The most memory that it has held on a device; None of a CPU, whose memory is the process's."""


class TorchRuntime:
    """torch in eager mode, compiled by its own compiler for one shape, or recorded as a CUDA graph; channels last."""

    def __init__(
        self,
        name: str,
        path: str | Path,
        *,
        threads: int,
        device: str,
        precision: str,
        how: Literal["eager", "compiled", "graph"] = "eager",
    ) -> None:
        import torch

        from zoo.files.model_directory import load_model

        torch.set_num_threads(threads)
        with contextlib.suppress(RuntimeError):  # it can be set once a process, and these networks never use it
            torch.set_num_interop_threads(1)
        if device == "cuda" and not torch.cuda.is_available():
            raise SlimzooError("no CUDA device")
        from zoo.layout import layout_of

        loaded = load_model(str(path))
        self.name, self.precision, self._torch, self._target = name, precision, torch, torch.device(device)
        self.device = torch.cuda.get_device_name() if device == "cuda" else device
        self.input_shape = loaded.config.input_size
        self._dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
        if device == "cuda":  # by itself torch takes tf32 for convolutions and not for products
            backends: Any = torch.backends  # whose modules make their attributes as they are asked for
            backends.cudnn.conv.fp32_precision = "tf32" if precision == "tf32" else "ieee"
            backends.cuda.matmul.fp32_precision = backends.cudnn.conv.fp32_precision
        layout = layout_of(loaded.model)
        model = loaded.model.eval().to(self._target, self._dtype).to(memory_format=layout)
        compiled = torch.compile(model, dynamic=False) if how == "compiled" else model
        self._model = Recorded(compiled, torch.cuda) if how == "graph" else compiled
        self._clock: Clock = CudaClock(torch.cuda) if device == "cuda" else HostClock()
        self.device_ms: float | None = None

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        torch = self._torch
        with torch.inference_mode():
            x = torch.from_numpy(batch).to(self._target, self._dtype, memory_format=torch.channels_last)
            with self._clock:
                logits = self._model(x)
            array: NDArray[np.float32] = logits.float().cpu().numpy()  # .cpu() waits for the device
        self.device_ms = self._clock.ms()
        return array

    def device_peak_bytes(self) -> int | None:
        return int(self._torch.cuda.max_memory_allocated()) if self._target.type == "cuda" else None


class Recorded:
    """A network whose work was recorded once, for one shape, and is told to the GPU by a single call: a CUDA graph.

    Args:
        cuda: torch.cuda.
    """

    def __init__(self, model: Any, cuda: Any) -> None:
        self._model, self._cuda = model, cuda
        self._graph: Any = None
        self._input: Any = None

    def __call__(self, x: Any) -> Any:
        if self._graph is None or self._input.shape != x.shape:
            self._record(x)
        self._input.copy_(x)
        self._graph.replay()
        return self._output

    def _record(self, x: Any) -> None:
        """On another stream first, as torch's notes on CUDA graphs ask: by then all is allocated and chosen."""
        cuda, self._input = self._cuda, x.clone()
        stream = cuda.Stream()
        stream.wait_stream(cuda.current_stream())
        with cuda.stream(stream):
            for _ in range(RECORDED_AFTER):
                self._model(self._input)
        cuda.current_stream().wait_stream(stream)
        self._graph = cuda.CUDAGraph()
        with cuda.graph(self._graph):
            self._output = self._model(self._input)


class OnnxRuntime:
    """onnxruntime with one of its providers, its options at their defaults except for the threads."""

    def __init__(
        self, name: str, network: str | bytes, *, provider: str, device: str, threads: int, precision: str
    ) -> None:
        import onnxruntime

        if provider not in onnxruntime.get_available_providers():
            raise SlimzooError(f"this onnxruntime has no {provider}: pip install onnxruntime-gpu")
        self.name, self.device = name, device
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only: warnings on stderr belong to nobody here
        self._session = open_session(network, options, runtime=name, provider=provider)
        if (got := self._session.get_providers())[0] != provider:
            raise SlimzooError(f"onnxruntime fell back to {got[0]}, wanted {provider}")
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            shapes = [x.shape for x in inputs]
            raise UsageError(f"inputs of shapes {shapes}: wanted one, (batch, channels, height, width)")
        channels, height, width = inputs[0].shape[1:]
        if not (isinstance(channels, int) and isinstance(height, int) and isinstance(width, int)):
            raise UsageError(f"input of shape {inputs[0].shape}: channels, height and width must be fixed")
        self._input = inputs[0].name
        self._dtype = {"tensor(float)": np.float32, "tensor(float16)": np.float16}.get(inputs[0].type)
        if self._dtype is None:
            raise UsageError(f"input of type {inputs[0].type}: wanted float or float16")
        self.input_shape, self.precision = (channels, height, width), precision

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._session.run(None, {self._input: batch.astype(self._dtype, copy=False)})[0]
        return logits


class OpenVino:
    """OpenVINO on the CPU, for latency; in the precision of the file, where it would take bfloat16 by itself."""

    name, device = "openvino", "cpu"

    def __init__(self, network: str | bytes, *, threads: int, precision: str) -> None:
        try:
            import openvino
        except ImportError as error:
            raise SlimzooError("OpenVINO is not installed: pip install 'slimzoo[openvino]'") from error
        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            self._compiled = core.compile_model(core.read_model(network), "CPU", settings)
        except RuntimeError as error:
            raise refusal(error, self.name) from error
        shape = self._compiled.input(0).get_partial_shape()
        if len(shape) != 4 or any(shape[i].is_dynamic for i in (1, 2, 3)):
            raise UsageError(f"input of shape {shape}: channels, height and width must be fixed")
        self.input_shape = tuple(shape[i].get_length() for i in (1, 2, 3))
        self.precision = precision

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._compiled(batch)[0]
        return logits


def open_torch(
    path: str | Path, *, threads: int = 1, precision: str | None = None, name: str = "torch", compiled: bool = False
) -> Runtime:
    if precision not in (None, "fp32"):
        raise UsageError(f"torch on the CPU is measured in fp32, not {precision}")
    how: Literal["eager", "compiled"] = "compiled" if compiled else "eager"
    return TorchRuntime(name, path, threads=threads, device="cpu", precision="fp32", how=how)


def open_torch_cuda(
    path: str | Path, *, threads: int = 1, precision: str | None = None, name: str = "torch-cuda"
) -> Runtime:
    """The copies to and from the device are part of a run; what it does in between is told apart."""
    if precision not in (None, *OF_CUDA):
        raise UsageError(f"{name} is measured in {', '.join(OF_CUDA)}, not {precision}")
    return TorchRuntime(name, path, threads=threads, device="cuda", precision=precision or "fp32", how=TORCH_CUDA[name])


def open_onnxruntime(
    path: str | Path, *, threads: int = 1, precision: str | None = None, name: str = "onnxruntime"
) -> Runtime:
    """Open a model directory or an ONNX file.

    Args:
        path: a model directory with model.onnx, or an ONNX file.
        threads: intra-op threads.
        precision: what the caller knows of a file that is the network alone, written by `bare_network`: it is then not
            read again, and the memory of this process is onnxruntime's. None: the file is read.
    """
    network, precision = _bare(path, precision)
    provider, device = PROVIDERS[name]
    return OnnxRuntime(name, network, provider=provider, device=device, threads=threads, precision=precision)


def open_openvino(path: str | Path, *, threads: int = 1, precision: str | None = None) -> Runtime:
    """See `open_onnxruntime`."""
    network, precision = _bare(path, precision)
    return OpenVino(network, threads=threads, precision=precision)


def _bare(path: str | Path, precision: str | None) -> tuple[str | bytes, str]:
    if precision is not None:
        return str(path), precision
    network = _network(Path(path))
    return network.SerializeToString(), precision_of(network)


OF_CUDA = ("fp32", "tf32", "fp16", "bf16")  # precisions of torch on a GPU
TORCH_CUDA: dict[str, Literal["eager", "compiled", "graph"]] = {
    "torch-cuda": "eager",
    "torch-cuda-compile": "compiled",
    "torch-cuda-graph": "graph",
}
RECORDED_AFTER = 3  # runs
PROVIDERS = {
    "onnxruntime": ("CPUExecutionProvider", "cpu"),
    "onnxruntime-cuda": ("CUDAExecutionProvider", "cuda"),
    "onnxruntime-tensorrt": ("TensorrtExecutionProvider", "cuda"),
}
RUNTIMES: dict[str, Callable[..., Runtime]] = {
    **{name: functools.partial(open_onnxruntime, name=name) for name in PROVIDERS},
    "openvino": open_openvino,
    "torch": open_torch,
    "torch-compile": functools.partial(open_torch, name="torch-compile", compiled=True),
    **{name: functools.partial(open_torch_cuda, name=name) for name in TORCH_CUDA},
}


def bare_network(path: Path, out: Path) -> str:
    """Write the network of a model directory or ONNX file, without its preprocessing, to `out`; gives its precision."""
    network = _network(path)
    out.write_bytes(network.SerializeToString())
    return precision_of(network)


def precision_of(network: onnx.ModelProto) -> str:
    """Tell the precision by what is in the graph, not by what was asked for."""
    from onnx import TensorProto

    kinds = {node.op_type for node in network.graph.node}
    if any("QLinear" in kind or kind == "QuantizeLinear" for kind in kinds):
        return "int8"
    if kinds & {"DynamicQuantizeLinear", "DynamicQuantizeLSTM"}:
        return "int8-dynamic"
    values: Counter[int] = Counter()
    for tensor in network.graph.initializer:
        values[tensor.data_type] += math.prod(tensor.dims)
    names = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
    return max(names.items(), key=lambda named: values[named[0]])[1]


def _network(path: Path) -> Any:
    from compress.deployment.export import network_of

    file = path / ONNX_FILE if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"no {file}: run `slimzoo export {path}`")
    return network_of(file)
