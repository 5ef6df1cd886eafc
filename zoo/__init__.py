"""Architectures, their weights, their cost, and the files that carry them."""

from zoo.lazy import lazily

HOMES = {
    "Console": "zoo.console",
    "Cost": "zoo.cost",
    "LoadedModel": "zoo.files.model_directory",
    "ModelConfig": "zoo.files.model_directory",
    "Predictor": "zoo.files.predictor",
    "Preprocess": "zoo.preprocess",
    "Progress": "zoo.progress",
    "Stage": "zoo.classifier",
    "count_cost": "zoo.cost",
    "count_macs": "zoo.cost",
    "count_parameters": "zoo.cost",
    "create_model": "zoo.create",
    "features": "zoo.classifier",
    "from_module": "zoo.files.own_module",
    "list_models": "zoo.models.registry",
    "load_coded": "zoo.files.coded_file",
    "load_image": "zoo.image",
    "load_model": "zoo.files.model_directory",
    "open_predictor": "zoo.files.predictor",
    "register_model": "zoo.models.registry",
    "reset_classifier_": "zoo.classifier",
    "save_model": "zoo.files.model_directory",
    "stages": "zoo.classifier",
}
__getattr__, __dir__, __all__ = lazily(__name__, HOMES)
