"""`colorflow-server` as a process of its own: configuration, signals, drain, and what it says when it cannot start."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path

import grpc
import pytest
from colorflow_server.cli import command, run
from colorflow_server.client import Client
from colorflow_server.config import ServerConfig, load_config
from colorflow_server.pb import colorflow_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc
from server_tools import certificates, png, references, stub

from colorflow_rt import ColorizeOptions, OptionError

COMMAND = [sys.executable, "-m", "colorflow_server", "--pack", "fake", "--port", "0", "--slots", "2"]


class Process:
    """A server process: its port, and the lines of its log so far."""

    def __init__(self, folder, *arguments, **environment):
        env = os.environ | {"COLORFLOW_HOME": str(folder), "OMP_NUM_THREADS": "1"} | environment
        self.popen = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, env=env)
        self.log = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = self.wait_for("serving")["port"]

    def _read(self):
        for line in self.popen.stderr:
            self.log.append(json.loads(line) if line.startswith("{") else {"event": line})

    def wait_for(self, event, seconds=60.0):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.log:
                if line["event"] == event:
                    return line
            time.sleep(0.02)
        raise AssertionError((event, self.log))

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"


@contextmanager
def process(folder, *arguments, **environment):
    one = Process(folder, *arguments, **environment)
    try:
        yield one
    finally:
        one.popen.kill()
        one.popen.wait()
        one._reader.join()
        one.popen.stderr.close()


def test_sigterm_finishes_what_is_there_and_takes_nothing_new(tmp_path):
    def watch():
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError):
            for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
                states.append((time.monotonic(), answer.status))

    def colour(n):
        with Client(server.address, retries=0) as client:
            many = client.colorize_sequence([png(n)] * 6, refs, ColorizeOptions(steps=20, seed=n), ahead=6)
            outcomes.extend(many)

    states, outcomes, refs = [], [], [("r", png(100, colour=True))]
    with process(tmp_path, "--grace-s", "120") as server:
        health = threading.Thread(target=watch)
        health.start()
        clients = [threading.Thread(target=colour, args=(n,)) for n in range(4)]
        for client in clients:
            client.start()
        accepted = time.monotonic() + 30
        while len(outcomes) < 3 and time.monotonic() < accepted:
            time.sleep(0.005)
        asked = time.monotonic()
        server.popen.send_signal(signal.SIGTERM)
        assert server.popen.wait(40) == 0
        for thread in (*clients, health):
            thread.join(30)
    assert len(outcomes) == 24, [type(outcome).__name__ for outcome in outcomes]
    lost = [outcome for outcome in outcomes if not hasattr(outcome, "image")]
    assert all("shutting down" in str(page.error) for page in lost), lost
    done = [line["outcome"] for line in server.log if line["event"] == "page"]
    assert done.count("finished") == 24 - len(lost) and "cancelled" not in done and "failed" not in done
    assert states[0][1] == 1 and states[-1][1] == 2 and states[-1][0] - asked < 2


def test_a_drain_without_end_is_ended_by_the_second_signal(tmp_path):
    with process(tmp_path, "--grace-s", "600") as server, stub(server.address) as service:
        start = pb.ColorizeSequenceRequest(start=pb.SequenceStart(options=pb.ColorizeOptions(steps=1000)))
        page = pb.SequencePage(id="a", image=pb.Image(encoded=png(1, (512, 1536))))
        reference = pb.ColorizeSequenceRequest(reference=references().images[0])
        call = service.ColorizeSequence(iter([start, reference, pb.ColorizeSequenceRequest(page=page)]))
        assert next(call).WhichOneof("event") == "accepted"
        server.popen.send_signal(signal.SIGINT)
        server.wait_for("draining")
        server.popen.send_signal(signal.SIGINT)
        assert server.popen.wait(20) == 0


def test_sighup_reloads_and_flags_environment_and_file_go_together(tmp_path):
    config = tmp_path / "server.toml"
    config.write_text('max_queue = 7\nlog_level = "info"\nmax_calls = 99\n')
    with process(tmp_path, "--config", str(config), "--max-calls", "50", COLORFLOW_SERVER_MAX_PIXELS="12345") as server:
        with Client(server.address) as client:
            limits = client.info().limits
            assert (limits.max_queue, limits.max_pixels) == (7, 12345)
            server.popen.send_signal(signal.SIGHUP)
            server.wait_for("pack reloaded")
            assert client.packs()[0].reloads == 1
        server.popen.terminate()
        assert server.popen.wait(20) == 0 and server.log[-1]["event"] == "stopped"


def one_line(capsys, code, arguments, *parts):
    assert run(arguments) == code
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("error: "), err
    for part in parts:
        assert part in err


BAD = [
    (["--port", "70000"], "port is 70000, expected 0 to 65535"),
    (["--port", "x"], "'x' is not a valid integer"),
    (["--max-queue", "0"], "max_queue"),
    (["--max-held-mib", "1"], "max_held_mib"),
    (["--log-level", "loud"], "debug, info, warning, error"),
    (["--engine", "magic"], "onnx-cpu"),
    (["--tls-cert", "a.pem"], "both or neither"),
    (["--tls-client-ca", "a.pem"], "tls_cert with it"),
    (["--idle-timeout-s", "nan"], "idle_timeout_s"),
    (["--pack", ""], "packs"),
    (["--config", "none.toml"], "No such file"),
    (["--nonsense"], "No such option"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD)
def test_a_configuration_that_is_none(capsys, arguments, said):
    one_line(capsys, 2, [*arguments, "--check-config"], said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 'x'", "a whole number"),
        ("prot = 1", "prot is unknown"),
        ("port =", "Invalid value"),
        ("port = -1", "port is -1"),
    ],
)
def test_a_file_that_is_none(capsys, tmp_path, text, said):
    (tmp_path / "c.toml").write_text(text)
    one_line(capsys, 2, ["--config", str(tmp_path / "c.toml"), "--check-config"], said, "c.toml")


def test_check_config_prints_what_would_be(capsys, tmp_path):
    files = certificates(tmp_path)
    (tmp_path / "tokens").write_text("studio " + "t" * 20)
    given = [
        "--tls-cert",
        str(files["server"]),
        "--tls-key",
        str(files["server_key"]),
        "--tokens",
        str(tmp_path / "tokens"),
    ]
    assert run(["--pack", "fake", "--max-queue", "3", *given, "--check-config"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert printed["max_queue"] == 3 and printed["packs"] == ["fake"] and set(printed) == set(asdict(ServerConfig()))
    (tmp_path / "printed.toml").write_text(ServerConfig(max_queue=3, packs=("a", "b")).to_toml())
    assert load_config(tmp_path / "printed.toml", {}) == ServerConfig(max_queue=3, packs=("a", "b"))
    one_line(capsys, 2, ["--pack", "fake", *given[:3], str(files["client_key"]), "--check-config"], "cannot be used")
    one_line(capsys, 2, ["--pack", "nobody", "--check-config"], "no pack is named 'nobody'")


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        arguments = [*COMMAND, "--port", str(taken.getsockname()[1])]
        env = os.environ | {"COLORFLOW_HOME": str(tmp_path)}
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.search(r"^error: cannot listen on 127.0.0.1:\d+: ", done.stderr, re.MULTILINE)


def test_every_field_is_a_flag_with_help_and_in_the_docs():
    flags = {parameter.name: parameter.help for parameter in command.params}
    docs = (Path(__file__).parent.parent / "docs" / "serving.md").read_text()
    for field in fields(ServerConfig):
        assert flags[field.name].startswith(field.metadata["help"])
        assert f"`{field.name}`" in docs


def test_a_configuration_is_checked_when_it_is_made():
    with pytest.raises(OptionError, match="workers"):
        ServerConfig(workers=0)
