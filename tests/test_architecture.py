"""Dependencies point one way, files stay short, nothing executes what it reads."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from probegym.envs import beam_settings, ising_belief, level_knowledge
from probegym.hardware_bridge.twins import ising
from probegym.physics import beam_rates, flakes
from tests.helpers import ROOT

PACKAGE = ROOT / "probegym"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]

COMMAND_LINE = ("probegym/cli.py", "probegym/terminal/")
BUILDERS = ("probegym/physics/specimens.py", "probegym/physics/from_file.py")

MAY_IMPORT = {
    "probegym/errors.py": (),
    "probegym/tables.py": ("probegym.errors",),
    "probegym/physics/": ("probegym.physics", "probegym.errors"),
    "probegym/surrogates/": ("probegym.surrogates", "probegym.errors"),
    "probegym/rewards/": ("probegym.rewards", "probegym.physics", "probegym.errors"),
    "probegym/scenarios/": ("probegym.scenarios", "probegym.physics.randomness", "probegym.tables", "probegym.errors"),
    "probegym/hardware_bridge/commands/": ("probegym.hardware_bridge.commands",),
    "probegym/hardware_bridge/codec.py": ("probegym.hardware_bridge.commands", "probegym.errors"),
    "probegym/hardware_bridge/clock.py": (),
    "probegym/hardware_bridge/channel.py": ("probegym.hardware_bridge.codec", "probegym.errors"),
    "probegym/hardware_bridge/capabilities.py": (
        "probegym.hardware_bridge.codec", "probegym.hardware_bridge.commands", "probegym.hardware_bridge.world", "probegym.errors",
    ),
    "probegym/hardware_bridge/programs/": (
        "probegym.hardware_bridge.programs", "probegym.hardware_bridge.commands", "probegym.hardware_bridge.codec", "probegym.hardware_bridge.capabilities",
        "probegym.hardware_bridge.world", "probegym.hardware_bridge.guard.checks", "probegym.hardware_bridge.guard.ledger", "probegym.errors",
    ),
    "probegym/hardware_bridge/guard/": (
        "probegym.hardware_bridge.guard", "probegym.hardware_bridge.commands", "probegym.hardware_bridge.world", "probegym.hardware_bridge.codec",
        "probegym.hardware_bridge.channel", "probegym.hardware_bridge.capabilities", "probegym.hardware_bridge.instruments",
        "probegym.hardware_bridge.records", "probegym.hardware_bridge.clock", "probegym.errors",
    ),
    "probegym/hardware_bridge/world.py": ("probegym.hardware_bridge.commands", "probegym.errors"),
    "probegym/hardware_bridge/twins/": (
        "probegym.physics", "probegym.scenarios", "probegym.hardware_bridge.commands", "probegym.hardware_bridge.world",
        "probegym.hardware_bridge.twins", "probegym.errors",
    ),
    "probegym/hardware_bridge/records/": (
        "probegym.hardware_bridge.records", "probegym.hardware_bridge.codec", "probegym.hardware_bridge.commands", "probegym.hardware_bridge.world", "probegym.errors",
    ),
    "probegym/hardware_bridge/instruments/": (
        "probegym.hardware_bridge.instruments", "probegym.hardware_bridge.capabilities", "probegym.hardware_bridge.commands", "probegym.hardware_bridge.codec",
        "probegym.hardware_bridge.channel", "probegym.hardware_bridge.world", "probegym.hardware_bridge.twins", "probegym.physics", "probegym.scenarios",
        "probegym.tables", "probegym.errors",
    ),
    "probegym/hardware_bridge/page/": (
        "probegym.hardware_bridge.page", "probegym.hardware_bridge.channel", "probegym.hardware_bridge.codec", "probegym.hardware_bridge.capabilities",
        "probegym.hardware_bridge.programs", "probegym.hardware_bridge.guard", "probegym.hardware_bridge.world", "probegym.errors",
    ),
    "probegym/hardware_bridge/deployment/": ("probegym.hardware_bridge", "probegym.envs", "probegym.scenarios", "probegym.errors"),
    "probegym/envs/": (
        "probegym.envs", "probegym.rewards", "probegym.scenarios", "probegym.physics", "probegym.surrogates", "probegym.hardware_bridge.commands",
        "probegym.hardware_bridge.world", "probegym.hardware_bridge.records", "probegym.errors",
    ),
    "probegym/agents/": (
        "probegym.agents", "probegym.envs", "probegym.rewards", "probegym.scenarios", "probegym.physics", "probegym.surrogates", "probegym.hardware_bridge",
        "probegym.tables", "probegym.console", "probegym.errors",
    ),
}  # fmt: skip
"""What each layer may know of the package; the command line may know all of it."""
ROOT_NAMES = ("probegym", "probegym.__version__", "probegym.ENVIRONMENTS")
"""What the package itself says, which imports nothing."""


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path: Path, module_level: bool = False) -> list[str]:
    """Everything a file imports, as dotted names; type checking aside."""
    tree = parsed(path)
    hidden = {id(inner) for node in ast.walk(tree) if _deferred(node, module_level) for inner in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def _deferred(node: ast.AST, module_level: bool) -> bool:
    checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    return checking or (module_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))


def within(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in allowed)


def test_every_file_is_in_a_layer():
    above = ("probegym/__init__.py", "probegym/__main__.py", "probegym/console.py", "probegym/hardware_bridge/__init__.py", *COMMAND_LINE)
    assert not [name for name in NAMES if not name.startswith((*MAY_IMPORT, *above))]


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_a_layer_knows_only_what_is_below(layer):
    files = [(path, name) for path, name in zip(FILES, NAMES, strict=True) if name.startswith(layer)]
    assert files
    for path, name in files:
        unknown = [m for m in imports(path) if within(m, ("probegym",)) and m not in ROOT_NAMES and not within(m, MAY_IMPORT[layer])]
        assert not unknown, f"{name} imports {unknown}"


def test_environments_load_no_simulator_and_no_agents():
    for path in (PACKAGE / "envs").glob("*.py"):
        for name in imports(path, module_level=True):
            assert not within(name, ("probegym.hardware_bridge.twins", "probegym.physics", "probegym.agents", "torch", "gpytorch", "abtem", "ase")), path


def test_constants_that_tasks_cannot_import_are_those_of_the_physics():
    assert beam_settings.BOND == beam_rates.BOND
    assert level_knowledge.FLAKES == flakes.FLAKES
    assert ising_belief.BOLTZMANN == pytest.approx(ising.BOLTZMANN, rel=1e-9)


def test_nothing_outside_agents_knows_agents():
    for path, name in zip(FILES, NAMES, strict=True):
        if not name.startswith(("probegym/agents/", *COMMAND_LINE)):
            assert not any(within(m, ("probegym.agents",)) for m in imports(path)), name


@pytest.mark.parametrize("library", ["stable_baselines3", "torch", "botorch", "gpytorch", "onnx", "onnxruntime", "matplotlib"])
def test_learning_libraries_stay_with_the_agents_and_the_surrogates(library):
    deployed = ("probegym/hardware_bridge/deployment/",) if library.startswith("onnx") else ()
    for path, name in zip(FILES, NAMES, strict=True):
        if not name.startswith(("probegym/agents/", "probegym/surrogates/", "probegym/physics/differentiable.py", *deployed, *COMMAND_LINE)):
            assert not any(within(m, (library,)) for m in imports(path)), name


def test_hdf5_stays_out_of_the_control_process():
    for path, name in zip(FILES, NAMES, strict=True):
        if name.startswith("probegym/hardware_bridge/") and not name.endswith(("records/export.py", "records/minari.py")):
            assert not any(within(m, ("h5py",)) for m in imports(path)), name


@pytest.mark.parametrize(("vendor", "home"), [("nion", "probegym/hardware_bridge/instruments/nion/"), ("nanonis_spm", None), ("nanonisTCP", None)])
def test_vendors_software_stays_in_its_driver(vendor, home):
    """Nion's is GPL: only the process that it runs in imports it."""
    for path, name in zip(FILES, NAMES, strict=True):
        if home is None or not name.startswith(home):
            assert not any(within(m, (vendor,)) for m in imports(path)), name


