"""A pretrained model onto your data."""

from zoo.lazy import lazily

HOMES = {
    "Accuracy": "transfer.evaluation.metrics",
    "Data": "transfer.data.sources",
    "Evaluated": "transfer.evaluation.evaluate",
    "Finetuned": "transfer.training.finetune",
    "Fit": "transfer.fitting.settings",
    "Fitted": "transfer.fitting.step",
    "LabelledPixels": "transfer.data.loader",
    "Metrics": "transfer.evaluation.metrics",
    "Prediction": "transfer.prediction",
    "Recipe": "transfer.training.recipe",
    "StepResult": "transfer.result",
    "TrainingData": "transfer.training.batch",
    "evaluate": "transfer.evaluation.evaluate",
    "finetune": "transfer.training.finetune",
    "fit": "transfer.fitting.step",
    "from_arrays": "transfer.data.own_arrays",
    "load_pixels": "transfer.data.loader",
    "open_data": "transfer.data.dataset",
    "predict": "transfer.prediction",
    "stratified_split": "transfer.data.split",
}
__getattr__, __dir__, __all__ = lazily(__name__, HOMES)
