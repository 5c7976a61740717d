"""Training: what it feeds the networks is what the runtime feeds them, and every stage runs, stops and resumes."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from colorflow_export.modules import ColorVAE
from colorflow_export.train import config, parts
from colorflow_export.train.cli import train
from colorflow_export.train.collect import collect
from colorflow_export.train.descreen import CROP, Descreener, _Crops
from colorflow_export.train.loop import checkpoint_path, learning_rate
from colorflow_export.train.matching import DOWN, OF_FILL, OF_MEAN
from colorflow_export.train.pool import load_chapter, pool_files, turn_chroma
from colorflow_export.train.samples import CanvasBatches, canvas_sample, working_size
from colorflow_export.train.stages import Denoiser, _crop, condition, load_ema, shifted_timesteps
from colorflow_export.train.supervise import AttentionLoss

from colorflow_rt import Colorizer, latents
from colorflow_rt.pixels import luminance

SIZE = (64, 96)


def command(*arguments: str) -> None:
    done = CliRunner().invoke(train, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two drawn chapters and every stage trained for two steps."""
    folder = tmp_path_factory.mktemp("train")
    command("pool", "--work", str(folder), "--chapters", "2")
    for stage in ("vae", "clip", "unet", "gsrp"):
        page = ("--page", *map(str, SIZE)) if stage == "unet" else ()
        command(stage, "--work", str(folder), "--steps", "2", "--batch", "2", *page)
    return folder


def test_pool_can_be_filled_again(work: Path) -> None:
    before = [path.stat().st_mtime_ns for path in pool_files(work)]
    command("pool", "--work", str(work), "--chapters", "2")
    assert [path.stat().st_mtime_ns for path in pool_files(work)] == before
    assert len(before) == 2


def test_turned_palette_keeps_luminance_and_moves_colours(work: Path) -> None:
    picture = load_chapter(pool_files(work)[0]).truth[0]
    turned = turn_chroma([picture], np.random.default_rng(1))[0]
    assert np.abs(luminance(turned) - luminance(picture)).max() < 1.5
    assert np.abs(turned.astype(float) - picture).mean() > 5


