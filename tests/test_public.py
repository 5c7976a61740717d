"""What others may rely on, and what importing costs."""

import subprocess
import sys

import pytest

import colorflow_rt
from colorflow_rt import errors

PUBLIC = [
    "Cancelled",
    "ColorflowError",
    "Colorizer",
    "ColorizeOptions",
    "DamagedPackError",
    "EngineError",
    "ImageError",
    "MissingExtraError",
    "OptionError",
    "OutputError",
    "PackError",
    "ReferencesError",
    "Result",
    "UnavailableError",
    "UnknownPackError",
    "open_pack",
]

# Processor time: what it costs, however busy the machine is.
IMPORT = """
import sys, time
for name in ("torch", "diffusers", "transformers", "onnx", "safetensors"):
    sys.modules[name] = None
start = time.process_time()
import colorflow_rt
plain = time.process_time() - start
from colorflow_rt import *
everything = time.process_time() - start
missing = [name for name in colorflow_rt.__all__ if name not in globals()]
assert not missing, missing
print(plain, everything)
"""

COLORIZE = """
import sys
for name in ("torch", "diffusers", "transformers", "onnx", "safetensors"):
    sys.modules[name] = None
import numpy as np
from colorflow_rt import Colorizer
references = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
result = Colorizer("fake").colorize(np.full((60, 40), 128, np.uint8), references)
print(result.image.shape)
"""


def run(code, folder):
    env = {"COLORFLOW_HOME": str(folder / "home"), "PYTHONPATH": ":".join(sys.path), "HOME": str(folder)}
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == [], "importing made a file"
    return done.stdout


def test_the_public_names_are_these():
    assert sorted(colorflow_rt.__all__) == sorted(PUBLIC)
    assert sorted(dir(colorflow_rt)) == sorted(PUBLIC)


def test_every_error_is_public():
    raised = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert len(raised) == 12
    assert raised <= set(PUBLIC)


def test_unknown_names_are_unknown():
    with pytest.raises(AttributeError, match="PageColorizer"):
        _ = colorflow_rt.PageColorizer


def test_importing_needs_no_torch_makes_no_file_and_is_quick(tmp_path):
    plain, everything = map(float, run(IMPORT, tmp_path).split())
    assert plain < 1.0
    assert everything < 3.0


def test_a_page_is_coloured_without_torch(tmp_path):
    assert run(COLORIZE, tmp_path).strip() == "(60, 40, 3)"