@pytest.mark.parametrize(("servers", "home"), [
    (("fastapi", "uvicorn", "starlette"), "probegym/hardware_bridge/page/"),
    (("http.server", "socketserver", "wsgiref"), "probegym/terminal/play_page/"),
])  # fmt: skip
def test_only_the_two_pages_are_web_servers(servers, home):
    for path, name in zip(FILES, NAMES, strict=True):
        found = [m for m in imports(path) if within(m, servers)]
        assert not found or name.startswith(home), f"{name} imports {found}"


def test_only_convert_loads_pickles():
    for path, name in zip(FILES, NAMES, strict=True):
        if name != "probegym/terminal/convert.py":
            assert not any(within(m, ("probegym.agents.convert",)) for m in imports(path)), name


def test_gymnasium_stays_out_of_the_physics():
    for path, name in zip(FILES, NAMES, strict=True):
        if name.startswith(("probegym/physics/", "probegym/rewards/", "probegym/hardware_bridge/commands", "probegym/hardware_bridge/twins")):
            assert not any(within(m, ("gymnasium",)) for m in imports(path)), name


def test_abtem_builds_specimens_and_nothing_else():
    for path, name in zip(FILES, NAMES, strict=True):
        users = [m for m in imports(path) if within(m, ("abtem",))]
        assert not users or name in BUILDERS, name
        assert not any(within(m, ("abtem",)) for m in imports(path, module_level=True)), name


