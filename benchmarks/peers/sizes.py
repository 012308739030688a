"""How much disk an installation takes: the files of distributions and of all that they require.

    python sizes.py edge-ad [openvino …]

Prints JSON: MiB, and the number of distributions. Extras are followed where a requirement names them. Files that an
editable installation leaves in its checkout are not counted.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import metadata

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(roots: list[str]) -> dict[str, metadata.Distribution]:
    """The distributions that these requirements bring, by name. What is not installed is left out."""
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *sorted(wanted.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                found[name] = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                continue
            environment = {**{key: str(value) for key, value in default_environment().items()}, "extra": extra}
            for text in found[name].requires or ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate(environment):
                    waiting.append(needed)
    return found


def size_mib(distributions: dict[str, metadata.Distribution]) -> float:
    """Of the files that their installation lists, as they lie on disk."""
    paths = {
        str(file.locate()) for each in distributions.values() for file in each.files or () if file.suffix != ".pyc"
    }
    total = 0
    for path in paths:
        try:
            total += os.stat(path).st_size
        except OSError:
            continue
    return total / (1 << 20)


def main() -> None:
    found = closure(sys.argv[1:])
    print(json.dumps({"installed_mib": size_mib(found), "distributions": len(found)}))


if __name__ == "__main__":
    main()
