"""The benchmark's own correctness: same task for all, nobody skipped in silence."""

import json
import subprocess
import sys

import colab_cells
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    anatomy,
    attention,
    contenders,
    counting,
    machine,
    race,
    races,
    summary,
    variants,
)
from benchmarks.problem import Problem, Setting
from microgpt.matrix import WIDE

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


def test_a_whole_plan_has_all_settings():
    plan = races.Plan(tuple(contenders.NAMES), quick=False, threads=2)
    titles = {found.title for found in races.races(plan)}
    batches = {f"batch {b}, {n} thread(s)" for b in (16, 32) for n in (1, 2)}
    assert titles == {"seed", "large"} | batches
    assert {name for found in races.races(plan) for name in found.names} == set(
        contenders.NAMES
    )


def test_numbers_that_count():
    counting.COUNTS.clear()
    x = np.ones((2, 3), "float32").view(counting.Counting)
    total = np.float32(0)
    for j in range(3):
        total += x[0, j] * x.T[j][1] - 1
    assert counting.COUNTS == {"flop": 9} and total == 0
    assert (2 / (1 / x[1, 1]) < 3) and -x[0, 0] == -1
    assert counting.COUNTS == {"flop": 9, "truediv": 2, "compare": 1, "neg": 1}


@pytest.fixture(scope="module")
def calls():
    lengths = [len(ids) - 1 for ids in Problem(Setting()).tokens(0, 200)]
    return anatomy.count_calls({}, lengths.index(anatomy.POSITIONS))


def test_the_operations_of_a_step(calls):
    counts = [call["counts"] for call in calls[0]]
    flop, roots, exps = (
        sum(c.get(kind, 0) for c in counts) for kind in ("flop", "sqrt", "exp")
    )
    T, C, V, size = anatomy.POSITIONS, 16, 27, 4204
    linear = 3 * 2 * T * (12 * C * C + V * C)
    adam = next(c["counts"] for c in calls[0] if c["kernel"] == "adam")
    assert adam["truediv"] == size
    assert adam["sqrt"] == size + 1 <= roots  # one of the correction
    assert linear + adam["flop"] < flop < 1.7 * (linear + adam["flop"])
    assert exps >= T * V + 2 * 4 * T * (T + 1) / 2  # the loss; scores, both passes


def test_a_recorded_call_is_replayed(calls):
    calls, arrays = calls
    call = next(call for call in calls if call["kernel"] == "rmsnorm")
    replay = anatomy.Replay(call, arrays, room=16)
    replay.loop(replay.record, anatomy.POSITIONS, 1)
    x, y, r = (replay.record[name].T for name, *_ in replay.fields)
    x, y, r = x[:, : anatomy.POSITIONS], y[:, : anatomy.POSITIONS], r[: len(x)]
    assert np.abs(x).max() > 0
    root = np.sqrt((x * x).mean(axis=0) + 1e-5)
    np.testing.assert_allclose(y, x / root, rtol=1e-5)
    np.testing.assert_allclose(r[: anatomy.POSITIONS], 1 / root, rtol=1e-5)


def test_the_busiest_unit():
    limits = {
        "gflops": {"float32": 2.0},
        "caches": {"L1": 10},
        "gbytes": {"L1": 4, "L2": 1},
    }
    limits |= {"giga": {"truediv": 0.5, "sqrt": 0.25}}
    cases = (
        ({"flop": 6, "compare": 2}, 8, "arithmetic", 4e-9),
        ({"flop": 6}, 16, "wires", 16e-9),  # it does not fit into L1
        ({"truediv": 2, "sqrt": 1}, 0, "divider", 8e-9),
    )
    for counts, size, unit, spent in cases:
        busy = anatomy.units(counts, size, limits)
        assert max(busy, key=busy.get) == unit
        assert busy[unit] == pytest.approx(spent)


