"""Released folders to a pack: the golden networks end to end, and every folder that is not as released."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from colorflow_export import convert as conversion
from colorflow_export.cli import run
from colorflow_export.convert import CLIP_MEAN, NOTICE, ConvertOptions, convert, read_release
from colorflow_export.golden import Golden, load_golden, relative_error
from colorflow_export.parity import predicted
from colorflow_export.prompt import prompt_embeddings
from released import GOLDEN, arrange_golden, small_tokenizer, text_encoder
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from colorflow_rt.denoise import Slot, advance
from colorflow_rt.errors import OutputError, PackError
from colorflow_rt.pack import Pack, open_pack
from colorflow_rt.schedule import Schedule

LIMIT = 1e-5
OPTIONS = ConvertOptions(sizes=((64, 96),), rank=4, alpha=4)
Folders = tuple[Path, Path, Path]


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def golden() -> Golden:
    return load_golden(GOLDEN / "sd_small_5ch")


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """The golden networks as released folders, which a test may spoil."""
    return arrange_golden(GOLDEN / "sd_small_5ch", tmp_path)


def options(folders: Folders) -> ConvertOptions:
    return replace(OPTIONS, text=folders[2])


# The pack


def test_the_pack_says_what_the_release_says(converted: Path) -> None:
    config = open_pack(converted).config
    assert (config.model.condition_channels, config.model.text_tokens) == (5, 77)
    assert (config.style.context, config.pages.fusion_statistics) == ("page", "batch")
    assert (config.encoder.crop, config.encoder.mean) == ("center", CLIP_MEAN)
    assert (config.defaults.guidance_scale, config.pages.multiple) == (7.5, 32)
    assert "non-commercial" in config.license
    assert "non-commercial" in (converted / NOTICE).read_text()
    assert {"unet.safetensors", "guider.safetensors", NOTICE} <= config.files.keys()
    open_pack(converted).verify()


def test_the_converted_pack_is_the_authors_loop(converted: Path, golden: Golden) -> None:
    """LoRA folded, prompts baked, guider, guidance and solver, to the authors' own numbers."""
    pack, t = open_pack(converted), golden.tensors
    slot = _slot(pack, golden)
    for i in range(golden.steps):
        advance(pack.engine, [slot])
        assert relative_error(predicted(slot), t[f"latents_{i}"]) < LIMIT, i
    image = pack.engine("vae_decoder")({"latents": slot.result()[None]})["image"]
    ours = torch.from_numpy(image[0]).permute(1, 2, 0).div(2).add(0.5).clamp(0, 1)
    assert relative_error(ours, t["image"]) < LIMIT


def test_the_converted_pack_super_resolves_as_the_authors(converted: Path, golden: Golden) -> None:
    t = golden.tensors
    low, bw = t["gsrp_low"].numpy(), t["gsrp_bw"].numpy()
    feeds = {"color": np.concatenate([low, -low]), "bw": np.concatenate([bw, bw[..., ::-1]])}
    image = open_pack(converted).engine("gsrp")(feeds)["image"]
    # whatever is beside it in the batch
    assert relative_error(torch.from_numpy(image[:1]), t["gsrp_out_batchstats"]) < LIMIT


def _slot(pack: Pack, golden: Golden) -> Slot:
    t = golden.tensors
    schedule = Schedule.create(golden.steps, pack.config.scheduler_config)
    return Slot(t["initial_latents"][0].numpy(), t["cond"][0].numpy(), schedule, golden.guidance_scale)


def test_nine_condition_channels_are_read_from_the_weights(tmp_path: Path) -> None:
    source = Path(shutil.copytree(GOLDEN / "sd_small_9ch", tmp_path / "source"))
    shutil.copy(GOLDEN / "sd_small_5ch" / "MultiResNetModel.bin", source)  # that folder has no GSRP
    colorflow, sd15, text = arrange_golden(source, tmp_path / "released")
    release = read_release(colorflow, sd15, replace(OPTIONS, text=text))
    assert release.model.condition_channels == 9


