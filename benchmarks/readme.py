"""Write the figures of results/*.json into the README and benchmarks/README.md, between their <!-- NAME --> marks.

    python benchmarks/readme.py

So that no number stands there that no file carries. It also counts zoo/costs.json anew. tests/test_readme.py fails
where this was forgotten.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

from record import RESULTS, ROOT

from compress.verbs import STEPS
from zoo.cards import brief, write_costs
from zoo.models.registry import list_models
from zoo.pretrained.origins import Own, Upstream
from zoo.pretrained.weights import WEIGHTS

SHORT = {"tf_efficientnet_lite0": "EfficientNet-Lite0", "resnet18": "ResNet-18"}  # names of networks
Figures = dict[str, Any]
OPTIONS = "options"  # the section that no result is in
PARTS = ("_tasks", "_output", "_peers")  # end the names of sections that are a part of a result
PAGES = (ROOT / "README.md", ROOT / "benchmarks/README.md")


def demo(f: Figures) -> str:
    rows = ["| model | test top-1 | ONNX file | runtime | batch 1 | speed-up |", "|---|---:|---:|---|---:|---:|"]
    for row in f["rows"]:
        name = row["model"]
        low, high = row["ratio_ci"] or (1, 1)
        ratio = "1" if row["verdict"] == "reference" else f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"
        rows.append(
            f"| `{name}` ({row['precision']}) | {f['test_top1_pct'][name]:.1f}% "
            f"| {f['onnx_bytes'][name] / 1e6:.2f} MB | {row['runtime']} | {row['median_ms']:.2f} ms | {ratio} |"
        )
    low, high = f["drop_ci_points"]
    fast_low, fast_high = f["speedup_ci"]
    text = (
        f"`{f['chosen']}` in {f['runtime']} against `fit` in onnxruntime: {-f['drop_points']:+.1f} points of "
        f"accuracy (paired 95% interval "
        f"{-high:+.1f} to {-low:+.1f}, {f['test_images']} test images), {f['macs_share']:.0%} of the MACs, "
        f"{f['bytes_share']:.1%} of the bytes, {f['speedup']:.2f} times as fast (95% interval {fast_low:.2f} to "
        f"{fast_high:.2f}, {f['threads']} threads; differences within {f['noise']['floor_pct']:.0f}% are noise there). "
        f"The whole command took {f['seconds'] / 60:.1f} minutes."
    )
    return "\n".join([*rows, "", text])


def demo_output(f: Figures) -> str:
    """What the command prints, but for what it is at."""
    said = f["output"][1 : f["output"].index("Next:")]
    lines = [line for line in said if not line.startswith(("  auto:", "trying ", "fitting ", "Report:"))]
    return "\n".join(["```console", "$ " + f["output"][0], *lines, "```"])


def photographs(f: Figures) -> str:
    """What a folder of a few hundred images comes to, on the mean over tasks; each task, folded away, in a line."""
    names = {"ours": "`slimzoo fit FOLDER`", "logistic": "logistic regression on the frozen network's features"}
    lines = ["| from a folder of images | accuracy on others | its time |", "|---|---:|---:|"]
    for method, row in f["methods"].items():
        took = "1" if method == "ours" else f"{row['times_ours']:.2g}"
        lines.append(f"| {names.get(method, method)} | {row['top1_pct']:.1f}% | {took} |")
    cuts = {
        f"`slimzoo prune --macs {share}`": (row, f["torch_pruning"].get(share)) for share, row in f["pruned"].items()
    }
    for asked, (row, peer) in cuts.items():
        if row is not None:
            asked = f"{asked.replace(' --macs None`', '`, no option')}: {row['macs_share']:.0%} of the MACs"
            if peer is not None:
                asked += f" (torch-pruning, fine-tuned: {-peer['lost_points']:+.1f} points)"
            lines.append(_changed(asked, row))
    if (row := f.get("int8", {}).get("all")) is not None:
        lines.append(_changed("`slimzoo quantize`, no option", row))
    low, high = f["gain_ci_points"]
    ours, honest, times = f["methods"]["ours"], f["honest"], "s" if f["seeds"][1:] else ""
    above = _points(honest["said_above_kept_back_points"])
    text = (
        f"Means over {ours['tasks']} small tasks of {f['images'][0]} to {f['images'][1]} photographs, scans or "
        f"drawings, {len(f['seeds'])} division{times} of each: {f['gain_points']:+.1f} points ({low:+.1f} to "
        f"{high:+.1f}) against the better peer of each task, {f['least_gain_points']:+.1f} at worst. Of the accuracies "
        f"that `fit` expects, {honest['inside_interval']:.0%} of {honest['fits']} have that of the other images within "
        f"their 95% interval; they are {above} points above it on the mean "
        f"(standard error {honest['standard_error_points']:.1f})."
    )
    return "\n".join([*lines, "", text])


def _changed(step: str, row: Figures) -> str:
    low, high = row["lost_ci_points"] or (row["lost_points"],) * 2
    return (
        f"| {step} | {-row['lost_points']:+.1f} points ({-high:+.1f} to {-low:+.1f}), {row['tasks']} tasks "
        f"| {row['times_fit']:.1f} of the fit's |"
    )


def photographs_tasks(f: Figures) -> str:
    peers = list(f["tasks"][0]["peers_pct"])
    lines = [f"| task | images | `slimzoo fit` | {' | '.join(peers)} | gains |"]
    lines.append("|---|" + "---:|" * (len(peers) + 3))
    for row in f["tasks"]:
        theirs, gain = [f"{row['peers_pct'][peer]:.1f}%" for peer in peers], row["ours_pct"] - row["best_peer_pct"]
        lines.append(
            f"| {row['task']} | {row['images']} | {row['ours_pct']:.1f}% | {' | '.join(theirs)} | {gain:+.1f} points |"
        )
    if (told := f["by_nats"]) is not None:
        text = (
            f"What a cut loses on images of the same kind that were kept back follows from how far its answers to "
            f"held-out ones moved: {told['points']:.0f} points a nat in the mean of {len(told['tasks'])} tasks, "
            f"which is off by {told['off_points']:.1f} points (root mean square) over the same {told['cuts']} cuts, "
            f"where validation accuracy is off by {told['validation_off_points']:.1f}."
        )
        lines += ["", text]
    return "\n".join(lines)


def transfer(f: Figures) -> str:
    lines = ["| data | method | test top-1 | lowest, highest | `auto` gains | time of `auto` over its |"]
    lines.append("|---|---|---:|---:|---:|---:|")
    for task, compared in f["tasks"].items():
        data = {"emoji": "all", "emoji-20": "20 a class"}[task]
        for method, row in compared["rows"].items():
            gain, (least, most) = row["auto_gains_points"], row["auto_gains_ci_points"]
            gains, ratio = f"{gain:+.1f} points ({least:+.1f} to {most:+.1f})", f"{row['auto_time_ratio']:.2f}"
            lowest, highest = row["top1_lowest_highest_pct"]
            lines.append(
                f"| {data} | `{method}` | {row['top1_pct']:.1f}% | {lowest:.1f}%, {highest:.1f}% "
                f"| {'-' if method == 'auto' else gains} | {'-' if method == 'auto' else ratio} |"
            )
    one = f["one_shot"]
    low, high = one["ci_pct"]
    text = (
        f"One drawing by Google of each of {one['ways']} emoji, which of them is Twitter's? `prototype` finds "
        f"{one['top1_pct']:.1f}% ({low:.1f}% to {high:.1f}%, {one['episodes']:,} episodes), the last features alone "
        f"{one['last_features_top1_pct']:.1f}%."
    )
    return "\n".join([*lines, "", text])


def data(f: Figures) -> str:
    files, found = f["torture"], f["duplicates"]
    return (
        f"Of {files['files']} files of every kind that goes wrong (16 bits, float, CMYK, palettes, EXIF turns, cut "
        f"off, bombs, not an image) {files['as_specified']} are read or refused as specified, and "
        f"{len(files['touched'])} were touched. Of {found['planted']} duplicates planted among real images, "
        "recompressed, resized or mirrored, "
        f"at least {f['fewest_found']} are found in {len(found['runs'])} runs, with at most "
        f"{f['most_false_pct']:.2f}% of the images falsely in a pair."
    )


def probe(f: Figures) -> str:
    low, high = f["speedup_range"]
    same = "identical" if f["identical"] else "DIFFERENT"
    seconds = f["whole_command_s"]
    return (
        f"A second probe of the same {f['images']:,} images takes 1/{f['speedup']:.0f} of the first's time "
        f"({low:.0f} to {high:.0f} in {len(f['rounds'])} rounds), {same} predictions; with another regularization to "
        f"choose, 1/{f['speedup_solving_again']:.0f}. The whole command, starting Python and writing the model "
        f"included: {seconds['first']:.0f} s, then {seconds['second']:.0f} s."
    )


def loader(f: Figures) -> str:
    waiting = " and ".join(f"{max(f[key]['waiting_pct_runs']):.1f}% at {key.removesuffix('_px')} px" for key in f)
    slower = [f["96_px"]["step_time_over_inline"][way]["median"] for way in ("freed", "plain")]
    return (
        f"A training step of EfficientNet-Lite0 on two cores waits for its images for at most {waiting}. At 96 px it "
        f"would take {slower[0]:.2f} times as long if freed memory went back to the system, and {slower[1]:.2f} times "
        "if the convolutions padded maps smaller than their kernels themselves."
    )


WANDERING = 1.2  # between the largest and the smallest of ratios that ought to be one


def harness(f: Figures) -> str:
    return "\n\n".join(
        f"On {name} (at {', '.join(commit[:7] for commit in of['commits'])}): {_harness(of)}"
        for name, of in f["processors"].items()
    )


def _harness(f: Figures) -> str:
    same, beside = f["a_against_a"], f["beside"]
    lines = ["| beside it | repeats | speed-up stated | its interval holds the quiet one | called faster, falsely |"]
    lines.append("|---|---:|---:|---:|---:|")
    for loops, row in beside.items():
        what = loops if loops == "bursts" else f"{loops} busy loop{'' if loops == '1' else 's'}"
        lines.append(
            f"| {what} | {row['repeats']} | {row['stated']} | {row['interval_holds_the_truth']} "
            f"| {row['contradicted']} |"
        )
    verdicts = {name: ", ".join(f"{v} {n} times" for v, n in f[name].items()) for name in f if name.startswith("slow")}
    text = (
        f"A against A, {f['repeats']} times on the machine as it was: stated {same['stated']} times, the interval held "
        f"1 (or nothing was said) {same['interval_holds_1']} times, and the two differed by at most "
        f"{same['largest_difference_pct']:.1f}%. "
        + " ".join(f"A model {name.replace('_', ' ')}: {said}." for name, said in verdicts.items())
        + f" One such run of four models takes {f['quiet_seconds']:.0f} s."
    )
    lo, hi = f["quiet_ratio_range"]
    if hi > WANDERING * lo:
        text += (
            f" ResNet-18 came to {lo:.2f} to {hi:.2f} times the speed, by the minute: there two threads of a small "
            "network wait longer for each other at times, as where a hypervisor moves its processors. Such a ratio is "
            "of its minute, whatever its interval."
        )
    return "\n".join([text, "", *lines] if beside else [text])


def bare(f: Figures) -> str:
    said = {"bare": "twelve lines of Python", "deploy": "`deploy/bench.py`", "benchmark_app": "`benchmark_app`"}
    lines = [
        "| network | ours over | | range of single runs | that one's own runs, over their median |",
        "|---|---|---:|---:|---:|",
    ]
    for network, found in f["networks"].items():
        for peer, ratio in found["ratios"].items():
            spread = " | ".join(f"{lo:.2f} to {hi:.2f}" for lo, hi in (ratio["range"], ratio["it_against_itself"]))
            lines.append(f"| `{network}`, {found['side']} px | {said[peer]} | {ratio['ours_over_it']:.2f} | {spread} |")
    three = f["three_runtimes"]
    widths = ", ".join(f"{name} {pct:.1f}%" for name, pct in three["interval_pct"].items())
    costs = ", ".join(f"`{network}` {pct:.1f}%" for network, pct in f["own_cost_pct"].items())
    text = f"The measuring itself takes {costs} of the time measured. ResNet-18 over three runtimes took "
    text += f"{three['seconds']:.0f} s, the half-widths of the ratios' intervals: {widths}."
    return "\n".join([*lines, "", text])


def answer(f: Figures) -> str:
    lines = ["| photo | ours | memory | ten lines of Pillow | as it was before | pixels differ by |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for photo, row in f.items():
        times = [
            f"{ratio:.2f} times ours ({lo:.2f} to {hi:.2f})"
            for ratio, lo, hi in (row[way]["times_ours"] for way in ("ten lines", "before"))
        ]
        ours = row["ours"]
        lines.append(
            f"| {photo} | {ours['ms']:.1f} ms | {ours['peak_mb']:.0f} MB | {' | '.join(times)} "
            f"| {row['levels_apart']:.1f} levels of 255 |"
        )
    return "\n".join(lines)


def distributed(f: Figures) -> str:
    apart, killed = max(f["largest_difference_to_one_process"].values()), f["killed"]
    same = "the same to the bit" if f["second_run_has_the_same_bits"] else "NOT the same"
    resumed = "ends with" if killed["resumed_has_the_bits_of_the_unkilled"] else "does NOT end with"
    return (
        f"Two processes end within {apart:.0e} of one's weights, and a second run of two is {same}. With one killed "
        f"the job ends after {killed['seconds_until_the_job_ended']:.1f} s, and resumed it {resumed} the bits of the "
        "run that was not."
    )


def never_lost(f: Figures) -> str:
    kills, points, disk, nans = f["kills"], f["kill_points"], f["full_disk"], f["nans"]
    lines = ["| what happens | how often | what is lost |", "|---|---:|---|"]
    lines.append(
        f"| SIGKILL at a random time | {kills['kills']} in {kills['runs']} runs "
        f"| nothing: {kills['identical']} of {kills['runs']} runs end with the bits of the run that was not killed |"
    )
    lines.append(
        f"| SIGKILL at each system call that writes a checkpoint | {points['kill_points']} "
        f"| at most the steps since the checkpoint before; {points['unreadable']} cannot be read |"
    )
    lines.append(
        f"| the disk is full at each write | {disk['writes']} "
        f"| the checkpoint before loads in {disk['loads']}, with one line of error in {disk['errors_of_one_line']} |"
    )
    lines.append(f"| NaN in the loss, a gradient or an activation | {nans['injected']} | {nans['saved']} are saved |")
    return "\n".join(lines)


def prune(f: Figures) -> str:
    lines = [
        "| network, data | MACs | before | `slimzoo` | torch-pruning, L2 | Taylor | `slimzoo` gains on the better "
        "| from scratch |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    names = {"digits": "ResNet-20, digits", "emoji": "EfficientNet-Lite0, emoji"}
    for cell in f["cells"]:
        rows = [cell[method] for method in ("slimzoo", "torch-pruning l2", "torch-pruning taylor", "scratch")]
        tops = [f"{row['top1_pct']:.1f}%" for row in rows]
        best = max(rows[1:3], key=lambda row: float(row["top1_pct"]))
        low, high = best["slimzoo_gains_ci_points"]
        lines.append(
            f"| {names[cell['task']]} | 1/{1 / cell['share']:.0f} | {cell['dense_top1_pct']:.1f}% | {tops[0]} "
            f"| {tops[1]} | {tops[2]} | {best['slimzoo_gains_points']:+.1f} points ({low:+.1f} to {high:+.1f}) "
            f"| {tops[3]} |"
        )
    return "\n".join(lines)


def drawings(f: Figures) -> str:
    lines = ["| emoji, drawn by others | before | with this code | difference |", "|---|---:|---:|---:|"]
    names = {"fit emoji": "`fit`", "fit emoji-20": "`fit`, 20 a class"}
    for cell in f["cells"]:
        name = names.get(cell["task"]) or f"`prune --macs {cell['task'].split()[1]}`"
        between = "" if "gains_ci_points" not in cell else " ({:+.1f} to {:+.1f})".format(*cell["gains_ci_points"])
        lines.append(
            f"| {name} | {cell['before_top1_pct']:.1f}% | {cell['top1_pct']:.1f}% "
            f"| {cell['gains_points']:+.1f} points{between}, {len(cell['seeds'])} seeds |"
        )
    return "\n".join(lines)


def search(f: Figures) -> str:
    lines = [
        "| network, data | chosen | accuracy | times as fast as the fit in onnxruntime "
        "| fastest peer that loses a point at most | times as fast as it | minutes |",
        "|---|---|---:|---:|---|---:|---:|",
    ]
    for cell in f["cells"]:
        ours, best = cell["ours"], cell["best_peer"]
        chosen = dict.fromkeys(f"`{name}` in {r}" for name, r in zip(ours["chosen"], ours["runtimes"], strict=True))
        peer = ("none", "") if best is None else (best["name"], f"{best['ours_times_as_fast']:.2f}")
        accuracy = f"{cell['fitted_top1_pct']:.1f}% {_points(-ours['loses_points'])}"
        lines.append(
            f"| {_network(cell)} | {', '.join(chosen)} | {accuracy} "
            f"| {ours['times_as_fast']:.2f} | {peer[0]} | {peer[1]} | {cell['minutes']:.0f} |"
        )
    told = f["promises"]
    text = (
        f"Latencies of {told['candidates']} candidates are off from what was promised before they were made, at the "
        f"speed that the machine had for the others then, by {told['off_median']:.0%} in the median, by "
        f"{told['off_worst_decile']:.0%} in the worst tenth."
    )
    return "\n".join([*lines, "", text])


def search_peers(f: Figures) -> str:
    lines = ["| network, data | method | points | times as fast |", "|---|---|---:|---:|"]
    for cell in f["cells"]:
        for name, found in (cell["peers"] | cell["by_hand"]).items():
            lines.append(
                f"| {_network(cell)} | {name} | {_points(-found['loses_points'])} | {found['times_as_fast']:.2f} |"
            )
        lines += [f"| {_network(cell)} | {name} |  |  |" for name in cell["not_measured"]]
    return "\n".join(lines)


def _points(value: float) -> str:
    """With their sign, and none of nothing."""
    return f"{round(value, 1) + 0.0:+.1f}"


def _network(cell: Figures) -> str:
    name = SHORT.get(cell["model"], cell["model"])
    seeds = len(cell["seeds"])
    return f"{name}, {cell['task']}, {seeds} seed{'s' if seeds > 1 else ''}"


def prune_speed(f: Figures) -> str:
    lines = ["| network, 224 px | slimzoo | torch-pruning | times faster |", "|---|---:|---:|---:|"]
    for row in f["rows"]:
        ours, theirs = row["ours"], row["torch_pruning"]
        other = (
            f"fails: {theirs['failed'].partition(':')[0]}"
            if "failed" in theirs
            else (f"{theirs['both_s']['median']:.2f} s")
        )
        faster = row.get("times_faster")
        ratio = "-" if faster is None else f"{faster['median']:.1f} ({faster['least']:.1f} to {faster['most']:.1f})"
        lines.append(f"| `{row['model']}` | {ours['both_s']['median']:.2f} s | {other} | {ratio} |")
    return "\n".join(lines)


def latency(f: Figures) -> str:
    low, high = f["gain_ci_points"]
    ratios = ", ".join(f"{ratio:.2f}" for ratio in f["uniform_is_faster_by"])
    return (
        f"EfficientNet-Lite0 at half of its milliseconds on emoji: {f['top1_pct']['latency']:.1f}%, cut uniformly to "
        f"as many {f['top1_pct']['uniform']:.1f}% ({f['gain_points']:+.1f} points, {low:+.1f} to {high:+.1f}, "
        f"{f['seeds']} seeds; the uniform ones ran {ratios} times as fast, side by side). {f['unseen']} networks that "
        f"the table had not seen took {100 * f['median_error_of_unseen']:.0f}% more or less than predicted, in the "
        "median."
    )


def promises(f: Figures) -> str:
    lines = ["| network | predicted from | off in the median | in the worst tenth |", "|---|---|---:|---:|"]
    known = {
        "interpolated": "the share of its MACs, by uniform cuts",
        "additive": "all its widths, by a sum of operators",
    }
    for name, ways in f["models"].items():
        for how, by in ways.items():
            lines.append(f"| {SHORT.get(name, name)} | {known[how]} | {by['median']:.0%} | {by['worst_decile']:.0%} |")
    return "\n".join(lines)


def coding(f: Figures) -> str:
    lines = ["| network | times smaller | one file, bytes | test top-1 | change, points |", "|---|---:|---:|---:|---:|"]
    for name, found in f.items():
        lines.append(f"| `{name}` | 1 | {found['runs'][0]['fp32_bytes']:,} | {found['dense_test_top1_pct']:.2f}% | |")
        if "dense_bent_test_top1_pct" in found:
            lines.append(f"| the same, shown bent digits | 1 | | {found['dense_bent_test_top1_pct']:.2f}% | |")
        for number, point in enumerate(found["curve"]):
            low, high = point["test_drop_ci_points"]
            rate = f"**{point['rate']:.0f}**" if number == found["chosen"] else f"{point['rate']:.0f}"
            sizes = f"{min(point['bytes']):,} to {max(point['bytes']):,}"
            lines.append(
                f"| | {rate} | {sizes} | {point['test_top1_pct']:.2f}% "
                f"| {-point['test_drop_points']:+.2f} ({-high:+.2f} to {-low:+.2f}) |"
            )
    return "\n".join(lines)


def quantize(f: Figures) -> str:
    lines = [
        "| task | fp32 | int8 | change, points | over onnxruntime's int8, points | over NNCF's | speed, to fp32 | to "
        "onnxruntime's | in OpenVINO, to NNCF's |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for cell in f["cells"]:
        low, high = cell["int8_loses_ci_points"]
        gains, speeds = [], []
        for peer in ("onnxruntime", "nncf"):
            least, most = cell[f"gains_over_{peer}_ci_points"]
            slow, fast = cell[f"times_as_fast_as_{peer}_ci"]
            gains.append(f"{cell[f'gains_over_{peer}_points']:+.2f} ({least:+.2f} to {most:+.2f})")
            speeds.append(f"{cell[f'times_as_fast_as_{peer}']:.2f} ({slow:.2f} to {fast:.2f})")
        to_fp32 = cell["times_as_fast_as_onnxruntime"] / cell["fp32_times_as_fast_as_onnxruntime"]
        lines.append(
            f"| {cell['task']} | {cell['fp32_top1_pct']:.2f}% | {cell['slimzoo_top1_pct']:.2f}% "
            f"| {0 - cell['int8_loses_points']:+.2f} ({-high:+.2f} to {-low:+.2f}) | {' | '.join(gains)} "
            f"| {to_fp32:.2f} | {' | '.join(speeds)} |"
        )
    few = ["| bits of ResNet-20's weights, digits | to nearest | learned rounding | trained |", "|---:|---:|---:|---:|"]
    for cell in f["few_bits"]:
        ways = (f"{cell[f'{way}_top1_pct']:.2f}%" for way in ("nearest", "learned", "trained"))
        few.append(f"| {cell['bits']} (fp32: {cell['fp32_top1_pct']:.2f}%) | {' | '.join(ways)} |")
    apart, pixels, memory = f["far_apart"]["mobilenet_v2"], f["preprocessing"], f["calibration_memory"]
    vit = next(cell for cell in f["cells"] if "int8_dynamic_top1_pct" in cell)
    faster = vit["int8_dynamic_times_as_fast_as_onnxruntime"] / vit["fp32_times_as_fast_as_onnxruntime"]
    text = (
        f"The transformer with `--to int8-dynamic`: {vit['int8_dynamic_top1_pct']:.2f}%, {faster:.2f} times as fast as "
        "fp32. A MobileNetV2 whose channels were scaled up to three orders of magnitude apart, its function unchanged, "
        f"has {apart['by_tensor_pct']:.1f}% with a scale for each tensor, {apart['equalized_pct']:.1f}% equalized, "
        f"{apart['equalized_and_corrected_pct']:.1f}% with its biases corrected as well; with a scale for each "
        f"channel, before it was scaled, {apart['by_channel_as_trained_pct']:.1f}%. Its weights in four bits with a "
        f"scale for each tensor: {apart['four_bits_nearest_pct']:.1f}% to nearest, "
        f"{apart['four_bits_learned_pct']:.1f}% learned. What an exported file feeds its network is within "
        f"{pixels['worst_mean_levels']:.3f} of 255 grey levels of Pillow's resize in the mean ({pixels['sizes']} "
        f"sizes, {pixels['modes']} modes; {pixels['largest_levels']:.0f} at most). Calibrating a ResNet-18 on "
        f"{memory['images']:,} images of {memory['size']} pixels takes {memory['peak_bytes'] / 1e9:.2f} GB. "
        f"The sums that this processor gets right, by trial: {f['scheme']}."
    )
    return "\n".join([*lines, "", *few, "", text])


def reload(f: Figures) -> str:
    lines = ["| model | MACs before | after | same bits in a fresh process |", "|---|---:|---:|---|"]
    for row in f["models"]:
        same = "yes" if row["equal_to_the_bit"] else "NO"
        lines.append(
            f"| `{row['model']}` | {row['macs_before'] / 1e9:.2f} G | {row['macs_after'] / 1e9:.2f} G | {same} |"
        )
    return "\n".join(lines)


def timm(f: Figures) -> str:
    """Counts first; then, folded away, a line for each model, with what refused."""
    lines = [
        "| models | fitted, loaded again | cut to 70% of the MACs | cut equals mask | ONNX agrees | int8 | crashes |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    names = {"timm": "the smallest of each of timm's families", "torchvision": "torchvision's classifiers"}
    for source, c in f["sources"].items():
        cells = [c[key] for key in ("reload", "cut", "mask", "export", "int8", "crashed")]
        lines.append(f"| {names[source]}: {c['models']} | {' | '.join(map(str, cells))} |")
    whole = ["<details><summary>model by model</summary>", ""]
    whole += ["| model | MACs kept | ONNX differs by | layers in int8 | what was said |", "|---|---:|---:|---:|---|"]
    for row in f["rows"]:
        found = row["stages"]
        said = [f"{stage}: {did['said']}" for stage, did in found.items() if "said" in did]
        said += [row["reason"]] if "reason" in row else []
        kept = f"{found['prune']['macs']:.0%}" if "macs" in found.get("prune", {}) else "-"
        differs = f"{found['export']['differs']:.0e}" if "differs" in found.get("export", {}) else "-"
        layers = "{} of {}".format(*found["int8"]["layers"]) if "layers" in found.get("int8", {}) else "-"
        text = "; ".join(said).replace("|", "\\|")
        whole.append(f"| `{row['model']}` | {kept} | {differs} | {layers} | {text} |")
    return "\n".join([*lines, "", *whole, "", "</details>"])


def help(f: Figures) -> str:
    return (
        f"`slimzoo --help` takes {f['median_s']:.2f} s (median of {f['runs']}) and imports none of the heavy packages."
    )


def zoo(f: Figures) -> str:
    lines = ["| model | parameters | MACs | input | weights | differs from |", "|---|---:|---:|---|---|---|"]
    for c in map(brief, list_models()):
        row = f.get(c["name"], {})
        size = "x".join(map(str, c["input_size"]))
        apart = f"{row['peer']} by {row['distance']:.0g}" if "peer" in row else "-"
        weights = provenance(c["name"])
        lines.append(f"| `{c['name']}` | {c['params']:,} | {c['macs'] / 1e6:,.1f} M | {size} | {weights} | {apart} |")
    return "\n".join(lines)


def provenance(name: str) -> str:
    """Where a model's pretrained weights come from, in a few words."""
    record = WEIGHTS.get(name)
    if record is None:
        return "-"
    if isinstance(record.origin, Upstream):
        return record.origin.name.partition(":")[0]
    return "in the package" if isinstance(record.origin, Own) else "from PyPI, offline"


