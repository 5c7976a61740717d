"""Who and what a chapter shows: characters, scenes and props, each part with a region of its own."""

from dataclasses import dataclass, field

import numpy as np

from colorflow_rt.comics.colours import Palette

LOOKS = {  # one of each for every character; drawn in hair, head, clothes and headwear
    "hair": "short, bob, long, twintails, ponytail, bun, buns, afro, spiky, mohawk, braids, bowl",
    "fringe": "straight, zigzag, parted, swept, high",
    "eyes": "round, tall, sleepy, dot",
    "upper": "tee, sweater, jacket, hoodie, vest, dungarees, robe",
    "lower": "trousers, shorts, skirt, long skirt",
    "pattern": "plain, stripes, pinstripes, dots, checks, star, heart, diamond, ring, zigzag",
    "accessory": "cap, beanie, witch hat, scarf, glasses, bow, headphones, headband, cape, crown",
}
SCENES = "park, street, beach, room, library, mountains, hall, cafe"
PROPS = "ball, book, cup, balloon, flower, wand"


@dataclass
class Subject:
    """A character, scene or prop: its looks by name, and the region of each of its parts.

    `kind` names the scene or prop ("park", "ball"), and is empty for characters.
    """

    name: str
    kind: str
    looks: dict[str, str]
    seed: int
    parts: dict[str, int] = field(default_factory=dict)
    build: dict[str, float] = field(default_factory=dict)

    def __getitem__(self, part: str) -> int:
        return self.parts[part]


class Casting:
    """Gives out regions; `names` is id -> (character, part)."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.palette = Palette(rng)
        self.names: dict[int, dict[str, str]] = {}

    def region(self, subject: Subject, part: str, level: int, hue: float | None = None) -> None:
        """A new region of the subject, at gray level number `level` of the chapter."""
        region = self.palette.add(level, hue)
        part_name = f"{subject.kind}: {part}" if subject.kind else part
        self.names[region] = {"character": subject.name, "part": part_name}
        subject.parts[part] = region

    def pick(self, among: str, count: int) -> list[str]:
        """`count` of these names, none twice while they last."""
        order = [str(name) for name in self.rng.permutation(among.split(", "))]
        return [order[i % len(order)] for i in range(count)]

    def levels(self, count: int) -> list[int]:
        """Gray levels that differ from one another."""
        return [int(i) for i in self.rng.permutation(len(self.palette.levels))[:count]]


def cast_characters(casting: Casting, count: int) -> list[Subject]:
    """The chapter's characters; no two share hair, upper clothes, pattern or accessory."""
    looks = {name: casting.pick(among, count) for name, among in LOOKS.items()}
    hair_levels = casting.levels(count)
    return [
        _character(casting, i, {name: chosen[i] for name, chosen in looks.items()}, hair_levels[i])
        for i in range(count)
    ]


def _character(casting: Casting, index: int, looks: dict[str, str], hair: int) -> Subject:
    rng = casting.rng
    who = Subject(f"character {index + 1}", "", looks, int(rng.integers(2**31)))
    who.build = {
        "width": float(rng.uniform(0.88, 1.12)),
        "jaw": float(rng.uniform(0.8, 1.1)),
        "eye": float(rng.uniform(0.9, 1.15)),
    }
    skin = int(rng.choice([level for level in (2, 3, 4, 4) if level != hair]))
    upper = int(rng.choice([level for level in range(5) if level != skin]))
    second, lower, third = (int(i) for i in rng.permutation([i for i in range(5) if i != upper])[:3])
    worn, trim = (int(i) for i in rng.permutation([i for i in range(5) if i not in (hair, upper)])[:2])
    casting.region(who, "skin", skin, _natural_skin(rng) if rng.random() < 0.5 else None)
    levels = {"hair": hair, "eyes": int(rng.integers(0, 3)), "upper": upper, "pattern": second, "inner": second}
    levels |= {"lower": lower, "shoes": third, "accessory": worn, "trim": trim}
    for part, level in levels.items():
        casting.region(who, part, level)
    return who


def _natural_skin(rng: np.random.Generator) -> float:
    return float(rng.uniform(2.0, 2.5))  # chroma direction between orange and pink


SCENE_PARTS: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {
    "park": (
        ("sky", (3, 4)),
        ("hills", (1, 2, 3)),
        ("grass", (2, 3)),
        ("trunks", (0, 1)),
        ("leaves", (0, 1, 2)),
        ("path", (3, 4)),
        ("sun", (4,)),
    ),
    "street": (
        ("sky", (3, 4)),
        ("houses", (2, 3)),
        ("towers", (1, 2)),
        ("windows", (0, 4)),
        ("roofs", (0, 1)),
        ("road", (1, 2)),
        ("doors", (0, 1, 3)),
    ),
    "beach": (
        ("sky", (3, 4)),
        ("sea", (1, 2)),
        ("sand", (3, 4)),
        ("sun", (4,)),
        ("parasol", (0, 1)),
        ("parasol stripes", (3, 4)),
        ("palm", (0, 1)),
    ),
    "room": (
        ("wall", (2, 3, 4)),
        ("wallpaper", (1, 2, 3, 4)),
        ("floor", (1, 2)),
        ("curtains", (0, 1, 2)),
        ("window", (3, 4)),
        ("furniture", (0, 1)),
        ("picture", (1, 2, 3)),
        ("lamp", (2, 3, 4)),
    ),
    "library": (
        ("wall", (2, 3, 4)),
        ("shelves", (0, 1)),
        ("books a", (1, 2)),
        ("books b", (3, 4)),
        ("books c", (0, 2)),
        ("floor", (1, 2)),
        ("globe", (2, 3)),
    ),
    "mountains": (
        ("sky", (0, 1, 2)),
        ("moon", (4,)),
        ("far mountains", (2, 3)),
        ("near mountains", (1, 2)),
        ("ground", (2, 3)),
        ("pines", (0, 1)),
        ("lake", (3, 4)),
    ),
    "hall": (
        ("wall", (2, 3)),
        ("columns", (3, 4)),
        ("banners", (0, 1)),
        ("emblems", (3, 4)),
        ("floor", (1, 2)),
        ("carpet", (0, 1, 3)),
        ("windows", (4,)),
    ),
    "cafe": (
        ("wall", (3, 4)),
        ("tiles", (1, 2)),
        ("counter", (0, 1)),
        ("awning", (1, 2)),
        ("awning stripes", (4,)),
        ("floor", (2, 3)),
        ("jars", (1, 2, 3)),
        ("sign", (0, 1)),
    ),
}


def cast_scenes(casting: Casting, count: int) -> list[Subject]:
    """The chapter's backgrounds, all of different kinds; region names carry the kind: 'park: sky'."""
    return [_scene(casting, kind) for kind in casting.pick(SCENES, count)]


def _scene(casting: Casting, kind: str) -> Subject:
    scene = Subject("scene", kind, {}, int(casting.rng.integers(2**31)))
    previous = -1
    for part, levels in SCENE_PARTS[kind]:
        level = int(casting.rng.choice([i for i in levels if i != previous or len(levels) == 1]))
        casting.region(scene, part, level)
        previous = level
    return scene


def cast_props(casting: Casting, count: int) -> list[Subject]:
    """Things that characters hold; two regions each."""
    props = []
    for kind in casting.pick(PROPS, count):
        prop = Subject("scene", kind, {}, int(casting.rng.integers(2**31)))
        for part, level in zip(("main", "trim"), casting.levels(2), strict=True):
            casting.region(prop, part, level)
        props.append(prop)
    return props
