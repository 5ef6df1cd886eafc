"""Models in memory, written to files for the processes that measure them."""

from __future__ import annotations

from pathlib import Path

from compress.deployment.export import finish
from compress.deployment.onnx_result import files_of, write_files
from compress.graph.network import export_network
from transfer.result import StepResult
from zoo.files.adopt import path_of
from zoo.files.manifest import write_manifest
from zoo.files.model_directory import LoadedModel, save_model


def written(model: str | Path | LoadedModel | StepResult, folder: Path) -> str | Path:
    """A path or name as it is; of a model in memory, and of a step's result, the directory that it is in.

    Args:
        folder: an empty one, in which a directory is made for what is in no file: "Net-prune-quantize".
    """
    model = model if isinstance(model, StepResult) else path_of(model)
    if isinstance(model, str | Path):
        return model
    if isinstance(model, StepResult) and model.out is not None:
        return model.out
    place = folder / "-".join([model.config.architecture, *(step["verb"] for step in model.config.lineage)])
    place.mkdir(parents=True)
    if isinstance(model, StepResult) and not isinstance(model, LoadedModel):
        model.write(place)
    else:
        save_model(place, model.model, model.config)
        network = finish(export_network(model.model, model.config.input_size), model.config, None)
        write_files(place, files_of(network.SerializeToString(), model.config))
    write_manifest(place)
    return place
