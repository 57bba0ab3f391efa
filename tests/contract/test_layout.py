"""How the tree is laid out, held by test: sizes, names, exports, type markers."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "producers": "callmeter",
    "processors": "callmeter_processors",
    "sinks": "callmeter_sinks",
}
CEILING_LINES = 400
BANNED_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}
#: Folders of code written by hand, tests and programs included.
FOLDERS = [*PACKAGES, "tests", "scripts", "benchmarks", "examples"]


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if "__pycache__" not in path.parts]


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_walk_sees_the_tree() -> None:
    names = {shown(path) for path in sources(*FOLDERS)}
    assert "producers/callmeter/errors.py" in names
    assert "tests/contract/test_layout.py" in names


COMPILED = [path for root in PACKAGES for path in sorted((ROOT / root).rglob("*.p[yx][xd]"))]


@pytest.mark.parametrize("path", [*sources(*FOLDERS), *COMPILED], ids=shown)
def test_no_file_is_longer_than_the_ceiling(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= CEILING_LINES, f"{lines} lines: split it by noun"


def test_no_module_has_a_name_that_says_nothing() -> None:
    bad = [shown(path) for path in sources(*FOLDERS) if path.stem in BANNED_NAMES]
    assert bad == []


@pytest.mark.parametrize(("root", "package"), PACKAGES.items())
def test_each_root_holds_one_typed_package(root: str, package: str) -> None:
    holders = [child.name for child in (ROOT / root).iterdir() if (child / "__init__.py").is_file()]
    assert holders == [package]
    assert (ROOT / root / package / "py.typed").is_file()
    assert not (ROOT / root / "__init__.py").exists(), "a source root is not a package"


def test_every_folder_of_product_code_is_a_package() -> None:
    folders = {path.parent for path in sources(*PACKAGES)}
    bare = [shown(folder) for folder in folders if not (folder / "__init__.py").is_file()]
    assert bare == []


def exported(path: Path) -> list[str] | None:
    """The literal ``__all__`` of a module, or None if it has none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            value = node.value
            assert isinstance(value, ast.List | ast.Tuple), "__all__ is a literal"
            return [ast.literal_eval(item) for item in value.elts]
    return None


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=shown)
def test_exports_are_sorted_and_named_once(path: Path) -> None:
    names = exported(path)
    assert names is None or names == sorted(set(names))