def test_canvas_sample_has_the_references_in_both_canvases(work: Path) -> None:
    sample = canvas_sample(load_chapter(pool_files(work)[0]), SIZE, np.random.default_rng(2))
    height, width = sample.context.shape[:2]
    assert (width, height) == (2 * SIZE[0], 2 * SIZE[1])
    centre = np.zeros((height, width), bool)
    centre[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = True
    np.testing.assert_array_equal(sample.context[~centre], sample.target[~centre])
    assert np.ptp(sample.context[centre], axis=1).max() == 0
    assert np.ptp(sample.target[centre], axis=1).max() > 50


def test_condition_is_what_the_runtime_makes(work: Path) -> None:
    context = canvas_sample(load_chapter(pool_files(work)[0]), SIZE, np.random.default_rng(3)).context[np.newaxis]
    vae = ColorVAE.create(config.MINI["vae"]).eval().requires_grad_(False)
    image = torch.from_numpy(latents.to_model(context))
    encoded = vae.moments(image)[0] * 0.5
    ours = condition(image, encoded).numpy()
    mask = latents.mask(SIZE, 4)
    planes = latents.luminance_planes(context, 4, config.LUMINANCE_PLANES)
    np.testing.assert_allclose(ours, latents.condition(encoded.numpy(), mask, None, planes), atol=2e-4)


def test_batches_hold_pages_of_one_shape(work: Path) -> None:
    batches = iter(CanvasBatches(work, batch=2, area=SIZE[0] * SIZE[1], seed=0))
    for _ in range(3):
        context, target = next(batches)
        assert context.shape == target.shape
        assert context.dtype == torch.uint8
        assert context.shape[1] % 64 == 0
        assert context.shape[2] % 64 == 0


def test_timesteps_shift_towards_noise() -> None:
    torch.manual_seed(0)
    plain, shifted = shifted_timesteps(20_000, 0.0), shifted_timesteps(20_000, 1.5)
    assert plain.float().mean() == pytest.approx(500, abs=10)
    # t' of t = T/2 is e^mu / (e^mu + 1) T, and the shift keeps the order: medians map onto each other.
    assert shifted.float().median() == pytest.approx(1000 * np.exp(1.5) / (np.exp(1.5) + 1), abs=10)
    assert int(shifted.max()) <= 999


def test_learning_rate_warms_up_and_cools_down() -> None:
    options = config.stage_options("unet", steps=1000)
    assert learning_rate(0, options) == pytest.approx(options.learning_rate / options.warmup)
    assert learning_rate(500, options) == options.learning_rate
    assert learning_rate(900, options) == pytest.approx(options.learning_rate / 2)


@pytest.mark.parametrize(
    ("shape", "size"), [((192, 288), (128, 192)), ((288, 192), (192, 128)), ((240, 240), (160, 160))]
)
def test_working_size(shape: tuple[int, int], size: tuple[int, int]) -> None:
    assert working_size(*shape, 128 * 192) == size


def test_stage_resumes_and_changes_weights(work: Path) -> None:
    def state() -> dict[str, torch.Tensor]:
        loaded: dict[str, torch.Tensor] = torch.load(checkpoint_path(work, "gsrp"), weights_only=True)
        return loaded

    before = state()
    command("gsrp", "--work", str(work), "--steps", "3", "--batch", "2")
    after = state()
    assert (before["step"], after["step"]) == (2, 3)
    key = "two_layer_resnets.0.block1.conv1.weight"
    assert not torch.equal(before["model"][key], after["model"][key])


def test_a_stage_before_its_turn_says_what_to_run(tmp_path: Path) -> None:
    done = CliRunner().invoke(train, ["clip", "--work", str(tmp_path)])
    assert done.exit_code == 1
    assert "train pool" in str(done.exception)


@pytest.mark.slow
def test_trained_stages_become_a_pack_that_colours_and_trains_on(work: Path, tmp_path: Path) -> None:
    written = collect(work, tmp_path / "mini", "0.0.1")
    assert written.version == "0.0.1"
    chapter = load_chapter(pool_files(work)[0])
    result = Colorizer(tmp_path / "mini").colorize(chapter.gray[0], list(chapter.references))
    assert result.image.shape == chapter.truth[0].shape
    command("from-pack", "--work", str(tmp_path / "again"), "--pack", str(tmp_path / "mini"))
    start = torch.load(checkpoint_path(tmp_path / "again", "vae"), weights_only=True)
    trained = torch.load(checkpoint_path(work, "vae"), weights_only=True)
    for name, value in trained["ema"].items():
        torch.testing.assert_close(start["model"][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("phase", ["mean", "noise", "own"])
def test_every_phase_trains(work: Path, tmp_path: Path, phase: str) -> None:
    (tmp_path / "pool").symlink_to(work / "pool")
    command("unet", "--work", str(tmp_path), "--phase", phase, "--steps", "3", "--batch", "1", "--page", "64", "96")
    state = torch.load(checkpoint_path(tmp_path, "unet"), weights_only=True)
    listens = state["model"]["unet.conv_in.weight"].abs().max() > 0
    assert state["step"] == 3
    assert listens == (phase != "mean")  # the noise is let in by what it is trained on


def two_grays() -> tuple[torch.Tensor, torch.Tensor]:
    """Condition f32[1,K,32,32] and true latents f32[1,4,32,32]: two gray levels, each with a colour of its own.

    References are on the left and right, the page, whose colours are not in the condition, in the middle.
    """
    size = 32
    y, red, mask = torch.zeros(size, size), torch.zeros(size, size), torch.zeros(size, size)
    for half, level, chroma in ((slice(0, 16), 0.35, 1.0), (slice(16, 32), 0.65, -1.0)):
        y[half], red[half] = level, chroma
    mask[:, :8] = mask[:, 24:] = 1
    angles = torch.stack([torch.pi * 2**k * y for k in range(OF_FILL)])
    seen = torch.stack([y, red * mask, red * mask, y])
    mean, fill = angles[:OF_MEAN], angles
    known = torch.cat([seen, mask[None], mean.sin(), mean.cos(), fill.sin(), fill.cos()])
    return known[None], torch.stack([y, red, red, y])[None]


def test_the_guider_starts_by_fetching_the_colour_of_its_own_gray() -> None:
    guider = Denoiser().eval().guider
    seen: dict[str, torch.Tensor] = {}
    layer = guider.down_blocks[1].attentions[0]
    layer.register_forward_hook(lambda _, inputs, out: seen.update(fetched=(out[0] - inputs[0])[0]))
    with torch.no_grad():
        guider(torch.zeros(1, 4, 32, 32), torch.tensor([999]), two_grays()[0])
    red = seen["fetched"][DOWN[1], :, 6:10]  # of the first head
    assert red[:6].mean() > red[-6:].mean() + 0.5


def test_the_attention_loss_is_small_where_attention_falls_on_the_right_colour() -> None:
    known, latents_ = two_grays()
    wrong = latents_ * torch.where(known[:, 4:5] > 0.5, 1.0, -1.0)  # the page's colours are those of the other gray
    losses = []
    for truth in (latents_, wrong):
        guider = Denoiser().guider
        attention = AttentionLoss(guider)
        attention.look_at(truth, known[:, 4:5])
        guider(torch.zeros(1, 4, 32, 32), torch.tensor([999]), known)
        assert len(attention.terms) == 7  # one a layer
        losses.append(float(attention.terms[0].detach()))  # of the layer that is set to compare grays
    assert losses[0] < 0.2
    assert losses[1] > 2.0


def test_the_network_that_takes_dots_away_trains_and_runs_as_it_was_trained(tmp_path: Path) -> None:
    for steps in ("1", "2"):  # the second call goes on
        command("descreen", "--work", str(tmp_path), "--steps", steps, "--batch", "2")
    command("export-descreen", "--work", str(tmp_path), "--out", str(tmp_path / "descreen.onnx"))
    net = Descreener()
    load_ema(net, tmp_path, "descreen")
    page = np.random.default_rng(0).random((1, 1, 40, 72), np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "descreen.onnx")
    np.testing.assert_allclose(
        session.run(None, {"page": page})[0], net(torch.from_numpy(page)).detach(), atol=2e-3
    )  # weights are float16


def test_the_network_that_tells_parts_trains_and_runs_as_it_was_trained(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(parts, "CHAPTERS", 1)
    for steps in ("1", "2"):  # the second call goes on
        command("parts", "--work", str(tmp_path), "--steps", steps)
    command("export-parts", "--work", str(tmp_path), "--out", str(tmp_path / "parts.onnx"))
    net = parts.PartsNet()
    load_ema(net, tmp_path, "parts")
    drawing = np.random.default_rng(0).random((1, 1, 64, 160), np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "parts.onnx")
    found = net(torch.from_numpy(drawing)).detach()
    np.testing.assert_allclose(session.run(None, {"drawing": drawing})[0], found, atol=0.02)


def test_parts_are_likelier_where_features_agree() -> None:
    part = torch.tensor([[[1, 2], [0, 0]], [[2, 1], [0, 0]]], dtype=torch.uint8)
    batch = {"part": part, "gray": torch.zeros(2, 2, 2), "clear": part > 0, "alike": torch.tensor(3.0)}
    right, wrong = (torch.zeros(2, parts.FEATURES + 1, 2, 2) for _ in range(2))
    for number in (1, 2):
        where = (part == number).float()
        right[:, number] = 3 * where
        wrong[0, number], wrong[1, 3 - number] = 3 * where[0], 3 * where[1]
    (good, share), (bad, _) = parts.likelihood(right, batch), parts.likelihood(wrong, batch)
    assert good < 0.01 and share > 0.99 and bad > 5
    told = {**batch, "gray": 50.0 * part.float()}  # by gray alone
    assert parts.likelihood(torch.zeros_like(right), told)[0] < 0.01


def test_what_is_drawn_onto_crops_stays_in_the_gray_page() -> None:
    toned, gray = next(iter(_Crops(batch=64, seed=1)))
    assert toned.shape == gray.shape == (64, CROP, CROP)
    assert (gray[toned == 255] > 0).float().mean() > 0.999  # no ink appears where the page is white
    kept = [float((t[g == 0] < 128).float().mean()) for t, g in zip(toned, gray, strict=True) if (g == 0).any()]
    assert min(kept) > 0.5 and sum(kept) / len(kept) > 0.95


def test_windows_of_a_canvas_hold_its_centre_and_some_references() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        top, bottom, left, right = _crop(384, 256, rng)
        assert top <= 24
        assert bottom >= 72
        assert left <= 16
        assert right >= 48
        assert (bottom - top) * (right - left) > 1.5 * 48 * 32
