"""DIN example: the experiments, their results and the README's tables of them."""

import json
import shlex

import pytest
from din import experiments, report, study, train

RUNS = [
    (name, label, seed)
    for name, of_study in experiments.STUDIES.items()
    for label, experiment in of_study.items()
    for seed in experiment.seeds
]


def test_the_readme_has_the_tables_of_the_result_files():
    _, inside, _ = report.split_readme()
    assert inside == f"\n{report.text()}\n", "python examples/din/report.py writes README.md anew"


def test_every_result_file_is_of_a_declared_experiment_and_has_its_settings():
    declared = {experiments.path_of(*run): run for run in RUNS}
    found = sorted(experiments.RESULTS.glob("*/*.json"))
    assert found
    for path in found:
        name, label, seed = declared[path]
        experiment = experiments.STUDIES[name][label]
        content = json.loads(path.read_text())
        assert content["command"] == experiment.command(seed)
        assert content["result"]["seed"] == seed
        flags = shlex.split(experiment.flags)
        if experiment.program == "train.py":
            options = train.parse_arguments(["--data-dir", "DIR", *flags])
            for key in ("dataset", "split", "model", "embedding", "optimizer", "learning_rate", "epochs"):
                assert content["result"][key] == getattr(options, key), (path, key)


def test_every_experiment_of_train_has_flags_that_it_takes():
    for name, label, seed in RUNS:
        experiment = experiments.STUDIES[name][label]
        if experiment.program == "train.py":
            train.parse_arguments(["--data-dir", "DIR", *shlex.split(experiment.flags), "--seed", str(seed)])


@pytest.fixture
def small_study(monkeypatch, tmp_path):
    """Two experiments of two seeds, results in a folder of their own, and the arguments of each training."""
    calls = []

    def trained(arguments):
        calls.append(arguments)
        return {"gauc": len(calls) / 10, "epochs": 2, "seconds": 4.0, "seed": int(arguments[-3])}

    declared = {
        "tiny": {
            "one": experiments.Experiment("--model base", (1, 2)),
            "two": experiments.Experiment("--model din", (1, 2)),
            "torch": experiments.Experiment("", (1,), "torch_reference.py"),
        }
    }
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    monkeypatch.setattr(experiments, "STUDIES", declared)
    monkeypatch.setattr(study, "STUDIES", declared)
    monkeypatch.setattr(train, "main", trained)
    return calls


def test_a_study_runs_seed_by_seed_and_not_again_what_is_there(small_study, capsys, tmp_path):
    study.main(["tiny", "--data-dir", "DIR", "--seeds", "1"])
    assert [(call[3], call[5]) for call in small_study] == [("base", "1"), ("din", "1")]
    assert "1 runs need --torch-python and are left out" in capsys.readouterr().out
    study.main(["tiny", "--data-dir", "DIR"])
    assert [(call[3], call[5]) for call in small_study[2:]] == [("base", "2"), ("din", "2")]
    study.main(["tiny", "--data-dir", "DIR"])
    assert len(small_study) == 4
    content = json.loads((tmp_path / "tiny" / "two-1.json").read_text())
    assert content["command"] == "python examples/din/train.py --data-dir DIR --model din --seed 1"
    assert content["result"]["gauc"] == 0.2
    assert experiments.missing("tiny") == {"torch": [1]}


def test_differences_are_paired_by_seed(small_study):
    def runs(values):
        return {seed: {"result": {"gauc": value}} for seed, value in values.items()}

    # Of seeds 1 and 3: .01 and .03; seed 2 has no partner.
    text = report.difference(runs({1: 0.81, 2: 0.99, 3: 0.83}), of=runs({1: 0.80, 3: 0.80}))
    assert text == "+.0200 ± .0100"
    assert report.difference(runs({1: 0.79}), of=runs({1: 0.80})) == "-.0100"
    assert report.difference(runs({1: 0.79}), of=runs({2: 0.80})) == ""


def test_an_unknown_study_is_named(capsys):
    with pytest.raises(SystemExit):
        study.main(["nothing", "--data-dir", "DIR"])
    assert "got 'nothing'" in capsys.readouterr().err
