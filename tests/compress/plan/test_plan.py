"""Plans: YAML in and out, and what cannot work is refused before any work."""

import itertools

import pytest

from compress.plan.plan import TAKES, Plan
from zoo.errors import UsageError


def written(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [("prune", {"macs": 0.3, "seed": 4})],
        [("fit", {"model": "resnet18", "settings": {"optimizer": "sgd"}}), ("quantize", {"keep": ("a", "b")})],
        [(verb, {"student": "resnet20"} if verb == "distill" else {}) for verb in TAKES],
    ],
)
def test_what_is_written_is_read_again(steps, tmp_path):
    plan = Plan.of(*steps)
    text = plan.text("slimzoo compress x --plan y")
    assert Plan.read(written(tmp_path, text)) == plan
    for step in plan.steps:  # and nothing is left out
        assert all(f"    {option.name}: " in text for option in type(step.settings).options())


def test_what_is_not_the_default_is_marked_by_its_absence():
    lines = Plan.of(("prune", {"macs": 0.3})).text("c").splitlines()
    said = {line.strip().partition(":")[0]: before for before, line in itertools.pairwise(lines)}
    assert "default; " not in said["macs"]
    assert "default; " in said["rounds"]


def test_settings_left_out_have_their_defaults(tmp_path):
    plan = Plan.read(written(tmp_path, "steps:\n- prune: {macs: 0.5}\n- quantize\n"))
    assert plan == Plan.of(("prune", {"macs": 0.5}), ("quantize", {}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps:\n- prune: {mac: 0.5}\n", "`prune`: unknown setting 'mac'; did you mean 'macs'"),
        ("steps:\n- prun: {}\n", "no step 'prun'; did you mean 'prune'"),
        ("steps:\n- bake: {}\n", "no step 'bake'; known: fit, distill, prune"),
        ("steps:\n- distill\n", "student is needed"),
        ("steps:\n- distill: {student: resnet20, teacher: x}\n", "unknown setting 'teacher'"),
        ("steps:\n- prune\n- distill: {student: resnet20}\n", "taught before anything is made smaller"),
        ("steps:\n- prune: {macs: 7}\n", "`prune`: a share of MACs of 7"),
        ("steps:\n- prune: {macs: 0.5, macs: 0.3}\n", "line 2 is no YAML: 'macs' comes twice"),
        ("steps: []\nsteps:\n- quantize\n", "line 2 is no YAML: 'steps' comes twice"),
        ("steps:\n- quantize: {keep: conv1}\n", "keep='conv1' must be a list"),
        ("steps:\n- quantize: {max_drop: no}\n", "max_drop=False must be a number"),
        ("steps:\n- prune: {recover: yes}\n", "recover=True must be a whole number"),
        ("steps:\n- prune: [1]\n", "wanted its settings by name"),
        ("steps:\n- 3\n", "wanted one step an entry"),
        ("steps:\n- quantize\n- prune\n", "`prune` needs float weights, and rounded ones are none"),
        ("steps:\n- prune\n- prune\n", "a step comes once"),
        ("steps:\n- prune\n- fit\n", "a fit begins with images"),
        ("steps:\n- cluster\n- sparsify\n", "cluster last"),
        ("steps:\n- sparsify\n- prune\n", "`prune` comes first"),
        ("prune: {}\n", "wanted `steps:`"),
        ("steps: {prune: {}}\n", "wanted `steps:`"),
        ("steps: [\n", "line 2 is no YAML"),
        ("", "wanted `steps:`"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_in_a_line(text, said, tmp_path):
    with pytest.raises(UsageError, match=said) as error:
        Plan.read(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_plan_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"cannot be read \(No such file.*one of accurate, balanced, fast, smallest"):
        Plan.read(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        Plan.read(tmp_path / "binary")


def test_a_preset_is_one_beside_a_folder_of_its_name_and_draws_as_it_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fast").mkdir()
    plan = Plan.read("fast", seed=5)
    assert plan.verbs == ("prune", "quantize")
    assert {step.settings.seed for step in plan.steps} == {5}
    assert Plan.read("fast") == Plan.of(("prune", {"macs": 0.5}), ("quantize", {}))
