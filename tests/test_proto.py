"""proto/: the generated code is fresh, the rules of buf hold, and nothing that was released has changed."""

import subprocess
import sys
from pathlib import Path

import pytest
from colorflow_server.pb import colorflow_pb2 as pb

from colorflow_rt.context import MODES, STYLES
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.upscale import LUMINANCES

ROOT = Path(__file__).parent.parent
PB = ROOT / "server" / "colorflow_server" / "pb"
WIRE = Path(__file__).parent / "golden" / "colorflow_v1_wire.txt"


def test_the_generated_code_is_that_of_the_proto(tmp_path):
    arguments = [f"--{kind}_out={tmp_path}" for kind in ("python", "grpc_python", "pyi")]
    source = "proto/colorflow/v1/colorflow.proto"
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-Icolorflow_server/pb=proto/colorflow/v1"]
    subprocess.run([*protoc, *arguments, source], cwd=ROOT, check=True)
    made = {path.name: path.read_text() for path in (tmp_path / "colorflow_server" / "pb").iterdir()}
    assert set(made) == {"colorflow_pb2.py", "colorflow_pb2.pyi", "colorflow_pb2_grpc.py"}
    for name, text in made.items():
        assert text == (PB / name).read_text(), f"{name} is stale: run make proto"


def buf(packages, *arguments):
    """What buf, a development dependency of examples/node, says: (exit code, its output)."""
    command = [packages / ".bin" / "buf", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_buf_finds_nothing(node_packages):
    assert buf(node_packages, "lint", "proto") == (0, "")


def test_buf_finds_no_breaking_change_against_the_last_release(node_packages):
    tags = subprocess.run(["git", "tag", "--list", "v*", "--sort=-version:refname"], cwd=ROOT, capture_output=True)
    released = tags.stdout.decode().split()
    if not released:
        pytest.skip("nothing is released yet: test_what_is_on_the_wire_stays holds meanwhile")
    against = f".git#tag={released[0]},subdir=proto"
    code, said = buf(node_packages, "breaking", "proto", "--against", against)
    assert code == 0, said


def wire():
    """Everything that a client of today relies on, a line each."""
    file = pb.DESCRIPTOR
    for service in file.services_by_name.values():
        for method in service.methods:
            streams = f"{method.client_streaming:d}{method.server_streaming:d}"
            yield f"rpc {method.full_name} {method.input_type.full_name} {method.output_type.full_name} {streams}"
    for enum in file.enum_types_by_name.values():
        yield from (f"enum {enum.full_name} {value.name} {value.number}" for value in enum.values)
    for message in file.message_types_by_name.values():
        yield from fields(message)


def fields(message):
    for field in message.fields:
        kind = field.message_type or field.enum_type
        of = kind.full_name if kind else field.type
        many = "repeated" if field.is_repeated else "one"
        oneof = field.containing_oneof.name if field.containing_oneof else "-"
        yield f"field {field.full_name} {field.number} {of} {many} {oneof}"
    for nested in message.nested_types:
        yield from fields(nested)


def test_what_is_on_the_wire_stays():
    """New lines may be added to the file; a line that goes breaks clients."""
    promised, now = set(WIRE.read_text().splitlines()), set(wire())
    assert promised - now == set(), "breaks clients"
    assert now - promised == set(), f"new: add it to {WIRE}"


def test_the_options_are_those_of_the_python_api():
    assert {field.name for field in pb.ColorizeOptions.DESCRIPTOR.fields} == set(ColorizeOptions.__dataclass_fields__)
    for enum, words in ((pb.Style, STYLES), (pb.Luminance, LUMINANCES), (pb.Context, MODES)):
        prefix = enum.Name(0).removesuffix("UNSPECIFIED")
        assert [name.removeprefix(prefix).lower() for name in enum.keys()[1:]] == [w for w in words if w != "auto"]