def test_ase_is_imported_inside_functions():
    for path, name in zip(FILES, NAMES, strict=True):
        assert not any(within(m, ("ase",)) for m in imports(path, module_level=True)), name


FORBIDDEN = {
    "pickle.load", "pickle.loads", "eval", "exec", "os.system", "marshal.loads", "np.random.seed", "random.seed", "yaml.unsafe_load", "yaml.full_load",
}  # fmt: skip


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_executes_what_it_reads(path):
    safe = {node.name for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef) and "SafeLoader" in map(_last, node.bases)}
    for call in calls(path):
        name, options = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
        assert name not in FORBIDDEN, f"line {call.lineno}: {name}"
        assert options.get("shell") != "True" and options.get("allow_pickle") != "True", f"line {call.lineno}"
        if name == "yaml.load":
            loader = options.get("Loader") or ast.unparse(call.args[1])
            assert loader in safe | {"yaml.SafeLoader", "yaml.CSafeLoader"}, f"line {call.lineno}: {loader}"
        if name == "torch.load":
            assert options.get("weights_only") == "True", f"line {call.lineno}: torch.load"


def _last(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_files_are_short(path):
    most = 250 if path.parent.name == "envs" else 400
    assert len(path.read_text(encoding="utf-8").splitlines()) <= most


@pytest.mark.parametrize("path", [p for p, n in zip(FILES, NAMES, strict=True) if not n.startswith(("probegym/agents/", *COMMAND_LINE))], ids=lambda p: p.stem)
def test_the_library_does_not_print(path):
    for call in calls(path):
        if ast.unparse(call.func) == "print":
            assert "file=sys.stderr" in ast.unparse(call), f"line {call.lineno}"


def test_no_paths_of_the_machine_it_was_written_on():
    texts = [*FILES, *PACKAGE.rglob("*.c"), *PACKAGE.rglob("*.yaml"), *PACKAGE.rglob("*.json"), *(ROOT / "benchmarks").glob("*.py")]
    texts += [p for p in (ROOT / "Makefile", ROOT / "README.md", ROOT / "pyproject.toml", ROOT / ".ci" / "run") if p.exists()]
    for path in texts:
        assert not re.search(r"(?<![\w.])/(work|home|root|Users|mnt|tmp)/\w", path.read_text(encoding="utf-8")), path
