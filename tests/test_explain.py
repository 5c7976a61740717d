"""Attention maps: the weights that PyTorch computes for the same page, at the place where the point lies."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cli_tools import colorflow, one_line

from colorflow_rt.comics import DEMO_SEED, chapter_seed, make_chapter
from colorflow_rt.denoise import Slot, advance
from colorflow_rt.engine.onnx_graph import read_nodes
from colorflow_rt.errors import OptionError, PackError
from colorflow_rt.explain import attention_layers, explain, heat_map
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pipeline import Colorizer
from colorflow_rt.pixels import write_png

OPTIONS = ColorizeOptions(steps=2)
SIZE = (64, 96)


def page(size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (size[1] // 8, size[0] // 8), dtype=np.uint8)
    return np.kron(blocks, np.ones((8, 8), np.uint8))


@pytest.fixture(scope="module")
def references():
    rng = np.random.default_rng(1)
    return [
        (f"ref{i}", np.kron(rng.integers(0, 256, (12, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)))
        for i in (0, 1)
    ]


@pytest.fixture(scope="module")
def colorizer(tiny_pack):
    return Colorizer(str(tiny_pack))


@pytest.fixture(scope="module")
def found(colorizer, references):
    return explain(colorizer, page(), references, (40, 20), OPTIONS)


def test_the_page_is_coloured_as_always(colorizer, references, found):
    result = colorizer.colorize(page(), references, OPTIONS)
    assert np.abs(result.image.astype(int) - found.result.image).max() <= 1


def _torch_attention(pack, slot):
    """{layer: f64[heads,N,N]} of the guider's self-attention, summed over the steps of a slot."""
    from colorflow_export.packs import load_modules
    from colorflow_export.reference import Procedure, TorchSource

    modules = load_modules(pack)
    sums = {}

    def watch(name):
        def hook(attention, arguments, keywords):
            hidden = arguments[0]
            query, key = (
                to(hidden).unflatten(-1, (attention.heads, -1)).transpose(1, 2).double()
                for to in (attention.to_q, attention.to_k)
            )
            weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)[0]
            sums[name] = sums.get(name, 0) + weights

        return hook

    for name, module in modules.guider.named_modules():
        if name.endswith(".attn1"):
            module.register_forward_pre_hook(watch(f"guider.{name.removesuffix('.attn1')}"), with_kwargs=True)
    from colorflow_rt.pack import open_pack

    engine = TorchSource(Procedure(modules, open_pack(pack).config.scheduler_config)).load("denoise_step")
    with torch.no_grad():
        while not slot.done:
            advance(lambda graph: engine, [slot])
    return sums


