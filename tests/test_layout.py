"""The shape of the source tree: directions of import, cycles, sizes, a test for each file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src"
PACKAGE = SOURCE / "tripletune"

# What each part may import besides itself. Evaluation stands apart: it needs no model, so scoring
# works without torch, and training may use it.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "schema": {"errors"},
    "config": {"errors", "schema"},
    "models": {"errors", "schema", "config"},
    "data": {"errors", "schema", "config"},
    "evaluation": {"errors", "schema", "data.linearize"},
    "extraction": {"errors", "schema", "config", "models", "data"},
    "training": {"errors", "schema", "config", "models", "data", "extraction", "evaluation"},
    "cli": {
        *("errors", "schema", "config", "models", "data"),
        *("extraction", "training", "evaluation"),
    },
    "__main__": {"cli"},
    # The package itself registers the model classes, without importing any.
    "": {"models.registration"},
}
MAX_LINES = 430
# Root scripts and command-line areas are where output and exit codes belong.
FORBIDDEN_CALLS = {"print", "exit", "quit", "breakpoint"}


def list_sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_module(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_module(path): path for path in list_sources()}


def iter_run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that can run; what stands under `if TYPE_CHECKING` cannot."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        return
    yield tree
    for child in ast.iter_child_nodes(tree):
        yield from iter_run_nodes(child)


def iter_imports(path: Path, *, for_types: bool = True) -> Iterator[str]:
    """Modules of this package that a file imports, inside functions or not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if for_types else iter_run_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in MODULES:
                    yield full
                elif node.module in MODULES:
                    yield str(node.module)


def name_part(module: str) -> str:
    """`tripletune.data.readers.spo` is in the part `data`."""
    return ".".join(module.split(".")[1:2])


def is_allowed(importer: str, imported: str) -> bool:
    if imported == "tripletune" or name_part(importer) == name_part(imported):
        return True
    inside = imported.removeprefix("tripletune.")
    return any(
        inside == allowed or inside.startswith(f"{allowed}.")
        for allowed in ALLOWED[name_part(importer)]
    )


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Some cycle of a graph, as the nodes along it, or nothing."""
    done: set[str] = set()

    def follow(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        for neighbour in sorted(graph[node]):
            found = follow(neighbour, [*trail, node])
            if found:
                return found
        done.add(node)
        return []

    return next((cycle for node in sorted(graph) if (cycle := follow(node, []))), [])


def find_test(path: Path) -> Path:
    """The test file that mirrors a source file."""
    inside = path.relative_to(PACKAGE)
    name = inside.parent.name if path.name == "__init__.py" else inside.stem
    return REPOSITORY / "tests" / inside.parent / f"test_{name}.py"


def has_code(path: Path) -> bool:
    """Whether a file defines anything, which most `__init__.py` do not."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in nodes)


def test_every_part_has_a_place_in_the_direction():
    assert len(MODULES) > 100
    assert {name_part(module) for module in MODULES} - set(ALLOWED) <= {"assets"}


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_down(part):
    wrong = [
        f"{importer} imports {imported}"
        for importer, path in MODULES.items()
        if name_part(importer) == part
        for imported in iter_imports(path)
        if not is_allowed(importer, imported)
    ]
    assert wrong == []


def test_is_allowed_knows_the_direction():
    assert is_allowed("tripletune.evaluation.table", "tripletune.data.linearize")
    assert not is_allowed("tripletune.evaluation.table", "tripletune.data.readers")
    assert not is_allowed("tripletune.data.encode", "tripletune.models.chatglm")
    assert not is_allowed("tripletune.schema", "tripletune.config")


def test_imports_form_no_cycle():
    graph = {
        importer: set(iter_imports(path, for_types=False)) - {importer, "tripletune"}
        for importer, path in MODULES.items()
    }
    assert find_cycle(graph) == []


def test_find_cycle_finds_one():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("path", list_sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_short(path):
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_LINES


@pytest.mark.parametrize("path", list_sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_has_a_test(path):
    if not has_code(path) and path.name == "__init__.py":
        return
    assert find_test(path).is_file(), f"{find_test(path).relative_to(REPOSITORY)} is missing"


def test_no_file_is_named_for_nothing():
    names = {"utils", "util", "common", "misc", "helpers", "helper"}
    assert [path for path in list_sources() if path.stem in names] == []


def test_only_the_command_line_prints_or_exits():
    found = [
        f"{module}:{node.lineno}"
        for module, path in MODULES.items()
        if name_part(module) != "cli"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS)
            or ast.unparse(node.func) == "sys.exit"
        )
    ]
    assert found == []


def test_nothing_raises_an_exception_without_a_kind():
    too_general = {"Exception", "BaseException", "SystemExit", "AssertionError"}
    found = [
        f"{module}:{node.lineno}"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and ast.unparse(node.exc.func) in too_general
    ]
    assert found == []


def test_nothing_asserts():
    found = [
        f"{module}:{node.lineno}"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_no_exception_is_caught_by_a_bare_except():
    found = [
        f"{module}:{node.lineno}"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert found == []
