"""What compression can be told to do: a record for each verb, which the command line, `resume` and the report read."""

from __future__ import annotations

import transfer.verbs
from zoo.verb import Step, Verb

SMALLER, DEPLOY = "Make it smaller", "Deploy and measure"
ANY_SOURCE = "A model directory, timm:NAME, torchvision:NAME, a float32 .onnx file, or a file of weights with --arch."

PRUNE = Step(
    name="prune",
    help="Cut the least important channels and train the accuracy back.",
    panel=SMALLER,
    function="compress.pruning.step:prune",
    settings="compress.pruning.settings:Prune",
    source_help="A model directory, a file of weights with --arch, or, with --recover 0, timm:NAME.",
    data="optional",
    data_help="The data of the fit; needed to recover.",
    explain="compress.pruning.explain:explain",
    needs="float weights",
    gives="fewer channels",
)
SPARSIFY = Step(
    name="sparsify",
    help="Make single weights zero, gradually, taught by the model as it was.",
    panel=SMALLER,
    function="compress.sparsity.step:sparsify",
    settings="compress.sparsity.settings:Sparsify",
    explain="compress.sparsity.step:explain",
    needs="float weights",
    gives="zeros, which a coded file saves",
)
CLUSTER = Step(
    name="cluster",
    help="Let the weights of each layer share a few values, and train the values.",
    panel=SMALLER,
    function="compress.clustering.step:cluster",
    settings="compress.clustering.settings:Cluster",
    explain="compress.clustering.step:explain",
    needs="float weights, sparse or not",
    gives="few different weights, which a coded file saves",
)
DISTILL = Step(
    name="distill",
    help="Train a small model on the answers of a better one.",
    panel=SMALLER,
    function="compress.distillation.step:distill",
    settings="compress.distillation.settings:Distill",
    source="student",
    metavar="STUDENT",
    source_help="A model directory, or the name of a model.",
    data_help="The data of the teacher's fit.",
    adopt="compress.distillation.settings:adopt_both",
    needs="a fitted teacher",
    gives="a student's weights",
)
QUANTIZE = Step(
    name="quantize",
    help="Make an int8 ONNX model, calibrated on training images, or one in another format.",
    panel=SMALLER,
    function="compress.quantization.step:quantize",
    settings="compress.quantization.settings:Quantize",
    metavar="MODEL",
    source_help=ANY_SOURCE,
    data_help="The data of the fit; training images calibrate. Other images will do, unmeasured.",
    adopt="zoo.files.adopt:adopt_source_but_onnx",
    needs="float weights, or a float32 ONNX file",
    gives="an ONNX file in another number format",
)
EXPORT = Step(
    name="export",
    help="Write model.onnx: pixels in, probabilities out, class names inside; and deploy/, which runs anywhere.",
    panel=DEPLOY,
    function="compress.deployment.export:export",
    settings="compress.deployment.settings:Export",
    metavar="MODEL",
    source_help=ANY_SOURCE,
    data="none",
    out="optional",
    adopt="zoo.files.adopt:adopt_source_but_onnx",
    resumes=False,
    needs="float weights, or a float32 ONNX file",
    gives="an ONNX file, or a coded one",
)
COMPRESS = Step(
    name="compress",
    help="Say the budget, get the model: fit if need be, search, choose, and write it with what it is compared with.",
    panel=SMALLER,
    function="compress.plan.step:compress",
    settings="compress.plan.settings:Compress",
    source="source",
    metavar="SOURCE",
    source_help="A folder of images, or with --data a model: a directory, an ONNX file, timm:NAME or torchvision:NAME.",
    data="optional",
    data_help="The images, where SOURCE is a model.",
    out="optional",
    adopt="",
    dry_run="compress.plan.dry_run:planned",
    worker="compress.plan.worker:help_search",
    needs="labelled images, or float weights and their images",
    gives="the model that meets a budget, and all that were tried",
)
BENCH = Verb(
    name="bench",
    help="Measure latency, throughput, memory and size, each runtime in a process of its own, interleaved.",
    panel=DEPLOY,
    command="compress.commands:bench",
)
REPORT = Verb(
    name="report",
    help="Write OUT/report.md and OUT/report.html from the models' records and OUT/bench.json.",
    panel=DEPLOY,
    command="compress.commands:report",
)
RESUME = Verb(
    name="resume",
    help="Continue an interrupted step that trains; it ends as if it had never been interrupted.",
    panel=DEPLOY,
    command="compress.commands:resume",
)
DEMO = Verb(
    name="demo",
    help="The whole way on built-in data: fit, cuts, int8, what each costs, the report. About 5 minutes on two cores.",
    panel=DEPLOY,
    command="compress.commands:demo",
)
VERBS = (COMPRESS, PRUNE, SPARSIFY, CLUSTER, DISTILL, QUANTIZE, EXPORT, BENCH, REPORT, RESUME, DEMO)
STEPS = {verb.name: verb for verb in (*transfer.verbs.VERBS, *VERBS) if isinstance(verb, Step)}
