"""Nothing that evotext depends on has a licence that would bind it, and the published list is true."""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import licences  # noqa: E402

LISTED = dict(re.findall(r"^\| (\S+) \| \S+ \| (.+) \|$", (ROOT / "docs" / "licences.md").read_text(), re.MULTILINE))


def test_every_licence_is_permissive() -> None:
    found = licences.dependencies("evotext")
    assert {"torch", "transformers", "gymnasium", "mpmath"} <= set(found), "direct ones and those that they bring"
    wrong = {name: licences.objection(licences.licence(package)) for name, package in found.items()}
    assert [f"{n}: {w}" for n, w in wrong.items() if w and n not in licences.KNOWN] == []


def test_the_list_names_every_dependency() -> None:
    assert set(licences.dependencies("evotext")) <= set(LISTED), "run: python scripts/licences.py > docs/licences.md"


@pytest.mark.parametrize("name", sorted(set(licences.KNOWN)))
def test_an_exception_is_not_a_dependency_of_the_core(name: str) -> None:
    core = [r.split(";")[0].split(">")[0] for r in distribution("evotext").requires or [] if "extra ==" not in r]
    waiting, seen = list(core), set()
    while waiting:
        one = waiting.pop()
        seen.add(one)
        try:
            needed = licences._required(distribution(one), "")
        except PackageNotFoundError:
            continue
        waiting += [r.name for r in needed if r.name not in seen]
    assert name not in seen and "torch" in seen


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("MIT", True),
        ("BSD License", True),
        ("Apache-2.0 AND CNRI-Python", True),
        ("MPL-2.0 AND MIT", True),
        ("GPL-3.0-or-later", False),
        ("GNU General Public License v3 or later (GPLv3+)", False),
        ("LGPL-2.1", False),
        ("MIT AND GPL-2.0", False),
        ("MIT OR GPL-2.0", True),
        ("unknown", False),
        ("", False),
    ],
)
def test_what_is_objected_to(text: str, fine: bool) -> None:
    assert (licences.objection(text) is None) is fine
