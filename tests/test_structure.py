"""If this breaks, the house grows as docs/architecture.md says that it must not."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = sorted((ROOT / "simclr_tf").rglob("*.py"))
FILES = [*PACKAGE, *sorted((ROOT / "tools").glob("*.py"))]
LINES, BODY, PARAMETERS = 300, 40, 10
# What each package may import, beside itself and the modules at the top; later ones none before.
LAYERS = (
    ("benchmark", "jobs", "report", "study"),
    ("preflight",),
    ("evaluation",),
    ("export",),
    ("training",),
    ("methods",),
    ("prepare",),
    ("data", "objectives", "optim"),
    ("models", "augment"),
    ("distribute",),
)


def name(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: pathlib.Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def is_entry(function: ast.FunctionDef) -> bool:
    """Whether a recipe binds its parameters."""
    return any("gin" in ast.dump(decorator) for decorator in function.decorator_list)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_functions_and_signatures_are_short(path):
    assert len(path.read_text().splitlines()) <= LINES
    for function in functions(path):
        first, *rest = function.body
        is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        body = rest if is_docstring else function.body
        if body:
            assert body[-1].end_lineno - body[0].lineno < BODY, function.name
        arguments = function.args
        named = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        count = len([argument for argument in named if argument not in ("self", "cls")])
        assert count <= PARAMETERS or is_entry(function), function.name


def imported(path: pathlib.Path) -> set[str]:
    """Names of what a file imports from this project."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module for module in found if module.startswith("simclr_tf.")}


@pytest.mark.parametrize("path", PACKAGE, ids=name)
def test_nothing_is_imported_upward(path):
    layer = {package: rank for rank, packages in enumerate(LAYERS) for package in packages}
    own = path.relative_to(ROOT / "simclr_tf").parts[0]
    if own in layer:
        for module in imported(path):
            other = module.split(".")[1]
            assert other == own or layer.get(other, len(LAYERS)) >= layer[own], module


def test_there_is_no_cycle():
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in PACKAGE}
    edges = {}
    for module, path in modules.items():
        targets = imported(path)
        edges[module] = {
            t for t in targets | {t.rpartition(".")[0] for t in targets} if t in modules
        }
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for target in edges[module]:
                visit(target, (*above, module))
            done.add(module)

    for module in modules:
        visit(module, ())