def test_older_names_are_tolerated(folders: Folders) -> None:
    colorflow, sd15, _ = folders
    path = sd15 / "vae" / "diffusion_pytorch_model.safetensors"
    tensors, older = load_file(path), {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in tensors.items():
        for new, old in older.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
        renamed[name] = tensor
    assert renamed.keys() != tensors.keys()
    save_file(renamed, path)
    path = colorflow / "image_encoder" / "model.safetensors"
    save_file(load_file(path) | {"vision_model.embeddings.position_ids": torch.arange(5)[None]}, path)
    release = read_release(colorflow, sd15, options(folders))
    assert all(torch.equal(release.parts["vae"].tensor(name), tensors[name].float()) for name in tensors)


def test_shards_and_half_precision_are_read(folders: Folders) -> None:
    colorflow, sd15, _ = folders
    path = sd15 / "unet" / "diffusion_pytorch_model.safetensors"
    tensors, index = load_file(path), {}
    names = sorted(tensors)
    for i, part in enumerate((names[::2], names[1::2])):
        shard = f"diffusion_pytorch_model-0000{i + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, path.parent / shard)
        index |= dict.fromkeys(part, shard)
    path.unlink()
    (path.parent / f"{path.name}.index.json").write_text(json.dumps({"weight_map": index}))
    release = read_release(colorflow, sd15, options(folders))
    found = release.parts["unet"].tensor("conv_in.weight")
    assert found.dtype == torch.float32
    assert torch.equal(found, tensors["conv_in.weight"].float())
    (path.parent / shard).unlink()
    with pytest.raises(PackError, match=r"00002-of-00002.safetensors is missing, which .* names: download it again"):
        read_release(colorflow, sd15, options(folders))


def test_the_prompts_are_those_of_the_text_encoder(tmp_path: Path) -> None:
    sd15, config = tmp_path / "sd15", {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    small_tokenizer(sd15 / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(sd15 / "tokenizer")
    text_encoder(sd15 / "text_encoder", config | {"num_hidden_layers": 1}, len(tokenizer))
    found = prompt_embeddings(sd15, None)
    model = CLIPTextModel.from_pretrained(sd15 / "text_encoder").eval()
    ids = [tokenizer.bos_token_id, tokenizer.convert_tokens_to_ids("manga</w>")] + 75 * [tokenizer.eos_token_id]
    assert found["text.prompt_embeds"].shape == (77, 16)
    assert torch.allclose(found["text.prompt_embeds"], model(torch.tensor([ids])).last_hidden_state[0], atol=1e-6)
    ids[1] = tokenizer.eos_token_id
    negative = model(torch.tensor([ids])).last_hidden_state[0]
    assert torch.allclose(found["text.negative_prompt_embeds"], negative, atol=1e-6)
    shutil.rmtree(sd15 / "tokenizer")
    with pytest.raises(PackError, match=r"has no tokenizer/, which makes the .* get it, or give --text"):
        prompt_embeddings(sd15, None)


# Bad input: nothing may be written


def _edit(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    safe = path.suffix == ".safetensors"
    tensors = load_file(path) if safe else torch.load(path, weights_only=True)
    change(tensors)
    save_file(tensors, path) if safe else torch.save(tensors, path)


def _guider(folders: Folders) -> Path:
    return folders[0] / "GraySD" / "diffusion_pytorch_model.bin"


def _pixart(folders: Folders) -> None:
    _edit(_guider(folders), lambda t: t.update({"pos_embed.proj.weight": torch.zeros(8, 9, 2, 2)}))


def _half(folders: Folders) -> None:
    path = folders[1] / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _half_pickle(folders: Folders) -> None:
    _guider(folders).write_bytes(_guider(folders).read_bytes()[:5000])


def _code(folders: Folders) -> None:
    torch.save({"a": Path("/")}, _guider(folders))


def _misfit(folders: Folders) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["conv_in.bias"]
        tensors["conv_out.weight"] = torch.zeros(4, 16, 1, 1)
        tensors["surplus"] = torch.zeros(1)

    _edit(folders[1] / "unet" / "diffusion_pytorch_model.safetensors", change)


def _rank(folders: Folders) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            tensors[name] = (tensor[:2] if ".lora_A." in name else tensor[:, :2]).contiguous()

    _edit(folders[0] / "GraySD" / "unet_lora.bin", change)


def _lora_half(folders: Folders) -> None:
    _edit(folders[0] / "GraySD" / "unet_lora.bin", lambda t: t.pop(next(name for name in t if ".lora_B." in name)))


def _sdxl(folders: Folders) -> None:
    (folders[1] / "text_encoder_2").mkdir()


def _xl_unet(folders: Folders) -> None:
    path = folders[1] / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"addition_embed_type": "text_time"}))


def _no_fusion(folders: Folders) -> None:
    (folders[0] / "GraySD" / "MultiResNetModel.bin").unlink()


def _no_config(folders: Folders) -> None:
    (folders[1] / "vae" / "config.json").write_text("{")


def _swapped(folders: Folders) -> None:
    shutil.rmtree(folders[0])
    shutil.copytree(folders[1], folders[0])


def _short_text(folders: Folders) -> None:
    save_file({"prompt_embeds": torch.zeros(77, 32)}, folders[2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_pixart, r"is the PixArt guider of the line-art models, expected the SD one of GraySD/"),
        (_half, r"SD 1.5's U-Net: .*safetensors cannot be read .*not downloaded whole, get it again"),
        (_half_pickle, r"the guider: .*model.bin cannot be read .*not downloaded whole"),
        (_code, r"the guider: .*model.bin cannot be read .*weights_only|Weights only"),
        (
            _misfit,
            r"1 missing, 1 unexpected, 1 misshapen.*missing conv_in.bias.*unexpected surplus.*conv_out",
        ),
        (_rank, r"the LoRA .* has rank 2, expected 4: if that is right, give --lora-rank and --lora-alpha"),
        (_lora_half, r"the LoRA .* does not fit \(1 missing.*lora_B.default.weight"),
        (_sdxl, r"is SDXL, expected Stable Diffusion 1.5 in diffusers layout"),
        (_xl_unet, r"is SDXL or SD 2, expected Stable Diffusion 1.5"),
        (_no_fusion, r"the fusion net: no weights in .*MultiResNetModel.bin"),
        (_no_config, r"SD 1.5's VAE: .*config.json cannot be read"),
        (_swapped, r"is not the ColorFlow release .*: it has no folder GraySD, image_encoder"),
        (_short_text, r"expected prompt_embeds and negative_prompt_embeds of \[tokens, channels\]"),
    ],
)
def test_folders_that_are_not_as_released(
    spoil: Callable[[Folders], None], message: str, folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(folders)
    out = folders[0].parent / "pack"
    line = ["convert", "--colorflow", folders[0], "--sd15", folders[1], "--out", out, "--text", folders[2]]
    assert run([*map(str, line), "--lora-rank", "4", "--lora-alpha", "4"]) == 1
    *notice, error = capsys.readouterr().err.splitlines()
    assert len(notice) == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(error)
    assert not out.exists()


def test_too_small_a_disk_is_seen_before_anything_is_written(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(OutputError, match=r"needs 0.0 GB and the disk has 0.0 GB free: .* or --storage float16"):
        convert(folders[0], folders[1], tmp_path / "pack", options(folders))
    assert not (tmp_path / "pack").exists()


def test_the_lora_is_folded_by_alpha_over_rank(folders: Folders) -> None:
    release = read_release(folders[0], folders[1], replace(options(folders), alpha=8))
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = (release.lora.tensor(f"{layer}.lora_{half}.default.weight") for half in "AB")
    before = release.parts["unet"].tensor(f"{layer}.weight")
    tensors = {f"{layer}.weight": before.clone()}
    one = replace(release.lora, shapes={name: s for name, s in release.lora.shapes.items() if name.startswith(layer)})
    conversion._fold(tensors, one, release.alpha)
    assert np.allclose(tensors[f"{layer}.weight"], before + 2 * up @ down)
