"""Whole pages on the fake pack: every way in, every way out."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from colorflow_rt.canvas import CELLS, STRIP, windows
from colorflow_rt.engine.fake import fake_config
from colorflow_rt.errors import Cancelled, EngineError, ImageError, OptionError, ReferencesError
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import fake_pack
from colorflow_rt.pipeline import Colorizer
from colorflow_rt.pixels import encode_png, luminance, write_png
from colorflow_rt.result import PageError, Result


def drawing(size=(80, 120), seed=0):
    """A gray page u8[H,W]: fills and lines."""
    rng = np.random.default_rng(seed)
    page = np.asarray(
        Image.fromarray(rng.integers(60, 256, (9, 6), np.uint8)).resize(size, Image.Resampling.NEAREST)
    ).copy()
    page[size[1] // 3 : size[1] // 3 + 2] = 0
    page[:, size[0] // 2 : size[0] // 2 + 2] = 0
    return page


def color(seed, size=(60, 90), tint=None):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 4, 3), np.uint8)
    if tint is not None:
        small = np.clip(rng.integers(60, 200, (6, 4, 1)) + np.array(tint), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))


REFERENCES = [(f"ref{i}", color(i)) for i in range(3)]
WARM, COLD = (60, 0, -60), (-60, 0, 60)


@pytest.fixture(scope="module")
def colorizer():
    return Colorizer("fake")


def chroma(image):
    return image.astype(np.float32) - luminance(image)[..., None]


def test_a_page_gets_the_references_colours_and_keeps_its_luminance(colorizer):
    page = drawing()
    warm = colorizer.colorize(page, [color(1, tint=WARM)], ColorizeOptions(style="gray"))
    cold = colorizer.colorize(page, [color(1, tint=COLD)], ColorizeOptions(style="gray"))
    for result, sign in ((warm, 1), (cold, -1)):
        assert result.image.shape == (120, 80, 3)
        assert np.abs(luminance(result.image) - page).max() <= 0.501
        mean = chroma(result.image).mean(axis=(0, 1)) * sign
        assert mean[0] > 10 and mean[2] < -10
    assert (warm.style, warm.passed_through, warm.alpha, warm.chroma) == ("gray", False, None, None)
    assert warm.canvas.shape == (192, 128, 3) and warm.model_image.shape == warm.image.shape


def test_seconds_of_every_stage(colorizer):
    stages = ["read", "context", "retrieval", "canvas", "vae_encode", "denoise", "vae_decode", "gsrp", "merge"]
    seconds = colorizer.colorize(drawing(), REFERENCES).seconds
    assert list(seconds) == stages
    assert all(value >= 0 for value in seconds.values())


def test_the_same_seed_gives_the_same_bytes_alone_and_in_a_sequence(colorizer):
    pages = [drawing(seed=seed) for seed in range(3)]
    options = ColorizeOptions(seed=7)
    alone = [Colorizer("fake").colorize(page, REFERENCES, options).image for page in pages]
    together = list(colorizer.colorize_sequence(pages, REFERENCES, options))
    for one, result in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, result.image)
    other = colorizer.colorize(pages[0], REFERENCES, ColorizeOptions(seed=8))
    assert (other.model_image != together[0].model_image).any()


def test_every_source_of_a_page_gives_the_same(colorizer, tmp_path):
    page = np.repeat(drawing()[..., None], 3, axis=2)
    write_png(tmp_path / "page.png", page)
    expected = colorizer.colorize(page, REFERENCES).image
    with (tmp_path / "page.png").open("rb") as file:
        sources = [tmp_path / "page.png", str(tmp_path / "page.png"), encode_png(page), Image.fromarray(page), file]
        for source in sources:
            np.testing.assert_array_equal(colorizer.colorize(source, REFERENCES).image, expected)


@pytest.mark.parametrize("size", [(16, 16), (64, 96), (97, 61), (300, 110), (40, 700)])
@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_the_result_has_the_pages_size(colorizer, size, fit):
    page = drawing(size)
    result = colorizer.colorize(page, REFERENCES, ColorizeOptions(fit=fit, style="gray", chroma_layer=True))
    for image in (result.image, result.model_image, result.chroma):
        assert image.shape[:2] == page.shape
    assert np.abs(luminance(result.image) - page).max() <= 0.501


def test_what_crop_cuts_off_stays_gray(colorizer):
    result = colorizer.colorize(drawing((220, 100)), [color(1, tint=WARM)], ColorizeOptions(fit="crop", style="gray"))
    spread = np.ptp(result.image, axis=2)
    assert spread[:, :20].max() == spread[:, -20:].max() == 0
    assert spread[:, 60:160].mean() > 10


def test_alpha_is_laid_on_white_and_given_back(colorizer):
    page = np.dstack([np.repeat(drawing()[..., None], 3, axis=2), np.zeros((120, 80), np.uint8)])
    page[20:100, :, 3] = 255
    result = colorizer.colorize(page, REFERENCES, ColorizeOptions(style="gray", chroma_layer=True))
    np.testing.assert_array_equal(result.alpha, page[..., 3])
    np.testing.assert_array_equal(result.chroma[..., 3], page[..., 3])
    assert (result.image[:20] == 255).all()


def test_the_chroma_layer_holds_colours_alone(colorizer):
    result = colorizer.colorize(drawing(), [color(1, tint=WARM)], ColorizeOptions(chroma_layer=True))
    assert result.chroma.shape == (120, 80, 4) and (result.chroma[..., 3] == 255).all()
    assert np.abs(luminance(result.chroma[..., :3]) - 128).max() <= 0.501
    assert np.ptp(result.chroma[..., :3], axis=2).mean() > 10


def test_a_page_in_colour_is_passed_through(colorizer):
    page = color(5, (80, 120))
    result = colorizer.colorize(page, REFERENCES)
    assert result.passed_through and result.style == "color" and result.matches == () and result.canvas is None
    np.testing.assert_array_equal(result.image, page)


def test_style_and_luminance_go_together(colorizer):
    page = drawing()
    lines = colorizer.colorize(page, REFERENCES, ColorizeOptions(style="lineart"))
    again = colorizer.colorize(page, REFERENCES, ColorizeOptions(style="lineart", luminance="lines"))
    kept = colorizer.colorize(page, REFERENCES, ColorizeOptions(style="lineart", luminance="page"))
    np.testing.assert_array_equal(lines.image, again.image)
    assert (lines.image[page == 0] == 0).all()
    assert np.abs(luminance(lines.image) - page).max() > 10 > 1 > np.abs(luminance(kept.image) - page).max()
    model = colorizer.colorize(page, REFERENCES, ColorizeOptions(luminance="model"))
    np.testing.assert_array_equal(model.image, model.model_image)
    none = colorizer.colorize(page, REFERENCES, ColorizeOptions(luminance="model", saturation=0.0))
    assert np.ptp(none.image, axis=2).max() == 0


def test_matches_name_the_reference_of_every_cell(colorizer):
    result = colorizer.colorize(drawing(), REFERENCES)
    assert [match.cell for match in result.matches] == [cell for quadrant in CELLS for cell in quadrant]
    for match in result.matches:
        assert CELLS[match.quadrant][match.rank] == match.cell
        assert match.reference in ("ref0", "ref1", "ref2") and 0 <= match.patch <= 4 and match.window == 0
        assert -1 <= match.similarity <= 1.0001


def test_pinned_and_banned_references(colorizer):
    banned = colorizer.colorize(drawing(), REFERENCES, ColorizeOptions(banned=("ref0",)))
    assert {match.reference for match in banned.matches} <= {"ref1", "ref2"}
    pinned = colorizer.colorize(drawing(), REFERENCES, ColorizeOptions(pinned=("ref0",)))
    assert any(match.reference == "ref0" and match.rank == 0 for match in pinned.matches)
    with pytest.raises(OptionError, match="eve"):
        colorizer.colorize(drawing(), REFERENCES, ColorizeOptions(pinned=("eve",)))


def test_references_are_read_and_embedded_once(tmp_path):
    pack = fake_pack()
    colorizer = Colorizer(pack)
    write_png(tmp_path / "a.png", color(0))
    pool = colorizer.references(tmp_path)
    (tmp_path / "a.png").unlink()
    for _ in range(2):
        colorizer.colorize(drawing(), pool)
    list(colorizer.colorize_sequence([drawing(), drawing(seed=1)], pool))
    assert sum(pack.engine("clip_encoder").batches) == 5 + 4 * 4


def test_nothing_is_computed_twice():
    for inner in (False, True):
        pack = fake_pack(fake_config(inner=inner, luminance_planes=8))
        Colorizer(pack).colorize(drawing(), REFERENCES, ColorizeOptions(steps=3))
        calls = {graph: pack.engine(graph).batches for graph in ("vae_encoder", "denoise_step", "vae_decoder", "gsrp")}
        assert calls == {"vae_encoder": [1] * (1 + inner), "denoise_step": [1] * 3, "vae_decoder": [1], "gsrp": [1]}


@pytest.mark.parametrize(
    "config",
    [
        fake_config(inner=True),
        fake_config(luminance_planes=8, vae_factor=4),
        fake_config(latent_channels=8, text=True),
        fake_config(prediction_type="v_prediction"),
    ],
)
def test_packs_of_every_dimension(config):
    result = Colorizer(fake_pack(config)).colorize(drawing(), [color(1, tint=WARM)], ColorizeOptions(style="gray"))
    assert chroma(result.image).mean(axis=(0, 1))[0] > 10


def test_guidance_reaches_a_model_with_text():
    colorizer = Colorizer(fake_pack(fake_config(text=True)))
    weak, strong = (
        chroma(
            colorizer.colorize(
                drawing(), [color(1, tint=(20, 0, -20))], ColorizeOptions(guidance_scale=scale)
            ).model_image
        )
        for scale in (0.5, 2.0)
    )
    assert np.abs(strong).mean() > 1.5 * np.abs(weak).mean()


def test_steps_and_size_default_to_the_packs_and_can_be_chosen():
    pack = fake_pack()
    colorizer, steps = Colorizer(pack), pack.engine("denoise_step").batches
    assert colorizer.colorize(drawing((120, 80)), REFERENCES).canvas.shape == (128, 192, 3)
    assert len(steps) == pack.config.defaults.steps
    assert colorizer.colorize(drawing(), REFERENCES, ColorizeOptions(steps=2, size=(96, 128))).canvas.shape == (
        256,
        192,
        3,
    )
    assert len(steps) == pack.config.defaults.steps + 2
    with pytest.raises(OptionError, match="multiples of 32"):
        colorizer.colorize(drawing(), REFERENCES, ColorizeOptions(size=(100, 128)))


def with_guider_steps(few, **more):
    config = fake_config(**more)
    return fake_pack(replace(config, defaults=replace(config.defaults, guider_steps=few)))


@pytest.mark.parametrize(
    ("few", "options", "expected"),
    [
        (0, ColorizeOptions(), (4, 0, 0)),
        (2, ColorizeOptions(), (0, 2, 4)),
        (2, ColorizeOptions(guider_steps=3), (0, 3, 4)),
        (2, ColorizeOptions(guider_steps=4), (4, 0, 0)),
        (2, ColorizeOptions(guider_steps=1000), (4, 0, 0)),
        (3, ColorizeOptions(steps=3), (3, 0, 0)),
        (3, ColorizeOptions(steps=1, guider_steps=1), (1, 0, 0)),
        (0, ColorizeOptions(steps=10, guider_steps=4), (0, 4, 10)),
    ],
)
def test_the_guider_is_evaluated_as_often_as_the_option_or_the_pack_says(few, options, expected):
    pack = with_guider_steps(few)
    Colorizer(pack).colorize(drawing(), REFERENCES, options)
    calls = [len(pack.engine(graph).batches) for graph in ("denoise_step", "guider", "denoise_reuse")]
    assert tuple(calls) == expected


def test_as_many_guider_steps_as_steps_change_no_byte():
    page, full = drawing((120, 80)), Colorizer(fake_pack(fake_config(reuse=False)))
    expected = full.colorize(page, REFERENCES, ColorizeOptions(steps=5, guider_steps=5)).image
    options = ColorizeOptions(steps=5, guider_steps=5)
    assert np.array_equal(Colorizer(with_guider_steps(2)).colorize(page, REFERENCES, options).image, expected)


def test_guider_steps_that_cannot_be_are_refused():
    plain = Colorizer(fake_pack(fake_config(reuse=False)))
    with pytest.raises(OptionError, match=r"guider_steps is 3 of 4: pack fake on this engine .* in every step; leave"):
        plain.colorize(drawing(), REFERENCES, ColorizeOptions(guider_steps=3))
    for colorizer in (plain, Colorizer(fake_pack())):
        with pytest.raises(OptionError, match="guider_steps is 1, expected 2 to 4: the first and the last of 4 steps"):
            colorizer.colorize(drawing(), REFERENCES, ColorizeOptions(guider_steps=1))


def test_a_style_that_the_pack_does_not_know_is_refused():
    config = fake_config()
    pack = fake_pack(replace(config, style=replace(config.style, inputs=("gray",))))
    with pytest.raises(OptionError, match=r"lineart.*choose one of gray"):
        Colorizer(pack).colorize(drawing(), REFERENCES, ColorizeOptions(style="lineart"))


def test_the_blended_context_image_stands_in_the_centre(colorizer):
    page = np.full((96, 64), 150, np.uint8)
    plain, blend = (
        colorizer.colorize(page, REFERENCES, ColorizeOptions(context=context)).canvas[48:144, 32:96]
        for context in ("page", "blend")
    )
    assert (plain == 150).all()
    assert len(np.unique(blend)) > 2 and abs(float(blend.mean()) - 150) < 20


# Strips


def test_a_strip_is_coloured_in_windows_that_join_without_a_step(colorizer):
    size = (48, 600)
    page = np.full((600, 48), 160, np.uint8)
    page[:200], page[400:] = 90, 220  # the windows see different pages, and retrieve differently
    references = [("warm", color(0, tint=WARM)), ("cold", color(1, tint=COLD)), ("mixed", color(2))]
    result = colorizer.colorize(page, references, ColorizeOptions(style="gray", luminance="model"))
    boxes = windows(size, (64, 96))
    assert len(boxes) > 5 and size[1] > STRIP * size[0]
    assert {match.window for match in result.matches} == set(range(len(boxes)))
    assert len({tuple((m.reference, m.patch) for m in result.matches if m.window == w) for w in range(len(boxes))}) > 1
    tint = chroma(result.model_image).mean(axis=1)
    steps = np.abs(np.diff(tint, axis=0)).max(axis=1)
    away = [row for row in range(10, 590) if min(abs(row - 200), abs(row - 400)) > 24]  # the page's own edges
    assert np.ptp(tint[away], axis=0).max() > 20  # so a hard join would show
    assert steps[away].max() < 3


def test_a_lying_strip_equals_the_standing_one_in_size_and_windows(colorizer):
    result = colorizer.colorize(drawing((400, 40)), REFERENCES, ColorizeOptions(style="gray"))
    assert result.image.shape == (40, 400, 3)
    assert max(match.window for match in result.matches) >= 4


# Sequences, previews, cancelling


def test_one_bad_page_is_reported_and_the_rest_go_on(colorizer, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    pages = [drawing(), tmp_path / "bad.png", b"", np.zeros((4, 4), np.uint8), drawing(seed=1)]
    found = list(colorizer.colorize_sequence(pages, REFERENCES))
    assert [type(item) for item in found] == [Result, PageError, PageError, PageError, Result]
    assert [(item.index, item.name) for item in found[1:4]] == [
        (1, str(tmp_path / "bad.png")),
        (2, "page 3"),
        (3, "page 4"),
    ]
    assert all(isinstance(item.error, ImageError) for item in found[1:4])


def test_a_failing_engine_is_a_page_error():
    colorizer = Colorizer(fake_pack(fail_after={"gsrp": 1}))
    first, second = colorizer.colorize_sequence([drawing(), drawing()], REFERENCES)
    assert isinstance(first, Result) and isinstance(second.error, EngineError)


def test_pages_are_coloured_when_they_are_asked_for():
    pack = fake_pack()
    read = []

    def pages():
        for seed in range(3):
            read.append(seed)
            yield drawing(seed=seed)

    results = Colorizer(pack).colorize_sequence(pages(), REFERENCES)
    assert read == []
    next(results)
    assert read == [0] and len(pack.engine("gsrp").batches) == 1


def test_what_concerns_all_pages_is_raised(colorizer):
    with pytest.raises(ReferencesError, match="no references"):
        next(colorizer.colorize_sequence([drawing()], []))
    with pytest.raises(OptionError, match="eve"):
        next(colorizer.colorize_sequence([drawing()], REFERENCES, ColorizeOptions(banned=("eve",))))


@pytest.mark.parametrize("size", [(64, 96), (40, 300)])
def test_previews(colorizer, size):
    shown = []
    options = ColorizeOptions(steps=6, preview_every=2)
    pages = [drawing(size), drawing(size, seed=1)]
    results = list(colorizer.colorize_sequence(pages, REFERENCES, options, on_preview=lambda *a: shown.append(a)))
    count = len(windows(size, (64, 96)))
    expected = [(page, 6 * w + step, 6 * count) for page in (0, 1) for w in range(count) for step in (2, 4, 6)]
    assert [entry[:3] for entry in shown] == expected
    assert all(entry[3].dtype == np.uint8 and entry[3].ndim == 3 for entry in shown)
    plain = list(colorizer.colorize_sequence(pages, REFERENCES, ColorizeOptions(steps=6)))
    for result, other in zip(results, plain, strict=True):
        np.testing.assert_array_equal(result.image, other.image)


def test_a_preview_shows_the_page_without_its_padding(colorizer):
    shown = []
    options = ColorizeOptions(steps=1, preview_every=1)
    colorizer.colorize(
        drawing((60, 60)), REFERENCES, replace(options, size=(64, 96)), on_preview=lambda *a: shown.append(a)
    )
    assert shown[0][3].shape == (64, 64, 3)


@pytest.mark.parametrize("after", [0, 3, 7])
def test_cancelling_between_steps(after):
    pack = fake_pack()
    steps = pack.engine("denoise_step").batches
    colorizer = Colorizer(pack)
    results = colorizer.colorize_sequence(
        [drawing()] * 3, REFERENCES, ColorizeOptions(steps=5), cancelled=lambda: len(steps) >= after
    )
    done = []
    with pytest.raises(Cancelled):
        done.extend(results)
    assert len(steps) == after


def test_cancelling_among_pages_in_colour(colorizer):
    results = colorizer.colorize_sequence([color(5)] * 3, REFERENCES, cancelled=lambda: len(done) == 2)
    done = []
    with pytest.raises(Cancelled, match="before page 3"):
        for result in results:
            done.append(result)
    assert [result.passed_through for result in done] == [True, True]
