"""The manifest of plans: round trips, and every way in which a plan can be the wrong one."""

from dataclasses import replace

import pytest

from colorflow_rt.engine.plans import MANIFEST, Manifest, Origin, Plan, admit, fault
from colorflow_rt.engine.trt import Here
from colorflow_rt.errors import EngineError
from colorflow_rt.files import file_sha256

ORIGIN = Origin(
    onnx="a" * 64,
    weights={"weights.safetensors": "b" * 64},
    tensorrt="11.4.0.106",
    compute_capability="9.0",
    profile={"latents": ((1, 4, 8, 8), (1, 4, 8, 8), (1, 4, 8, 8))},
    flags=("strongly_typed", "level=3"),
)
HERE = Here("11.4.0.106", "9.0", "NVIDIA H200")


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "vae.plan").write_bytes(b"native code")
    digest = file_sha256(tmp_path / "vae.plan")
    plan = Plan("vae.plan", digest, ORIGIN.key, "vae_decoder", "NVIDIA H200", 12.5, 4096, ORIGIN)
    Manifest.read(tmp_path).with_plan("vae.onnx", plan).write(tmp_path)
    return plan


def test_round_trip(tmp_path, plan):
    assert Manifest.read(tmp_path).plans == {"vae.onnx": plan}
    assert admit(tmp_path, "vae.onnx", "a" * 64, HERE) == (plan, b"native code")
    assert fault(tmp_path, plan, ORIGIN) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"onnx": "c" * 64}, "its graph or weights have changed since"),
        ({"weights": {"weights.safetensors": "c" * 64}}, "its graph or weights have changed since"),
        ({"tensorrt": "10.16.1.11"}, "it was built by TensorRT 11.4.0.106, here is 10.16.1.11"),
        ({"compute_capability": "8.6"}, "it was built for a GPU of compute capability 9.0, here is 8.6"),
        ({"profile": {}}, "it was built with other settings"),
        ({"flags": ("strongly_typed", "level=5")}, "it was built with other settings"),
    ],
)
def test_another_origin_is_told(tmp_path, plan, change, why):
    assert fault(tmp_path, plan, replace(ORIGIN, **change)) == why
    assert replace(ORIGIN, **change).key != ORIGIN.key


def test_what_is_not_there_or_was_changed_by_hand(tmp_path, plan):
    assert fault(tmp_path, None, ORIGIN) == "it was not built yet"
    assert fault(tmp_path, replace(plan, key="0" * 64), ORIGIN) == "its entry in the manifest was changed by hand"
    assert "damaged" in fault(tmp_path, replace(plan, sha256="0" * 64), ORIGIN)
    assert fault(tmp_path, replace(plan, file="gone.plan"), ORIGIN).startswith("its file cannot be read (No such file")
    assert "expected one of the same folder" in fault(tmp_path, replace(plan, file="../vae.plan"), ORIGIN)


@pytest.mark.parametrize(
    ("onnx", "sha256", "here", "message"),
    [
        (
            "gsrp.onnx",
            "a" * 64,
            HERE,
            r"gsrp.onnx has no TensorRT engine in .*tensorrt.toml: build it again with: color",
        ),
        ("vae.onnx", "d" * 64, HERE, r"vae.plan cannot be used: its graph or weights have changed since; build it"),
        ("vae.onnx", "a" * 64, replace(HERE, tensorrt="10.16.1.11"), "built by TensorRT 11.4.0.106, here is 10.16.1"),
        ("vae.onnx", "a" * 64, replace(HERE, compute_capability="12.0"), "compute capability 9.0, here is 12.0"),
    ],
)
def test_only_the_right_plan_is_admitted(tmp_path, plan, onnx, sha256, here, message):
    with pytest.raises(EngineError, match=message) as caught:
        admit(tmp_path, onnx, sha256, here)
    assert "\n" not in str(caught.value)


def test_a_tampered_plan_is_named(tmp_path, plan):
    data = bytearray((tmp_path / "vae.plan").read_bytes())
    data[3] ^= 1
    (tmp_path / "vae.plan").write_bytes(data)
    with pytest.raises(EngineError, match=r"vae.plan cannot be used: it is damaged: SHA-256 \w{12}…, the manifest has"):
        admit(tmp_path, "vae.onnx", "a" * 64, HERE)


@pytest.mark.parametrize("text", ["schema = [", 'schema = 1\nplans = "x"', "schema = 2\n[plans]", b"\xff\xfe"])
def test_a_manifest_that_cannot_be_read(tmp_path, text):
    (tmp_path / MANIFEST).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(EngineError, match=r"tensorrt.toml .*delete it and build it again with"):
        Manifest.read(tmp_path)
