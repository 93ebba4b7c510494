"""The list of mutations does not rot: each can still be made, and its test is there."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "mutants"))

from mutations import MUTATIONS  # noqa: E402


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_changes_text_that_stands_once_in_its_file(mutation):
    text = (ROOT / mutation.file).read_text()
    assert text.count(mutation.old) == 1
    changed = text.replace(mutation.old, mutation.new)
    assert changed != text
    if mutation.file.endswith(".py"):
        ast.parse(changed)


@pytest.mark.parametrize("test", sorted({mutation.test for mutation in MUTATIONS}))
def test_the_test_of_a_mutation_is_there(test):
    file, _, name = test.partition("::")
    found = re.findall(r"^(?:TEST\(|def (?=test_))(\w+)", (ROOT / file).read_text(), re.MULTILINE)
    assert [one for one in found if (name == one if file.endswith(".py") else name in one)]


def test_mutations_have_names_of_their_own():
    names = [mutation.name for mutation in MUTATIONS]
    assert len(set(names)) == len(names)