def test_the_heat_is_the_attention_that_pytorch_computes(tiny_pack, colorizer, references, found):
    slot = colorizer.begin(page(), references, OPTIONS).open(0).slot
    assert isinstance(slot, Slot)
    truth = _torch_attention(tiny_pack, slot)
    nodes = read_nodes((tiny_pack / "denoise_step.onnx").read_bytes())
    assert {f"{name}" for name in attention_layers(nodes)} == set(truth)
    # The canvas is 128x192 pixels, latents 32x48, the guider attends at 16x24; the point lies at canvas (72, 68).
    assert found.spot == (72, 64, 80, 72)
    token = (64 // 8) * 16 + 72 // 8
    finest = [weights for weights in truth.values() if weights.shape[-1] == 384]
    assert set(found.layers) == {name for name, weights in truth.items() if weights.shape[-1] == 384}
    expected = torch.stack([weights[:, token].mean(0) for weights in finest]).mean(0).reshape(24, 16).numpy() / 2
    mean = found.heat.reshape(24, 8, 16, 8).sum(axis=(1, 3))
    expected[6:18, 4:12] = 0
    assert expected.max() > 1.2 * expected[expected > 0].min()
    np.testing.assert_allclose(mean, expected, rtol=1e-3, atol=1e-6)


def test_cells_share_what_went_to_references(found):
    assert len(found.cells) == 12
    shares = [share for _, share in found.cells]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(float(found.heat.sum()), rel=1e-4)
    assert 0 < sum(shares) < 1
    assert {match.reference for match, _ in found.cells} <= {"ref0", "ref1"}


def test_another_point_looks_elsewhere(colorizer, references, found):
    other = explain(colorizer, page(), references, (5, 90), OPTIONS)
    assert other.spot != found.spot
    assert not np.allclose(other.heat, found.heat, rtol=1e-3)


def test_a_point_of_a_strip_is_explained_in_its_window(colorizer, references):
    strip = page((64, 400))
    found = explain(colorizer, strip, references, (10, 390), ColorizeOptions(steps=1))
    assert found.result.image.shape == (400, 64, 3)
    assert found.spot[1] > 96  # low in the last window's canvas
    assert {match.window for match, _ in found.cells} == {max(match.window for match in found.result.matches)}


def test_the_picture_shows_page_and_canvas(found):
    picture = heat_map(found)
    assert picture.dtype == np.uint8 and picture.shape[0] == 192 * 8
    canvas = picture[:, -128 * 8 :]
    centre = canvas[56 * 8 : 130 * 8 : 8, 70 * 8 + 3]
    np.testing.assert_array_equal(centre, found.canvas[56:130, 70])  # the page's own pixels are left as they are
    row, column = np.unravel_index(found.heat.argmax(), found.heat.shape)
    assert canvas[row * 8 + 4, column * 8 + 4].mean() > canvas.mean()


def test_where_colours_were_looked_up_is_shown_below(found):
    assert found.looked_up == ()  # this pack looks none up
    chapter = make_chapter(chapter_seed(DEMO_SEED, 0))
    references = [(f"ref{i}", chapter.reference(i, (128, 192))) for i in range(6)]
    told = explain(Colorizer("mini"), chapter.page(0, (128, 192)).gray(), references, (64, 60), OPTIONS)
    shares = [float(one.shares.sum()) for one in told.looked_up]
    assert len(shares) == 6 and shares == sorted(shares, reverse=True) and 0.2 < sum(shares) <= 1 + 1e-4
    picture = heat_map(told)
    canvas_height = heat_map(replace(told, looked_up=())).shape[0]
    assert picture.shape[0] > canvas_height + 100
    assert picture[canvas_height + 12 :].max() > 200  # somewhere it is hot


def test_what_cannot_be_explained_says_why(colorizer, references):
    with pytest.raises(OptionError, match="not on the page, which is 64x96"):
        explain(colorizer, page(), references, (64, 5), OPTIONS)
    with pytest.raises(OptionError, match="choose pad"):
        explain(colorizer, page(), references, (1, 1), ColorizeOptions(fit="crop"))
    with pytest.raises(OptionError, match="in colour already"):
        explain(colorizer, references[0][1], references, (1, 1), OPTIONS)
    with pytest.raises(PackError, match="no graph files"):
        explain(Colorizer("fake"), page(), references, (1, 1), OPTIONS)


def test_the_command_writes_the_picture_and_names_references(tiny_pack, references, tmp_path):
    (tmp_path / "refs").mkdir()
    for name, rgb in references:
        write_png(tmp_path / "refs" / f"{name}.png", rgb)
    write_png(tmp_path / "page.png", np.repeat(page()[..., None], 3, axis=2))
    command = ["explain", tmp_path / "page.png", "--refs", tmp_path / "refs", "--pack", tiny_pack, "--steps", 1]
    done = colorflow(*command, "--at", "40,20", "--out", tmp_path / "map.png")
    assert done.code == 0, done.err
    assert "ref0.png" in done.out and "to references" in done.out
    assert (tmp_path / "map.png").stat().st_size > 1000
    one_line(colorflow(*command, "--at", "40", "--out", tmp_path / "no.png"), 2, "no point")
    one_line(colorflow(*command, "--at", "999,1", "--out", tmp_path / "no.png"), 2, "not on the page")
    assert not (tmp_path / "no.png").exists()
