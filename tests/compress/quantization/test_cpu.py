"""The saturation self-test against exact integers, and against what pairs of products in 16 bits come to."""

from __future__ import annotations

import numpy as np
import pytest

from compress.benchmark.machine import describe_machine
from compress.quantization import cpu
from compress.quantization.cpu import (
    INPUTS,
    MACHINES,
    S8S8,
    SCHEMES,
    U8S8,
    U8S8_7BIT,
    U8U8,
    convolution_at_full_scale,
    decide,
    exact_at_full_scale,
    is_here,
    scheme_for,
)
from zoo.errors import UsageError

DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimd"}  # of bytes, summed in 32 bits


def in_pairs(activation, weight):
    """What vpmaddubsw and vpaddd make of it: each two products are added in 16 bits, which saturate."""
    pairs = np.clip(np.full(INPUTS // 2, 2 * activation * weight), -(1 << 15), (1 << 15) - 1)
    return int(pairs.sum())


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_here_it_is_exact_or_saturates_as_the_instruction_does(scheme):
    flags = set(describe_machine()["flags"])
    if scheme == S8S8 and not flags & DOT_PRODUCTS:
        pytest.skip("onnxruntime's versions differ in how they add signed pairs, and nothing is made of them on x86")
    if flags & DOT_PRODUCTS or scheme in (U8U8, U8S8_7BIT):
        assert convolution_at_full_scale(scheme) == exact_at_full_scale(scheme)
    else:
        assert scheme == U8S8
        exact = INPUTS * 255 * 127
        assert convolution_at_full_scale(scheme) == pytest.approx(255 * in_pairs(255, 127) / exact, abs=1)


def test_the_exact_sum_is_numpys():
    for scheme in SCHEMES:
        top = np.iinfo(scheme.activations).max
        weight = 64 if scheme.bits == 7 else np.iinfo(scheme.weights).max
        total = np.full(INPUTS, top, np.int64) @ np.full(INPUTS, weight, np.int64)
        assert exact_at_full_scale(scheme) == round(total / (INPUTS * int(top) * int(weight)) * int(top))


def test_seven_bits_fit_a_pair_into_16_bits_and_eight_do_not():
    assert in_pairs(255, 64) == INPUTS * 255 * 64
    assert in_pairs(255, 127) < INPUTS * 255 * 127 * 0.51


@pytest.mark.parametrize(
    ("arm", "right", "expected"),
    [
        (False, {U8S8, S8S8, U8U8, U8S8_7BIT}, U8S8),  # VNNI or AMX
        (False, {U8U8, U8S8_7BIT}, U8S8_7BIT),  # AVX2 or AVX-512 without them
        (False, {U8U8}, U8U8),
        (False, set(), U8U8),
        (True, {U8S8, S8S8, U8U8, U8S8_7BIT}, S8S8),
        (True, {U8U8, U8S8_7BIT}, U8S8_7BIT),
    ],
)
def test_the_decision_goes_by_what_is_exact(arm, right, expected):
    assert decide(arm, right.__contains__) == expected


def test_what_is_for_any_processor_is_exact_here():
    assert scheme_for("any") == scheme_for("x86") == U8S8_7BIT
    assert scheme_for("this") in SCHEMES


@pytest.mark.parametrize("machine", MACHINES)
def test_what_cannot_be_measured_here_is_refused(machine, monkeypatch):
    monkeypatch.setattr(cpu, "is_exact", {U8U8, U8S8_7BIT}.__contains__)  # x86 without VNNI
    if MACHINES[machine].bits == 7:
        assert scheme_for(machine) == U8S8_7BIT
    else:
        with pytest.raises(UsageError, match=f"^int8 for {machine} .* take machine any, which is right everywhere"):
            scheme_for(machine)


@pytest.mark.parametrize(
    ("flags", "here"),
    [
        (["avx2"], {"this", "any", "x86"}),
        (["avx2", "avx512_vnni"], {"this", "any", "x86", "x86-vnni"}),
        (["avx2", "amx_int8"], {"this", "any", "x86", "x86-vnni"}),
        (["asimd", "asimddp"], {"this", "any", "arm"}),
        ([], {"this", "any"}),
    ],
)
def test_which_machines_this_one_is(flags, here, monkeypatch):
    monkeypatch.setattr(cpu, "describe_machine", lambda: {"flags": flags})
    assert {machine for machine in ("this", *MACHINES) if is_here(machine)} == here
