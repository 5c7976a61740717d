"""Options are checked when they are made, and the messages name the choices."""

import pytest

from colorflow_rt.errors import OptionError
from colorflow_rt.options import ColorizeOptions


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("style", "manga", "auto, gray, screentone, lineart"),
        ("fit", "stretch", "pad, crop"),
        ("luminance", "luma", "auto, page, lines, model"),
        ("context", "lines", "auto, page, blend"),
        ("steps", 0, "1 to 1000"),
        ("steps", 2.0, "1 to 1000"),
        ("steps", True, "1 to 1000"),
        ("guidance_scale", -1, "0 to 50"),
        ("guidance_scale", float("nan"), "0 to 50"),
        ("guidance_scale", "7", "0 to 50"),
        ("guidance_steps", -1, "0 to 1000"),
        ("guider_steps", 0, "1 to 1000"),
        ("decode_margin", 1.5, "0 to 4096"),
        ("seed", -1, "0 to 18446744073709551615"),
        ("saturation", 2.5, "0 to 2"),
        ("preview_every", -1, "0 to 1000"),
        ("pinned", (1,), "names of references"),
        ("banned", ("",), "names of references"),
        ("size", (64,), "width, height"),
        ("size", (64, -64), "width, height"),
        ("size", (64.0, 64), "width, height"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(option, value, message):
    with pytest.raises(OptionError, match=message) as error:
        ColorizeOptions(**{option: value})
    assert option in str(error.value) and "\n" not in str(error.value)


def test_lists_become_tuples_and_one_name_is_a_name():
    options = ColorizeOptions(pinned="alice", banned=["bob", "eve"], size=[64, 96])
    assert (options.pinned, options.banned, options.size) == (("alice",), ("bob", "eve"), (64, 96))
    assert hash(options) == hash(ColorizeOptions(pinned=("alice",), banned=("bob", "eve"), size=(64, 96)))


def test_pinned_and_banned_at_once_is_refused():
    with pytest.raises(OptionError, match="both pinned and banned: alice"):
        ColorizeOptions(pinned=("alice", "bob"), banned=("alice",))
