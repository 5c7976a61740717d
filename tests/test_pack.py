"""Packs: found by name or folder, every file checked before use, engines loaded once, and written back."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_onnx import KEY, clip_encoder, clip_weights

import colorflow_rt.pack
from colorflow_rt.engine import Engine
from colorflow_rt.engine.fake import fake_config
from colorflow_rt.engine.onnx_graph import external_files
from colorflow_rt.errors import DamagedPackError, EngineError, OptionError, PackError, UnknownPackError
from colorflow_rt.pack import (
    Pack,
    fake_pack,
    file_hash,
    home,
    installed_packs,
    open_pack,
)
from colorflow_rt.pack_config import GRAPHS, GraphConfig, PackConfig, graph_tensors


def make_pack(folder: Path, name: str = "tiny", location: str | None = None) -> PackConfig:
    """A pack with one real graph, clip_encoder, its weights beside it, and four files that are no graphs."""
    folder.mkdir(parents=True, exist_ok=True)
    clip_encoder(folder, location=location)
    for graph in GRAPHS[1:]:
        (folder / f"{graph}.onnx").write_bytes(graph.encode())
    config = fake_config(image_size=4)
    encoder = replace(config.encoder, dim=3)
    tensors = graph_tensors(config.model, encoder)
    config = replace(
        config,
        name=name,
        encoder=encoder,
        graphs={graph: GraphConfig(f"{graph}.onnx", *tensors[graph]) for graph in GRAPHS},
        files={path.name: file_hash(path) for path in sorted(folder.iterdir()) if path.name != "pack.toml"},
    )
    (folder / "pack.toml").write_text(config.to_toml(), encoding="utf-8")
    return config


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLORFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(colorflow_rt.pack, "BUNDLED", tmp_path / "wheel")
    return tmp_path / "home"


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def embeds(pack: Pack) -> Any:
    return pack.engine("clip_encoder")({"pixel_values": np.ones((2, 3, 4, 4), np.float32)})["image_embeds"]


def test_a_folder_opens_and_its_engine_runs(tmp_path: Path) -> None:
    config = make_pack(tmp_path / "tiny")
    pack = open_pack(tmp_path / "tiny")
    assert pack.config == config
    np.testing.assert_allclose(embeds(pack)[1], clip_weights().astype(np.float32).sum(axis=0), rtol=1e-4)
    assert pack.engine("clip_encoder") is pack.engine("clip_encoder")


def test_names_are_found_at_home_then_in_the_wheel(own_home: Path, tmp_path: Path) -> None:
    for root, version in ((own_home / "packs", "home"), (tmp_path / "wheel", "wheel")):
        for name in ("both", version):
            config = make_pack(root / name, name)
            (root / name / "pack.toml").write_text(replace(config, version=version).to_toml())
    (own_home / "packs" / "empty").mkdir()
    assert list(installed_packs()) == ["both", "home", "wheel"]
    assert [open_pack(name).config.version for name in ("both", "home", "wheel")] == ["home", "home", "wheel"]
    with pytest.raises(UnknownPackError, match=r"no pack is named 'none' .* packs here: both, home, wheel \(and"):
        open_pack("none")


@pytest.mark.parametrize("name", ["mini", "../tiny", "", "/nowhere/at/all", "a\0b"])
def test_unknown_packs_when_none_is_installed(tmp_path: Path, name: str) -> None:
    make_pack(tmp_path / "tiny")
    with pytest.raises(UnknownPackError, match="packs here: none"):
        open_pack(name)


def test_home_is_the_environment_s_or_the_platform_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORFLOW_HOME", "~/here")
    assert home() == Path.home() / "here"
    monkeypatch.delenv("COLORFLOW_HOME")
    assert "colorflow" in home().parts
    assert home().is_absolute()


def test_nothing_is_created_by_looking(own_home: Path) -> None:
    installed_packs()
    open_pack("fake")
    assert not own_home.exists()


@pytest.mark.parametrize("name", ["clip_encoder.onnx", "weights.safetensors"])
def test_a_damaged_file_is_found_before_its_use(tmp_path: Path, name: str) -> None:
    config = make_pack(tmp_path / "tiny")
    pack, path = open_pack(tmp_path / "tiny"), tmp_path / "tiny" / name
    flip_a_byte(path)
    with pytest.raises(DamagedPackError) as caught:
        embeds(pack)
    message = str(caught.value)
    digests = [digest.removeprefix("sha256:") for digest in (config.files[name], file_hash(path))]
    assert all(part in message for part in (str(path), *digests, "copy the pack tiny"))
    assert "\n" not in message


def test_a_damaged_graph_gives_no_encoder_key(tmp_path: Path) -> None:
    make_pack(tmp_path / "tiny")
    flip_a_byte(tmp_path / "tiny" / "clip_encoder.onnx")
    with pytest.raises(DamagedPackError, match=r"clip_encoder\.onnx is damaged"):
        _ = open_pack(tmp_path / "tiny").encoder_key


def test_a_file_that_goes_away_after_opening_is_named(tmp_path: Path) -> None:
    make_pack(tmp_path / "tiny")
    pack = open_pack(tmp_path / "tiny")
    (tmp_path / "tiny" / "weights.safetensors").unlink()
    with pytest.raises(PackError, match=r"weights\.safetensors cannot be read \(No such file"):
        embeds(pack)


def test_damage_elsewhere_does_not_hinder(tmp_path: Path) -> None:
    make_pack(tmp_path / "tiny")
    flip_a_byte(tmp_path / "tiny" / "gsrp.onnx")
    pack = open_pack(tmp_path / "tiny")
    assert embeds(pack).shape == (2, 3)
    with pytest.raises(DamagedPackError, match=r"gsrp\.onnx is damaged"):
        pack.engine("gsrp")


def test_the_bundled_pack_says_how_to_get_it_again(tmp_path: Path) -> None:
    make_pack(tmp_path / "wheel" / "mini", "mini")
    flip_a_byte(tmp_path / "wheel" / "mini" / "weights.safetensors")
    with pytest.raises(DamagedPackError, match="pip install --force-reinstall colorflow-rt"):
        embeds(open_pack("mini"))


def test_a_missing_file_is_named_at_opening(tmp_path: Path) -> None:
    make_pack(tmp_path / "tiny")
    (tmp_path / "tiny" / "gsrp.onnx").unlink()
    with pytest.raises(PackError, match=r"gsrp.onnx is missing: copy the pack tiny into .* again"):
        open_pack(tmp_path / "tiny")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    make_pack(tmp_path / "tiny")
    outside = (tmp_path / "tiny" / "gsrp.onnx").rename(tmp_path / "gsrp.onnx")
    (tmp_path / "tiny" / "gsrp.onnx").symlink_to(outside)
    with pytest.raises(PackError, match="leads out of the pack's folder"):
        open_pack(tmp_path / "tiny")


def test_a_link_to_the_folder_itself_is_fine(tmp_path: Path) -> None:
    make_pack(tmp_path / "tiny")
    (tmp_path / "link").symlink_to(tmp_path / "tiny")
    assert embeds(open_pack(tmp_path / "link")).shape == (2, 3)


@pytest.mark.parametrize("location", ["other.safetensors", "../weights.safetensors", "/etc/hostname"])
def test_weights_that_are_not_listed_are_not_read(tmp_path: Path, location: str) -> None:
    make_pack(tmp_path / "tiny", location=location)
    with pytest.raises(PackError, match=f"clip_encoder of .* needs '{location}', which \\[files\\]"):
        embeds(open_pack(tmp_path / "tiny"))


def test_a_graph_that_does_not_load_is_tried_again(tmp_path: Path) -> None:
    make_pack(tmp_path / "tiny")
    pack = open_pack(tmp_path / "tiny")
    for _ in range(2):
        with pytest.raises(EngineError, match="vae_encoder cannot be loaded"):
            pack.engine("vae_encoder")


def test_unknown_graphs_and_engines_name_the_choices() -> None:
    with pytest.raises(OptionError, match="graph 'unet' is unknown: choose one of clip_encoder, vae_encoder"):
        fake_pack().engine("unet")
    with pytest.raises(OptionError, match="engine 'cpu' is unknown: choose one of auto, onnx-cpu"):
        open_pack("fake", "cpu")


def test_engines_load_once_and_side_by_side() -> None:
    """Eight threads ask for two graphs: each is loaded once, and one may finish while the other still loads."""
    loaded: list[str] = []
    second_is_loaded = threading.Event()

    class Source:
        def load(self, graph: str) -> Engine:
            loaded.append(graph)
            if graph == "gsrp":
                second_is_loaded.set()
            assert second_is_loaded.wait(timeout=10)
            return fake_pack().engine(graph)

        def verify(self) -> None:
            loaded.clear()

        def encoder_hashes(self) -> list[str]:
            return []

        reuses = False

    pack, found = Pack(fake_config(), Source()), list[Engine]()
    names = ["vae_encoder"] * 4 + ["gsrp"] * 4
    threads = [threading.Thread(target=lambda name=name: found.append(pack.engine(name))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert sorted(loaded) == ["gsrp", "vae_encoder"]
    assert len(found) == 8
    assert len({id(engine) for engine in found}) == 2


def test_prefetch_checks_and_loads_everything(tmp_path: Path) -> None:
    pack = fake_pack()
    pack.prefetch()
    make_pack(tmp_path / "tiny")
    flip_a_byte(tmp_path / "tiny" / "vae_encoder.onnx")
    with pytest.raises(DamagedPackError, match=r"vae_encoder\.onnx"):
        open_pack(tmp_path / "tiny").prefetch()


def test_verify_reads_every_file_again(tmp_path: Path) -> None:
    make_pack(tmp_path / "tiny")
    (tmp_path / "tiny" / "notes.txt").write_text("not in [files]: no part of the pack")
    pack = open_pack(tmp_path / "tiny")
    pack.verify()
    fake_pack().verify()
    flip_a_byte(tmp_path / "tiny" / "vae_decoder.onnx")
    with pytest.raises(DamagedPackError, match=r"vae_decoder\.onnx is damaged"):
        pack.verify()


def test_encoder_key_follows_graph_weights_and_settings_only(tmp_path: Path) -> None:
    config = make_pack(tmp_path / "a")
    key = open_pack(tmp_path / "a").encoder_key
    assert len(key) == 64
    make_pack(tmp_path / "b", "other")
    (tmp_path / "b" / "gsrp.onnx").write_bytes(b"another")
    rewrite(tmp_path / "b", lambda c: c)
    assert open_pack(tmp_path / "b").encoder_key == key
    rewrite(tmp_path / "b", lambda c: replace(c, encoder=replace(c.encoder, crop="center")))
    assert open_pack(tmp_path / "b").encoder_key != key
    rewrite(tmp_path / "b", lambda c: replace(c, encoder=config.encoder))
    assert open_pack(tmp_path / "b").encoder_key == key
    flip_a_byte(tmp_path / "b" / "weights.safetensors")
    rewrite(tmp_path / "b", lambda c: c)
    assert open_pack(tmp_path / "b").encoder_key != key


def rewrite(folder: Path, change: Callable[[PackConfig], PackConfig]) -> None:
    """Change the description, and hash the files as they are now."""
    config = change(open_pack(folder).config)
    config = replace(config, files={name: file_hash(folder / name) for name in config.files})
    (folder / "pack.toml").write_text(config.to_toml())


def test_the_fake_pack_has_every_engine() -> None:
    pack = open_pack("fake")
    assert pack.config.name == "fake"
    for graph in GRAPHS:
        tensors = graph_tensors(pack.config.model, pack.config.encoder)[graph]
        assert (pack.engine(graph).inputs, pack.engine(graph).outputs) == tensors
    assert pack.encoder_key == fake_pack().encoder_key
    assert pack.encoder_key != fake_pack(fake_config(image_size=16)).encoder_key


def test_the_guider_s_graphs_are_there_or_not() -> None:
    plain, parted = fake_pack(fake_config(reuse=False)), fake_pack()
    assert (plain.reuses, plain.graphs) == (False, GRAPHS)
    assert (parted.reuses, parted.graphs) == (True, (*GRAPHS, "guider", "denoise_reuse"))
    assert [spec.name for spec in parted.engine("guider").outputs] == ["feature_00", "feature_01", "feature_02"]
    plain.prefetch()
    with pytest.raises(OptionError, match="guider"):
        plain.engine("guider")


def test_fake_pack_takes_the_hooks_of_its_engines() -> None:
    pack = fake_pack(fake_config(latent_channels=8), fail_after={"vae_decoder": 0})
    with pytest.raises(EngineError, match="vae_decoder failed"):
        pack.engine("vae_decoder")({"latents": np.zeros((1, 8, 2, 2), np.float32)})


def test_a_folder_in_place_of_a_file_is_missing(tmp_path: Path) -> None:
    make_pack(tmp_path / "tiny")
    (tmp_path / "tiny" / "gsrp.onnx").unlink()
    (tmp_path / "tiny" / "gsrp.onnx").mkdir()
    with pytest.raises(PackError, match=r"gsrp\.onnx is missing"):
        open_pack(tmp_path / "tiny")


def test_external_files_are_found_without_a_parser(tmp_path: Path) -> None:
    assert external_files(clip_encoder(tmp_path).read_bytes()) == {"weights.safetensors"}
    long = "shards/" + "x" * 300 + ".safetensors"
    assert external_files(clip_encoder(tmp_path, location=long).read_bytes()) == {long}
    inline = onnx.load(clip_encoder(tmp_path))
    assert KEY in [tensor.name for tensor in inline.graph.initializer]
    assert external_files(inline.SerializeToString()) == set()