VARIED = {  # what must be seen of a variant, and what the book itself shows
    "aliasing": ("matrix.fill.targetoptions['noalias']", False, True),
    "counting": ("matrix.fill.targetoptions['_nrt']", True, False),
    "loose": (
        "'reassoc' in matrix.fill.targetoptions.get('fastmath', ())",
        True,
        False,
    ),
    "exp": ("'math' in matrix.exp_float32.py_func.__code__.co_freevars", True, False),
    "fma": ("hasattr(matrix.fma, 'py_func')", True, False),
    # nothing to take away where the processor has no wide registers
    "panels": ("matrix.WIDE == ('+avx512f' in matrix.FEATURES)", not WIDE, True),
    "calls": ("'-inline-threshold=1000' in options", False, True),
    "long-loops": ("'-unroll-runtime=false' in options", False, True),
    "sizes": ("hasattr(training.training_state(model).p, '_fields')", True, False),
    "slp": ("bool(numba.config.SLP_VECTORIZE)", False, True),
    "avx2": ("numba.config.CPU_NAME == 'haswell'", True, False),
}


@pytest.mark.parametrize("variant", [*VARIED, None])
def test_a_variant_changes_what_it_says(root, variant):
    code = (
        "from llvmlite import binding\nset_option, options = binding.set_option, []\n"
        "binding.set_option = lambda *x: (options.append(x[1]), set_option(*x))\n"
        f"from benchmarks import variants; variants.apply({variant!r})\n"
        "import numba, microgpt\nfrom microgpt import matrix, training\n"
        "model = microgpt.GPT(microgpt.GPTConfig(5), None)\n"
    )
    code += "".join(f"print({seen})\n" for seen, *_ in VARIED.values())
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = done.stdout.splitlines()
    for (name, (_, varied, plain)), value in zip(VARIED.items(), found, strict=True):
        assert value == str(varied if name == variant else plain), name


def test_sums_in_any_order_leave_exponentials_right(root):
    code = (
        "from benchmarks import variants; variants.apply('loose')\n"
        "import numpy as np\nfrom microgpt import matrix\n"
        "x = np.linspace(-9, 0, 20, dtype='f4').reshape(20, 1); y = x.copy('F')\n"
        "matrix.softmax(x, y); e = np.exp(x)\n"
        "np.testing.assert_allclose(y, e / e.sum(), 1e-5)\n"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_variants_keep_their_machine_code_apart(root):
    code = (
        "from benchmarks import variants; variants.apply({!r})\n"
        "from microgpt import matrix\n"
        "print(matrix.kernel_cache(matrix.Path(matrix.__file__).parent))\n"
    )
    places = set()
    for variant in ("aliasing", "exp", None):
        run = [sys.executable, "-c", code.format(variant)]
        places.add(subprocess.run(run, cwd=root, capture_output=True, text=True).stdout)
    assert len(places) == 3 and "" not in places


def test_every_variant_is_a_contender_of_its_own():
    assert set(VARIED) == set(variants.VARIANTS), "the test above tries them all"
    for key in variants.VARIANTS:
        assert contenders.entry(f"book-{key}_f32")[0].variant == key
        assert f"book-{key}_f32" not in contenders.NAMES
    with pytest.raises(ValueError):
        contenders.entry("book-aliasing_f64")


CHAPTER = "chapters/13_speed.ipynb"
FAILED = {part: {"error": "it died"} for part in command.PARTS} | {"races": {}}
PARTIAL = [{}, {"quick": True}, FAILED]


@pytest.mark.parametrize("results", PARTIAL, ids=["none", "empty", "failed"])
def test_the_chapter_says_what_is_missing(root, results, tmp_path, monkeypatch, capsys):
    cells = json.loads((root / CHAPTER).read_text("utf-8"))["cells"]
    monkeypatch.chdir(root / "chapters")
    path, names = tmp_path / "latest.json", {}
    if results:
        path.write_text(json.dumps(results))
    for cell in cells:
        source = "".join(cell["source"])
        if cell["id"] == "speed-sizes":  # from here on nothing is read
            break
        if cell["cell_type"] == "code" and cell["id"] != colab_cells.ID:
            exec(source.replace("../benchmarks/results/latest.json", str(path)), names)
    told = capsys.readouterr().out
    for part in ("machine", "attention, rows", "roofline, limits", "ideas"):
        assert f"not in this file: {part}; `make bench` measures it" in told


def test_numbers():
    assert summary.summary([3.0, 1.0, 2.0])["median"] == 2
    assert summary.ratio([2.0, 9.0], [1.0, 3.0])["rounds"] == [2, 3]
    assert attention.operations(2, 1, "forward") == 2 * 2 * 3 * attention.N_HEAD
