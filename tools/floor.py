"""Print the lowest version of each package that pyproject.toml admits, as constraints for pip: `make floor`."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
REQUIREMENT = re.compile(r"([\w-]+)>=([\w.]+)")


def floor(project):
    """The lines `name==version`, sorted, of all requirements, those of extras too."""
    requirements = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    others = [one for one in requirements if not one.startswith(f"{project['name']}[")]  # an extra may name extras
    matches = {one: REQUIREMENT.fullmatch(one) for one in others}
    if wrong := [one for one, match in matches.items() if match is None]:
        raise SystemExit(f"pyproject.toml: {', '.join(wrong)} has no lowest version; write name>=version")
    return sorted(f"{match[1]}=={match[2]}" for match in matches.values())


def main():
    print("\n".join(floor(tomllib.loads(PROJECT.read_text())["project"])))


if __name__ == "__main__":
    main()
