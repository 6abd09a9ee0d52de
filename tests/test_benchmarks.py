"""The benchmark's own correctness: same task for all, nobody skipped in silence."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import attention, contenders, machine, race, races, summary
from benchmarks.problem import Problem, Setting

ODD = {"n_embd": 12, "n_head": 3, "n_layer": 2, "block_size": 9, "dtype": "float64"}
ALONE = [name for name in contenders.NAMES if not contenders.entry(name)[0].needs]


@pytest.fixture(scope="module")
def problem():
    disturbed = Problem(Setting(**ODD))
    disturbed.disturb()
    return disturbed


@pytest.mark.parametrize("name", [n for n in ALONE if n.endswith("f64")])
def test_the_same_loss_and_every_gradient(problem, name):
    contender = contenders.load(name)(problem)
    model = problem.model("float64")
    for parameter, x in problem.weights.items():
        model.params[parameter][...] = x
    for number in race.documents_to_check(problem):
        tokens = problem.tokens(number, 1)[0]
        loss, grads = contender.loss_and_grads(tokens)
        wanted_loss, wanted = model.loss_and_grads(tokens)
        assert abs(loss - wanted_loss) < 1e-9
        assert set(grads) == set(wanted)
        for parameter, x in wanted.items():
            assert grads[parameter].shape == x.shape
            flat = parameter == "0.attn.theta"  # the streams are still equal there
            assert flat or np.abs(x).max() > 0, f"nothing to compare in {parameter}"
            assert np.abs(grads[parameter] - x).max() < 1e-9, parameter


def test_the_same_run(problem):
    losses = [contenders.load(name)(problem) for name in ALONE if "f64" in name]
    for contender in losses:
        contender.reset()
    runs = [np.array(contender.run(5)) for contender in losses]
    for run in runs[1:]:
        np.testing.assert_allclose(run, runs[0], rtol=0, atol=1e-9)


def test_a_run_repeats_itself(problem):
    contender = contenders.load("numpy_tuned_f64")(problem)
    contender.prepare(3)
    contender.reset()
    first = contender.run(3)
    contender.reset()
    assert (contender.run(3) == first).all()


def test_a_wrong_gradient_is_noticed():
    wanted = {"0/loss": 3.0, "0/wte": np.ones(3), "0/wq": np.full(2, 10.0)}
    wrong = wanted | {"0/wte": np.array([1.0, 1.0, 1.1])}
    found = race.difference(wrong, wanted, "float64")
    assert not found["same"] and found["where"] == "0/wte"
    assert found["gradient"] == pytest.approx(0.01)
    assert race.difference(wanted, wanted, "float64")["same"]
    wrong["0/loss"] = np.nan
    assert not race.difference(wrong, wanted, "float64")["same"]


def test_missing_contenders_are_named(monkeypatch):
    monkeypatch.setattr(contenders, "available", lambda need: False)
    result = race.check(["torch_eager_f32", "jax_scan_f64"], {"n_embd": 4})
    assert result["rows"] == {}
    table = race.check_table(result)
    assert "torch_eager_f32      MISSING, not installed: torch" in table
    assert "jax_scan_f64         MISSING, not installed: jax" in table


@pytest.mark.parametrize(
    "arguments",
    [
        ["benchmarks", "--contenders", "book_f32", "numpi_f32"],
        ["benchmarks.worker", "numpi_f32"],
        ["benchmarks.worker", "scalars_f32"],
    ],
)
def test_an_unknown_name_is_one_line(root, arguments):
    run = [sys.executable, "-m", *arguments]
    done = subprocess.run(run, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"benchmarks: error: no contender '{arguments[-1]}'")
    assert done.stderr.count("\n") == 1


def test_a_race_and_its_file(tmp_path, monkeypatch):
    small = {"n_embd": 4, "block_size": 5}
    names = ("numpy_plain_f64", "numpy_tuned_f64")
    monkeypatch.setattr(race, "LEAST_SECONDS", 0)
    found = race.run(race.Race("small", names, small, steps=3, rounds=2))
    assert found["missing"] == {} and set(found["rows"]) == set(names)
    result = {"date": "2001-02-03T04:05", "machine": machine.describe(), "race": found}
    path = command.write(result, tmp_path)
    assert path.name.startswith("2001-02-03-") and path.suffix == ".json"
    read = json.loads((tmp_path / "latest.json").read_text(encoding="utf-8"))
    row = read["race"]["rows"]["numpy_plain_f64"]
    assert len(row["microseconds"]["rounds"]) == 2 and row["steps"] == 3
    assert read["race"]["setting"]["n_embd"] == 4
    assert set(read["machine"]["versions"]) >= {"numpy", "torch", "jax"}
    assert "numpy_tuned_f64" in race.table(found)


def test_a_plan_leaves_out_who_differs():
    plan = races.plan(["book_f32", "numpy_plain_f64"])
    check = {"rows": {"book_f32": {"same": True}, "numpy_plain_f64": {"same": False}}}
    assert plan.without(check).names == ("book_f32",)


def test_numbers():
    assert summary.summary([3.0, 1.0, 2.0])["median"] == 2
    assert summary.ratio([2.0, 9.0], [1.0, 3.0])["rounds"] == [2, 3]
    assert attention.operations(2, 1, "forward") == 2 * 2 * 3 * attention.N_HEAD
