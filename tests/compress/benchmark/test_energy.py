"""Energy by Linux's counters, on a machine made of files."""

from __future__ import annotations

import pytest

from compress.benchmark import energy
from compress.benchmark.energy import energy_uj, joules


@pytest.fixture
def zones(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "ZONES", tmp_path)

    def write(**counts):
        for name, (now, wrap) in counts.items():
            zone = tmp_path / name.replace("_", ":").replace("intel:rapl", "intel-rapl")
            zone.mkdir(exist_ok=True)
            (zone / "energy_uj").write_text(f"{now}\n")
            (zone / "max_energy_range_uj").write_text(f"{wrap}\n")
        return energy_uj()

    return write


def test_packages_are_summed_and_their_parts_are_not(zones):
    before = zones(intel_rapl_0=(1_000_000, 9_999_999), intel_rapl_1=(5, 9_999_999), intel_rapl_0_0=(7, 9_999_999))
    after = zones(
        intel_rapl_0=(3_500_000, 9_999_999), intel_rapl_1=(500_005, 9_999_999), intel_rapl_0_0=(10**6, 9_999_999)
    )
    assert sorted(after) == ["intel-rapl:0", "intel-rapl:1"]
    assert joules(before, after) == pytest.approx(3.0)


def test_a_counter_that_wraps_around(zones):
    before = zones(intel_rapl_0=(9_500_000, 9_999_999))
    assert joules(before, zones(intel_rapl_0=(500_000, 9_999_999))) == pytest.approx(1.0)


def test_where_nothing_can_be_read_nothing_is_said(zones, tmp_path):
    assert joules(energy_uj(), energy_uj()) is None
    before = zones(intel_rapl_0=(1, 9))
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("not told")
    assert joules(before, energy_uj()) is None
