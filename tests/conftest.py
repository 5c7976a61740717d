"""Fixtures that several files of tests share: packs with tiny networks, exported once per run."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a 5-channel pack with luminance planes, without text, stored in float16."""
    from colorflow_export.packs import write_pack
    from tiny_pack import tiny_modules, tiny_recipe

    folder = tmp_path_factory.mktemp("packs") / "tiny"
    write_pack(tiny_modules(), tiny_recipe(), folder)
    return folder


@pytest.fixture(scope="session")
def golden_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a pack made of golden/sd_small_9ch: text and guidance, fusion by batch statistics, in float32."""
    from colorflow_export.packs import write_pack
    from tiny_pack import golden_modules, golden_recipe

    folder = tmp_path_factory.mktemp("packs") / "golden"
    write_pack(golden_modules(), golden_recipe(), folder, storage="float32")
    return folder


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a pack that `colorflow-export convert` made of golden/sd_small_5ch in the released layout."""
    from colorflow_export.convert import ConvertOptions, convert
    from released import GOLDEN, arrange_golden

    root = tmp_path_factory.mktemp("released")
    colorflow, sd15, text = arrange_golden(GOLDEN / "sd_small_5ch", root)
    options = ConvertOptions(name="golden", sizes=((64, 96),), rank=4, alpha=4, text=text)
    convert(colorflow, sd15, root / "golden", options)
    return root / "golden"
