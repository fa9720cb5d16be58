"""What tests share lies in modules of its own, so that each test file can be moved, renamed and run alone."""

import re
from pathlib import Path

IMPORT = re.compile(r"^\s*(?:from|import)\s+(?:\w+\.)*(test_\w+|conftest)\b", re.MULTILINE)


def test_no_file_imports_from_a_test_file_or_from_conftest():
    found = {file.name: IMPORT.findall(file.read_text()) for file in Path(__file__).parent.rglob("*.py")}
    assert {name: modules for name, modules in found.items() if modules} == {}