def speed(f: Figures) -> str:
    lines = ["| model | peer | forward | training step | peer against itself |", "|---|---|---:|---:|---:|"]
    for name, row in f["models"].items():
        ratios = [f"{r['ratio']:.2f} ({r['lo']:.2f} to {r['hi']:.2f})" for r in (row[k] for k in RACES)]
        lines.append(f"| `{name}` | {row['peer']} | {' | '.join(ratios)} |")
    return "\n".join(lines)


RACES = ("forward", "training", "copies")


def own_weights(f: Figures) -> str:
    lines = [
        "| model | data | test top-1, median of three seeds | lowest, highest | bytes |",
        "|---|---|---:|---:|---:|",
    ]
    for name, row in f.items():
        each = [run["test_top1_pct"] for run in row["runs"]]
        images = f"{row['data']}, {row['runs'][0]['n']} images"
        lines.append(
            f"| `{name}` | {images} | {row['median_top1_pct']:.1f}% | {min(each):.1f}%, {max(each):.1f}% "
            f"| {row['bytes']:,} |"
        )
    return "\n".join(lines)


def options() -> str:
    """What each step can be told, as its settings say it."""
    lines = ["| step | needs | gives |", "|---|---|---|"]
    lines += [f"| `{step.name}` | {step.needs} | {step.gives} |" for step in STEPS.values()]
    for step in STEPS.values():
        lines += ["", f"`slimzoo {step.name}`", "", "| option | default | |", "|---|---|---|"]
        for each in step.load_settings().options():
            on, *off = each.flags[0].split("/")
            default = each.default if each.kind is not bool else on if each.default else "".join(off)
            shown = "needed" if each.required else "" if each.many or default in (None, "") else f"`{default}`"
            lines.append(f"| `{'`, `'.join((on, *off))}` | {shown} | {each.help} |".replace("|  |", "| |"))
    return "\n".join(lines)


