"""Packs are replaced while the server serves: no call fails, and a bad one leaves the old one in service."""

import shutil
import threading
import time
from dataclasses import replace

import grpc
import numpy as np
import pytest
from colorflow_server.client import Client
from colorflow_server.config import ServerConfig
from colorflow_server.packs import Packs, warm_up
from colorflow_server.pb import colorflow_pb2 as pb
from server_tools import png, request, running, stub

from colorflow_rt import ColorizeOptions, Colorizer, EngineError, OptionError
from colorflow_rt.pack import BUNDLED, fake_pack, open_pack
from colorflow_rt.pack_config import read_pack_toml

REFS = [("ref.png", png(100, colour=True))]


@pytest.fixture
def folder(tmp_path):
    """A copy of the bundled pack."""
    return shutil.copytree(BUNDLED / "mini", tmp_path / "mini")


def describe(folder, **changes):
    """Put a changed pack.toml in the place of the old one."""
    config = replace(read_pack_toml(folder / "pack.toml"), **changes)
    (folder / "new.toml").write_text(config.to_toml())
    (folder / "new.toml").replace(folder / "pack.toml")


def packs(service):
    return service.ListPacks(pb.ListPacksRequest()).packs


def wait_for(holds, seconds=300):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_pack_is_replaced_and_a_bad_one_is_not(folder):
    with running(packs=(str(folder),), reload_s=0.1, slots=1) as found, stub(found.address) as service:
        first = packs(service)[0]
        answers, stop = [], threading.Event()
        client = threading.Thread(target=keep_asking, args=(service, answers, stop))
        client.start()
        describe(folder, version="9.9.9")
        wait_for(lambda: packs(service)[0].version == "9.9.9")
        assert packs(service)[0].reloads == 1 and packs(service)[0].toml != first.toml
        graph = folder / "denoise_step.onnx"
        damaged = bytearray(graph.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        (folder / "new").write_bytes(damaged)
        (folder / "new").replace(graph)
        wait_for(lambda: packs(service)[0].reload_error)
        assert "damaged" in packs(service)[0].reload_error and packs(service)[0].reloads == 1
        stop.set()
        client.join()
        assert len(answers) > 2 and set(answers) == {answers[0]}
        outcomes = [line["event"] for line in found.log if line["logger"] == "colorflow.packs"]
        assert outcomes == ["pack reloaded", "pack not reloaded, the old one serves on"]
        (fresh,) = found.server.shop.packs.colorizers.values()
        here = fresh.colorize(png(), REFS, ColorizeOptions(steps=2))
        with Client(found.address) as client:
            there = client.colorize(png(), REFS, ColorizeOptions(steps=2))
        np.testing.assert_array_equal(there.image, here.image)
        assert [match.reference for match in there.matches] == [match.reference for match in here.matches]


def keep_asking(service, answers, stop):
    while not stop.is_set():
        try:
            answers.append(service.Colorize(request(options=pb.ColorizeOptions(steps=2))).result.image.encoded)
        except grpc.RpcError as error:
            answers.append(str(error))


def test_reload_by_force_takes_what_was_refused_and_mended(folder, monkeypatch):
    described = lambda opened, config: Colorizer(fake_pack(open_pack(opened).config))  # noqa: E731
    monkeypatch.setattr("colorflow_server.packs.ready", described)
    said, replaced = [], []
    served = Packs(ServerConfig(packs=(str(folder),)), lambda pack, outcome: said.append((pack, outcome)))
    served.reload(lambda name, colorizer: replaced.append(name))
    assert not said and not replaced
    text = (folder / "pack.toml").read_text()
    (folder / "pack.toml").write_text(text.replace('name = "mini"', 'name = "other"'))
    served.reload(lambda name, colorizer: replaced.append(name))
    assert said == [("mini", "refused")] and "named 'other'" in served.served[0].error
    served.reload(lambda name, colorizer: replaced.append(name))
    assert len(said) == 1  # it is not tried again and again
    (folder / "pack.toml").write_text(text)
    served.reload(lambda name, colorizer: replaced.append(name), force=True)
    assert replaced == ["mini"] and served.served[0].error == "" and served.served[0].reloads == 1


def test_a_scheduler_that_refuses_the_new_one_keeps_the_old_one():
    def refuses(name, colorizer):
        raise EngineError("no memory for two")

    served = Packs(ServerConfig(packs=("fake",)), lambda pack, outcome: None)
    before = served.colorizer("fake")
    served.reload(refuses, force=True)
    assert served.served[0].error == "no memory for two" and served.colorizer("") is before


def test_a_pack_is_served_once():
    with pytest.raises(OptionError, match="twice"):
        Packs(ServerConfig(packs=("fake", "fake")), lambda pack, outcome: None)


def test_readiness_runs_every_engine_once():
    pack = fake_pack()
    warm_up(Colorizer(pack))
    assert all(pack.engine(graph).batches for graph in pack.config.graphs)
    broken = fake_pack(fail_after={"gsrp": 0})
    with pytest.raises(EngineError):
        warm_up(Colorizer(broken))
