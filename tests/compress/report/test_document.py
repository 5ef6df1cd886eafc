"""report.json: of the published form, with what the page says, and nobody's home in any of them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from compress.report.document import SCHEMA
from compress.report.report import build_report


def write(out, name, verbs, places, **more):
    split = {"top1": 0.75, "n": 4, "correct": "1110"}
    after = {"val": split, "test": split, "params": 10, "macs": 20, "size_bytes": 30}
    data = {"name": places["data"], "fingerprint": "0123", "sizes": {"train": 4}}
    step = {"arguments": {**places, "out": str(out / name)}, "seed": 0, "seconds": 1.0, "versions": {"torch": "2"}}
    lineage = [step | {"verb": verb, "data": data, "metrics": {"before": None, "after": after}} for verb in verbs]
    ours = {"format": 1, "primary": "model.safetensors", "preprocess": {}, "surgery": [], "lineage": lineage}
    (out / name).mkdir(parents=True)
    (out / name / "config.json").write_text(json.dumps({"architecture": "x", "slimzoo": ours | more}))


@pytest.fixture
def report(tmp_path, monkeypatch):
    home = tmp_path / "home" / "someone"
    out = home / "work" / "run"
    monkeypatch.setattr(Path, "home", lambda: home)
    write(out, "fit", ["fit"], {"data": str(home / "photos")})
    write(out, "int8", ["fit", "quantize"], {"directory": str(out / "fit"), "data": str(home / "photos")})
    return build_report(out)


def test_it_is_of_the_published_form(report):
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(report.json.read_text(encoding="utf-8"))
    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"verdict": None}, schema)


def test_it_says_what_the_page_says(report):
    document = json.loads(report.json.read_text(encoding="utf-8"))
    page = report.markdown.read_text(encoding="utf-8")
    assert document["verdict"] == report.verdict
    assert [f"## {section['title']}" for section in document["sections"]] == [
        line for line in page.splitlines() if line.startswith("## ")
    ]
    for section in document["sections"]:
        for row in (section["table"] or {"rows": []})["rows"]:
            assert all(cell["text"].strip("`") in page.replace("\\", "") for cell in row)


def test_nobodys_home_is_in_it(report):
    for file in (report.json, report.markdown, report.html):
        text = file.read_text(encoding="utf-8")
        assert "someone" not in text
        assert "~/photos" in text
    (code,) = [section["code"] for section in json.loads(report.json.read_text())["sections"] if section["code"]]
    assert code[-1].startswith("slimzoo quantize run/fit --data")
    assert code[-1].endswith("--out run/int8")