SECTIONS: dict[str, Callable[[Figures], str]] = {
    "demo": demo,
    "demo_output": demo_output,
    "photographs": photographs,
    "photographs_tasks": photographs_tasks,
    "transfer": transfer,
    "data": data,
    "probe": probe,
    "loader": loader,
    "harness": harness,
    "answer": answer,
    "bare": bare,
    "distributed": distributed,
    "prune": prune,
    "drawings": drawings,
    "search": search,
    "search_peers": search_peers,
    "prune_speed": prune_speed,
    "latency": latency,
    "promises": promises,
    "coding": coding,
    "quantize": quantize,
    "reload": reload,
    "help": help,
    "zoo": zoo,
    "zoo_speed": speed,
    "own_weights": own_weights,
    "never_lost": never_lost,
    "timm": timm,
}


# a section's opening mark and its line break, its name, its closing mark; what follows the latter is the page's own
SECTION = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def regenerated(text: str) -> str:
    """A page with every section written anew from the result of its name."""
    return SECTION.sub(lambda found: f"{found[1]}{section(found[2])}\n{found[3]}", text)


def section(name: str) -> str:
    if name == OPTIONS:
        return options()
    part = next((part for part in PARTS if name.endswith(part)), "")
    result = RESULTS / f"{name.removesuffix(part)}.json"
    if not result.exists():
        return "Not measured yet."
    return SECTIONS[name](json.loads(result.read_text(encoding="utf-8"))["figures"])


def main() -> int:
    write_costs()
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    marked = [found[2] for text in texts.values() for found in SECTION.finditer(text)]
    if sorted(marked) != sorted((OPTIONS, *SECTIONS)):
        raise SystemExit(f"wanted each of {sorted((OPTIONS, *SECTIONS))} once in the two pages, found {sorted(marked)}")
    for page, text in texts.items():
        page.write_text(regenerated(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
