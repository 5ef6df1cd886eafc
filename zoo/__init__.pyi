"""Written by benchmarks/stubs.py: do not edit."""

from zoo.classifier import Stage as Stage
from zoo.classifier import features as features
from zoo.classifier import reset_classifier_ as reset_classifier_
from zoo.classifier import stages as stages
from zoo.console import Console as Console
from zoo.cost import Cost as Cost
from zoo.cost import count_cost as count_cost
from zoo.cost import count_macs as count_macs
from zoo.cost import count_parameters as count_parameters
from zoo.create import create_model as create_model
from zoo.files.coded_file import load_coded as load_coded
from zoo.files.model_directory import LoadedModel as LoadedModel
from zoo.files.model_directory import ModelConfig as ModelConfig
from zoo.files.model_directory import load_model as load_model
from zoo.files.model_directory import save_model as save_model
from zoo.files.own_module import from_module as from_module
from zoo.files.predictor import Predictor as Predictor
from zoo.files.predictor import open_predictor as open_predictor
from zoo.image import load_image as load_image
from zoo.models.registry import list_models as list_models
from zoo.models.registry import register_model as register_model
from zoo.preprocess import Preprocess as Preprocess
from zoo.progress import Progress as Progress

HOMES: dict[str, str]
__all__: list[str]
