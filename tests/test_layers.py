"""Imports point down, files and functions stay short, decoders never see torch. Reads the source only."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "trimode"

# docs/architecture.md draws the same order. A name is a file or a folder directly under trimode/.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"spans", "cost", "config", "errors", "options"}),
    frozenset({"numerics", "tokenizer", "native"}),
    frozenset({"models", "cache", "quantization", "constraints"}),
    frozenset({"decoding", "training"}),
    frozenset({"engine", "keywords"}),
    frozenset({"api", "server", "bench", "evaluation", "editing", "viewer"}),
    frozenset({"cli"}),
)
LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}

# Neighbours may see each other only one way, and only where one is plainly the tool of the other.
# Decoding and training, above all, are strangers: they share spans, numerics, models and the file format.
NEIGHBOURS = frozenset(
    {
        ("config", "errors"),
        ("options", "errors"),
        ("spans", "errors"),
        ("models", "cache"),
        ("models", "quantization"),
        ("bench", "api"),
        ("editing", "api"),
        ("evaluation", "api"),
        ("server", "api"),
        ("viewer", "api"),
    }
)

EXEMPT = frozenset({"__init__", "__main__"})  # trimode/__init__.py names the public things, __main__.py runs the cli
TORCH_FREE = frozenset({"spans", "cost", "config", "errors", "options", "decoding"})
VAGUE_NAMES = frozenset({"util", "utils", "helper", "helpers", "common", "misc"})
LONGEST_FILE = 250
LONGEST_FUNCTION = 60

FILES = sorted(PACKAGE.rglob("*.py"))


def complaint(importer: str, imported: str) -> str | None:
    """Why `importer` may not import `imported` (both directly under trimode/), or None."""
    for name in (importer, imported):
        if name not in LAYER_OF:
            return f"{name} has no layer: give it one in LAYERS and in docs/architecture.md"
    if importer == imported or (importer, imported) in NEIGHBOURS:
        return None
    above, below = LAYER_OF[importer], LAYER_OF[imported]
    if above > below:
        return None
    direction = "up" if above < below else "sideways"
    return f"{importer} (layer {above}) imports {direction}: {imported} (layer {below})"


def module_name(file: Path) -> str:
    """trimode/decoding/base.py -> trimode.decoding.base; trimode/cli/__init__.py -> trimode.cli."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit(file: Path) -> str:
    """The name directly under trimode/ that a file belongs to."""
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def syntax(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


@cache
def modules() -> dict[str, Path]:
    return {module_name(file): file for file in FILES}


@cache
def imports(file: Path) -> tuple[tuple[int, str], ...]:
    """(line, dotted name) of every import, those inside functions and under TYPE_CHECKING included."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(syntax(file)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = absolute_source(file, node)
            found += [(node.lineno, f"{source}.{alias.name}") for alias in node.names]
    return tuple(found)


def absolute_source(file: Path, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    package = list(file.relative_to(ROOT).parent.parts)
    package = package[: len(package) - (node.level - 1)]
    return ".".join([*package, node.module] if node.module else package)


def own_imports(file: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name without the leading `trimode.`) of every import from trimode itself."""
    for line, name in imports(file):
        root, _, rest = name.partition(".")
        if root == "trimode":
            yield line, rest


def loaded_by(file: Path) -> Iterator[Path]:
    """The files of trimode that an import in `file` names, with the __init__.py of the folders on the way."""
    for _, name in own_imports(file):
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            target = modules().get(".".join(["trimode", *parts[:length]]))
            if target is not None:
                yield target


def place(file: Path, line: int) -> str:
    return f"{file.relative_to(ROOT)}:{line}"


def test_every_file_has_a_layer() -> None:
    strangers = {unit(file) for file in FILES} - set(LAYER_OF) - EXEMPT
    assert not strangers, f"no layer for {sorted(strangers)}: name it in LAYERS and in docs/architecture.md"


def test_no_name_has_two_layers() -> None:
    assert sum(len(names) for names in LAYERS) == len(LAYER_OF)


def test_imports_point_down() -> None:
    wrong = []
    for file in FILES:
        importer = unit(file)
        if importer in EXEMPT:
            continue
        for line, name in own_imports(file):
            imported = name.split(".")[0]
            if imported == "__version__":
                continue
            if (why := complaint(importer, imported)) is not None:
                wrong.append(f"{place(file, line)}: {why}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("engine", "decoding", True),
        ("evaluation", "training", True),
        ("config", "errors", True),
        ("models", "cache", True),
        ("numerics", "models", False),
        ("decoding", "engine", False),
        ("training", "decoding", False),
        ("training", "engine", False),
        ("training", "server", False),
        ("decoding", "training", False),
        ("errors", "config", False),
        ("server", "cli", False),
        ("engine", "load", False),
    ],
)
def test_the_rule_knows_up_from_down(importer: str, imported: str, *, allowed: bool) -> None:
    assert (complaint(importer, imported) is None) == allowed


@pytest.mark.parametrize("name", sorted(TORCH_FREE))
def test_torch_is_out_of_reach(name: str) -> None:
    """Not even through another module of ours: a decoder sees integers and small numpy arrays."""
    for start in (file for file in FILES if unit(file) == name):
        came_from: dict[Path, Path | None] = {start: None}
        queue = [start]
        for file in queue:
            for line, imported in imports(file):
                assert imported.split(".")[0] != "torch", (
                    f"{place(file, line)} imports torch, reached from {trail(came_from, file)}"
                )
            for target in loaded_by(file):
                if target not in came_from:
                    came_from[target] = file
                    queue.append(target)


def trail(came_from: dict[Path, Path | None], file: Path) -> str:
    steps: list[str] = []
    at: Path | None = file
    while at is not None:
        steps.append(module_name(at))
        at = came_from[at]
    return " -> ".join(reversed(steps))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_has_one_subject_and_a_name_for_it(file: Path) -> None:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    assert not VAGUE_NAMES.intersection(parts), "name the file after its subject"
    n_lines = len(file.read_text(encoding="utf-8").splitlines())
    assert n_lines <= LONGEST_FILE, f"{n_lines} lines: two subjects"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_function_has_one_verb(file: Path) -> None:
    for node in ast.walk(syntax(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert n_lines <= LONGEST_FUNCTION, f"{place(file, node.lineno)} {node.name}: {n_lines} lines, two verbs"


def test_the_package_was_found() -> None:
    assert {"spans", "config", "errors"} <= {unit(file) for file in FILES}
