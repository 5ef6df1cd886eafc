"""slimzoo bench: how fast models run on this machine, and how sure that is.

Each (model, runtime) runs in a process of its own, only one of them awake at a time. Rounds are interleaved and
reversed every second time (A B, B A, ...), so that what drifts meets all alike. After a few rounds every process is
started anew: where a model comes to lie in memory makes it up to a tenth faster or slower for as long as its process
lives, and would be taken for its speed. A second copy of the reference runs along: what is measured between the two
copies is the machine's noise, and a difference inside it is called a tie. A round in which other work took the
processors is measured again; it stays on record, and what is said rests on the others. No other sample is dropped.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compress.benchmark.answer import given_photos, make_photos, median_photo
from compress.benchmark.diagnosis import Throttling
from compress.benchmark.machine import default_threads, describe_machine
from compress.benchmark.measuring import Settings, measure, reason_for, take_out
from compress.benchmark.outcome import outcome
from compress.benchmark.rows import Row, names_of, rows_of
from compress.benchmark.runtimes import RUNTIMES
from compress.benchmark.table import Benchmark
from compress.benchmark.unfinished import Unfinished
from compress.benchmark.written import written
from compress.report.crossover import crossovers
from transfer.result import StepResult
from zoo import lineage
from zoo.disk import check_file
from zoo.errors import UsageError, did_you_mean
from zoo.files.manifest import verify_manifest
from zoo.files.model_directory import LoadedModel, is_model_directory, read_config
from zoo.pretrained.upstream import is_upstream
from zoo.progress import Progress


def bench(
    models: Sequence[str | Path | LoadedModel | StepResult],
    *,
    runtimes: Sequence[str] | None = None,
    threads: int | None = None,
    batch: int | Sequence[int] = 1,
    rounds: int = 16,
    launches: int | None = None,
    seconds_per_round: float = 0.2,
    inputs: str | Path | None = None,
    photos: Sequence[str | Path] | None = None,
    save: str | Path | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Measure the latency of networks from prepared tensors, all on the same threads.

    Args:
        models: model directories, ONNX files, "timm:NAME", "torchvision:NAME", models in memory or results of steps.
            The first one's onnxruntime row is the reference.
        runtimes: names in RUNTIMES; None measures every one that a model has a file for.
        threads: None is one per physical core.
        batch: images a run; several are measured one after the other.
        rounds: of each row that nothing disturbed, which are looked for in up to three times as many.
        launches: processes of each row, one after the other, over which the rounds are spread; None is one for every
            two rounds. An interval is made of them; of the rounds of one, whose memory may make it faster or slower.
            Of six or more, as many follow while two copies of one model are not known to agree to 5%, up to 130 s.
        seconds_per_round: how long a row runs in each round, about.
        inputs: a .npy file of prepared images (N, C, H, W); None is normal noise.
        photos: of which the way to the answer is measured, of models that take pictures: decoding, preparing, network.
            None is made ones of three sizes, and the median one of the images that the first model was fitted to, if
            they are where they were.
        save: where to write the result as JSON; interrupted, an equal call goes on where this one was.
        progress: see `Progress`.

    Returns:
        A mapping, ready for JSON, whose text is a table: `rows`, `reference`, `noise`, `disturbed_share`, `diagnoses`,
        `crossovers` (CPU against GPU), `machine`, `versions`, `settings`. A row that could not be measured has null for
        numbers and a `reason`. `ratio` is the speed-up over the reference, `ratio_ci` its 95% interval; both are null
        where the machine was too busy, and `ratio_range` is then what the rounds lie between; `p90_ms` and `p99_ms`
        are null where there are too few samples. Of torch, `device_ms` is the network's on its device, `transfer_ms`
        the rest. `peak_mb` is the host memory of the row's process, `device_peak_mb` a GPU's; 1 MB = 1e6 bytes.

    Raises:
        SlimzooError: a model directory is not what its manifest says.
    """
    if isinstance(models, str | Path | LoadedModel | StepResult):
        models = [models]
    _check(models, runtimes, save)
    launches = max(1, rounds // 2) if launches is None else min(launches, rounds)
    batches = [batch] if isinstance(batch, int) else list(dict.fromkeys(batch))
    if not batches or min(batches) < 1 or rounds < 2 or launches < 1 or seconds_per_round <= 0:
        raise UsageError("wanted batch >= 1, rounds >= 2, launches >= 1 and seconds_per_round > 0")
    shown = None if photos is None else given_photos(photos)
    given = None if inputs is None else str(inputs)
    settings = [
        Settings(each, threads or default_threads(), rounds, launches, seconds_per_round, given) for each in batches
    ]
    with tempfile.TemporaryDirectory() as folder:
        places = [written(model, Path(folder, str(number))) for number, model in enumerate(models)]
        return _bench(places, runtimes, settings, shown, save, progress)


def _bench(
    models: Sequence[str | Path],
    runtimes: Sequence[str] | None,
    settings: Sequence[Settings],
    photos: dict[str, Path] | None,
    save: str | Path | None,
    progress: Progress | None,
) -> Benchmark:
    for model in models:
        if not is_upstream(model) and is_model_directory(Path(model)):
            verify_manifest(Path(model))
    machine = describe_machine()  # before the measurement, for the load average
    throttling, found, kept = Throttling(), [], []
    for number, each in enumerate(settings):
        outcome_, unfinished = _at_a_batch(models, runtimes, each, {} if number else photos, save, machine, progress)
        found.append(outcome_)
        kept.append(unfinished)
    shares = [one["disturbed_share"] for one in found if one["disturbed_share"] is not None]
    recorded = asdict(settings[0]) | {"inputs": settings[0].inputs or "normal noise, seed 0"}
    result = Benchmark(
        {
            **found[0],
            "rows": [row for one in found for row in one["rows"]],
            "disturbed_share": round(sum(shares) / len(shares), 4) if shares else None,
            "diagnoses": [*dict.fromkeys(said for one in found for said in one["diagnoses"]), *throttling.said()],
            "machine": machine,
            "versions": lineage.versions(),
            "settings": recorded | ({"batches": [each.batch for each in settings]} if len(settings) > 1 else {}),
        }
    )
    result["crossovers"] = crossovers(result.rows)
    if save is not None:
        result.write(Path(save))
    for unfinished in kept:
        unfinished.remove()
    return result


def _at_a_batch(
    models: Sequence[str | Path],
    runtimes: Sequence[str] | None,
    settings: Settings,
    photos: dict[str, Path] | None,
    save: str | Path | None,
    machine: dict[str, Any],
    progress: Progress | None,
) -> tuple[dict[str, Any], Unfinished]:
    """What is measured at one batch size, and where it is kept until all is written."""
    rows = [row for model, name in zip(models, names_of(models), strict=True) for row in rows_of(model, name, runtimes)]
    with tempfile.TemporaryDirectory() as folder:
        for row in rows:
            with reason_for(row):
                take_out(row, Path(folder))
        takers = [row for row in rows if row.deployed is not None]
        if takers and photos is None:
            photos = make_photos(Path(folder)) | _own_photo(takers[0])
        terms = {**asdict(settings), "photos": sorted(photos or {}), "versions": lineage.versions()}
        unfinished = Unfinished(save, terms | {"on": [machine["processor"], machine["flags"]]}, rows)
        reference, twin = measure(rows, settings, photos or {}, unfinished, progress)
    return outcome(rows, reference, twin, settings.batch, settings.threads, settings.rounds), unfinished


def _check(models: Sequence[object], runtimes: Sequence[str] | None, save: str | Path | None) -> None:
    known = "known: " + ", ".join(RUNTIMES)
    for name in runtimes or ():
        if name not in RUNTIMES:
            raise UsageError(f"unknown runtime {name!r}; {did_you_mean(name, RUNTIMES, known)}")
    if not models:
        raise UsageError("wanted at least one model")
    if save is not None:
        check_file(Path(save), "--save")


def _own_photo(row: Row) -> dict[str, Path]:
    """The image of median size of those that a model directory's was fitted to, where they still are."""
    if not is_model_directory(Path(row.path)):
        return {}
    names = [(step.get("data") or {}).get("name") for step in read_config(Path(row.path)).lineage]
    folders = [Path(name) for name in names if name and Path(name).is_dir()]
    return median_photo(folders[0]) if folders else {}
