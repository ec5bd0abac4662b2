"""Licences of everything that evotext depends on, directly or not: `python scripts/licences.py > docs/licences.md`.

Reads the metadata of what is installed; an extra counts if it is installed whole. Exit status 1, with a line each on standard
error, for a licence that is unknown or that would bind code which only imports the package (GPL, AGPL, LGPL).
"""

import re
import sys
from email.message import Message
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Mozilla's licence binds changes to the package's own files and nothing else.
ALLOWED = r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla|Zlib|0BSD|CNRI|Unlicense|CC0|BSL-1\.0|Boost"
REFUSED = r"GPL|General Public|Affero|SSPL|Commons Clause|Proprietary"
# Licences that the metadata does not state, or packages that are wanted in spite of theirs, and why.
KNOWN = {
    "zss": "BSD (in its repository; its metadata names none)",
    "chess": "GPL-3.0-or-later: comes with textarena, in the extra of that name alone; nothing here imports it",
    "openai-harmony": "Apache-2.0 (its licence file; its metadata names none)",
    "prime-pydantic-config": "Apache-2.0 (its licence file; its metadata names none)",
    "protobuf-py-ext": "Apache-2.0 (as protobuf-py, from the same repository; its metadata names none)",
}


def dependencies(name: str) -> dict[str, Distribution]:
    """Return every installed distribution that `name` needs with its installed extras, itself left out, by name."""
    root = distribution(name)
    extras = root.metadata.get_all("Provides-Extra") or []
    found: dict[str, Distribution] = {}
    waiting = [r for extra in ["", *extras] for r in _required(root, extra)]
    done: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        key = canonicalize_name(requirement.name)
        try:
            found[key] = distribution(requirement.name)
        except PackageNotFoundError:  # of an extra that is not installed
            continue
        for extra in ["", *requirement.extras]:
            if (key, extra) not in done:
                done.add((key, extra))
                waiting += _required(found[key], extra)
    found.pop(canonicalize_name(name), None)
    return dict(sorted(found.items()))


def _required(package: Distribution, extra: str) -> list[Requirement]:
    requirements = map(Requirement, package.requires or [])
    return [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": extra})]


def licence(package: Distribution) -> str:
    """Return the package's own statement in one line: its expression, else its classifiers, else the field's first line."""
    metadata = cast(Message, package.metadata)
    classifiers = [c.split(" :: ")[-1] for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    stated = metadata.get("License-Expression") or " or ".join(c for c in classifiers if c != "OSI Approved")
    return str(stated or (metadata.get("License") or "unknown").strip().split("\n")[0])


def objection(text: str) -> str | None:
    """Say what is wrong with a licence; None if nothing is. One of several alternatives has to be right."""
    if any(re.search(ALLOWED, part) and not re.search(REFUSED, part) for part in re.split(r" (?:OR|or) ", text)):
        return None
    return f"expected a permissive licence, got {text!r}"


def main() -> int:
    """Print the list; the exit status."""
    print("# Licences of what evotext depends on\n\n`python scripts/licences.py` made this list.\n")
    print("| Package | Version | Licence |\n|---|---|---|")
    wrong = 0
    for name, package in dependencies("evotext").items():
        text = KNOWN.get(name) or licence(package)
        print(f"| {name} | {package.version} | {text} |")
        if name not in KNOWN and (found := objection(text)):
            wrong += 1
            print(f"{name}: {found}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
