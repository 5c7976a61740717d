"""Fixtures that several files of tests share: packs with tiny networks, exported once per run."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock


def pytest_configure() -> None:
    """Beside another worker of pytest-xdist each keeps to one thread; the programs that tests start do, too."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        for threads in ("OMP_NUM_THREADS", "COLORFLOW_THREADS"):
            os.environ.setdefault(threads, "1")


# What the longest files are: begun first, so that no worker is left with one at the end. The first two do not wait for
# one another's packs.
LONGEST = (
    "test_build",
    "test_verify",
    "test_reference",
    "test_graphs",
    "test_full_size",
    "test_train",
    "test_export_cli",
)
# Real servers, their deadlines and rates, and programs that are killed at a moment: on a core that nobody else wants.
ALONE = (
    "test_bench",
    "test_cli_server",
    "test_client",
    "test_costs",
    "test_node_client",
    "test_references_kills",
    "test_reliability_colorize",
    "test_reliability_refs_add",
    "test_reliability_serving",
    "test_scheduler",
    "test_scheduler_mini",
    "test_server",
    "test_server_access",
    "test_server_bad_input",
    "test_server_process",
    "test_server_reload",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in ALONE:
            item.add_marker(pytest.mark.alone)
    order = {stem: number for number, stem in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))


def _once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` fills: by one worker of pytest-xdist, for all."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock")):
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a 5-channel pack with luminance planes, without text, stored in float16."""
    from colorflow_export.packs import write_pack
    from tiny_pack import tiny_modules, tiny_recipe

    return _once(tmp_path_factory, "tiny", lambda folder: write_pack(tiny_modules(), tiny_recipe(), folder))


@pytest.fixture(scope="session")
def golden_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a pack made of golden/sd_small_9ch: text and guidance, fusion by batch statistics, in float32."""
    from colorflow_export.packs import write_pack
    from tiny_pack import golden_modules, golden_recipe

    def make(folder: Path) -> None:
        write_pack(golden_modules(), golden_recipe(), folder, storage="float32")

    return _once(tmp_path_factory, "golden", make)


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a pack that `colorflow-export convert` made of golden/sd_small_5ch in the released layout."""
    from colorflow_export.convert import ConvertOptions, convert
    from released import GOLDEN, arrange_golden

    def make(folder: Path) -> None:
        released = folder.with_name("released")
        released.mkdir()
        colorflow, sd15, text = arrange_golden(GOLDEN / "sd_small_5ch", released)
        convert(colorflow, sd15, folder, ConvertOptions(name="golden", sizes=((64, 96),), rank=4, alpha=4, text=text))

    return _once(tmp_path_factory, "converted", make)


@pytest.fixture(scope="session")
def node_packages() -> Path:
    """examples/node/node_modules: the example's packages and buf. Skips where node is not installed, or is offline."""
    npm, folder = shutil.which("npm"), Path(__file__).parent.parent / "examples" / "node"
    if not npm or not shutil.which("node"):
        pytest.skip("node and npm are not installed")
    with FileLock(folder / ".install.lock"):
        if not (folder / "node_modules" / "@grpc" / "grpc-js").is_dir():
            # not `npm ci`: a mirror without buf's builds for other systems leaves them out of the lock file
            command = [npm, "install", "--no-save", "--ignore-scripts", "--no-fund", "--no-audit"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180)
            if any(sign in done.stderr for sign in ("ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN")):
                pytest.skip("npm cannot reach its registry")
            assert done.returncode == 0, done.stderr
    return folder / "node_modules"


@pytest.fixture
def timed_pack(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """timed_pack(graph=seconds, ...): a fake pack whose calls take so long by the clock that costs are measured by."""
    from colorflow_rt.pack import fake_pack

    now = [0.0]

    def cost(seconds: float) -> Callable[[int], float]:
        def pass_time(rows: int) -> float:
            now[0] += seconds
            return 0.0

        return pass_time

    monkeypatch.setattr("colorflow_server.costs.time", SimpleNamespace(perf_counter=lambda: now[0]))
    return lambda **seconds: fake_pack(cost={graph: cost(s) for graph, s in seconds.items()})
