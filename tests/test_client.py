"""The clients: results and errors as in-process, retries as the server says, deadlines, cancellation, broken calls."""

import asyncio
import io
import time

import numpy as np
import pytest
from colorflow_server import wire
from colorflow_server.client import AsyncClient, Client, Connection, RemoteSet, ServerError
from colorflow_server.events import Accepted, Preview, Refused, Retrieved
from colorflow_server.pb import colorflow_pb2 as pb
from colorflow_server.status import later, make_status
from google.rpc import code_pb2 as codes
from PIL import Image
from server_tools import Plain, certificates, png, running, slow

from colorflow_rt import (
    Cancelled,
    ColorizeOptions,
    Colorizer,
    ImageError,
    OptionError,
    ReferencesError,
    Result,
    UnknownPackError,
)
from colorflow_rt.pixels import read_picture

OPTIONS = ColorizeOptions(steps=3, chroma_layer=True)
REFS = [("ref.png", png(100, colour=True))]
PAGES = [png(n) for n in range(5)]


@pytest.fixture(scope="module")
def here():
    """What the pages become in-process."""
    return list(Colorizer("fake").colorize_sequence(PAGES, REFS, OPTIONS))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(sets=str(tmp_path_factory.mktemp("sets"))) as found:
        yield found


def same(got, expected):
    """Everything but the seconds, which are of the same stages, and floats that travel as 32 bits."""
    assert isinstance(got, Result), got
    for name in ("image", "chroma"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    assert (got.style, got.passed_through, got.alpha) == (expected.style, expected.passed_through, expected.alpha)
    assert got.seconds.keys() == expected.seconds.keys()
    for one, other in zip(got.matches, expected.matches, strict=True):
        assert (one.cell, one.reference, one.patch, one.rank) == (other.cell, other.reference, other.patch, other.rank)
        assert one.similarity == pytest.approx(other.similarity, abs=1e-6)


def test_pages_are_as_in_process_one_by_one_and_in_sequence(server, here):
    with Client(server.address) as client:
        same(client.colorize(PAGES[0], REFS, OPTIONS), here[0])
        for got, expected in zip(client.colorize_sequence(PAGES, REFS, OPTIONS, ahead=3), here, strict=True):
            same(got, expected)


def test_asyncio_does_the_same(server, here):
    async def both():
        async with AsyncClient(server.address) as client:
            same(await client.colorize(PAGES[1], REFS, OPTIONS), here[1])
            got = [outcome async for outcome in client.colorize_sequence(PAGES, REFS, OPTIONS)]
            for one, expected in zip(got, here, strict=True):
                same(one, expected)
            assert (await client.info()).packs[0].name == "fake"
            broken = client.colorize_sequence([b"no", PAGES[0]], REFS, OPTIONS)
            assert [type(outcome).__name__ async for outcome in broken] == ["PageError", "Result"]
            with pytest.raises(ImageError, match="not a PNG"):
                await client.colorize(b"nothing", REFS)

    asyncio.run(both())


def test_every_kind_of_picture_travels(server, here, tmp_path):
    path, rgb = tmp_path / "page.png", read_picture(PAGES[0]).rgb
    path.write_bytes(PAGES[0])
    empty = tmp_path / "empty"
    for folder in (tmp_path / "refs", empty):
        folder.mkdir()
    (tmp_path / "refs" / "ref.png").write_bytes(REFS[0][1])
    sources = [
        path,
        str(path),
        io.BytesIO(PAGES[0]),
        rgb,
        rgb[..., 0],
        rgb.astype(np.uint16) * 257,
        Image.fromarray(rgb),
    ]
    with Client(server.address) as client:
        for source in sources:
            same(client.colorize(source, tmp_path / "refs", OPTIONS), here[0])
        same(client.colorize(path, tmp_path / "refs" / "ref.png", OPTIONS), here[0])
        clear = Image.fromarray(np.dstack([rgb, np.full(rgb.shape[:2], 128, np.uint8)]))
        assert client.colorize(clear, REFS, OPTIONS).alpha.min() == 128
        with pytest.raises(ImageError, match="float32"):
            client.colorize(rgb.astype(np.float32), REFS)
        with pytest.raises(ImageError, match=r"none\.png: cannot be read"):
            client.colorize(tmp_path / "none.png", REFS)
        with pytest.raises(ReferencesError, match="no pictures in"):
            client.colorize(path, empty, OPTIONS)


def test_what_was_asked_for_comes_and_nothing_else(server):
    with Client(server.address) as client:
        plain = client.colorize(PAGES[0], REFS)
        assert plain.canvas is None and plain.model_image.size == 0 and plain.chroma is None
        full = client.colorize(PAGES[0], REFS, output=pb.Output(canvas=True, model_image=True, format=4))
        assert full.canvas.shape == (192, 128, 3) and full.model_image.shape == full.image.shape


def test_errors_are_those_of_the_runtime(server):
    with Client(server.address) as client:
        with pytest.raises(OptionError, match="pinned"):
            client.colorize(PAGES[0], REFS, ColorizeOptions(pinned=("nobody",)))
        with pytest.raises(ImageError):
            client.colorize(b"nothing", REFS)
        with pytest.raises(ReferencesError, match="'none'"):
            client.colorize(PAGES[0], RemoteSet("none"))
        with pytest.raises(UnknownPackError, match="'none'"):
            client.colorize(PAGES[0], REFS, pack="none")
        with pytest.raises(OptionError, match="priority"):
            list(client.colorize_sequence(PAGES, REFS, priority=500))
        with pytest.raises(OptionError, match="ahead"):
            list(client.colorize_sequence(PAGES, REFS, ahead=0))
        outcomes = list(client.colorize_sequence([PAGES[0], b"bad", "none.png", PAGES[1]], REFS))
        assert [getattr(outcome, "index", None) for outcome in outcomes] == [None, 1, 2, None]
        assert str(outcomes[1].error).startswith("page 2: its content") and "none.png" in str(outcomes[2].error)


def test_sets(server, here, tmp_path):
    (tmp_path / "ref.png").write_bytes(REFS[0][1])
    with Client(server.address) as client:
        hero = client.create_set("hero")
        report = client.add_references("hero", [tmp_path / "ref.png", ("again", REFS[0][1]), ("bad", b"x")], tag="Aki")
        assert [r.name for r in report.added] == ["ref.png"] and len(report.duplicates) == len(report.refused) == 1
        assert client.sets() == ["hero"] and client.references("hero") == report.added
        assert report.added[0].tag == "Aki" and report.added[0].size == (48, 64)
        np.testing.assert_array_equal(client.picture("hero", 1).rgb, read_picture(REFS[0][1]).rgb)
        same(client.colorize(PAGES[0], hero, OPTIONS), here[0])
        hits = client.search("hero", PAGES[0], count=2)
        assert [len(row) for row in hits] == [2] * 4 and hits[0][0].reference == report.added[0]
        assert client.remove_references("hero", [1]) == 1 and client.references("hero") == []
        client.delete_set("hero")
        assert client.sets() == []


def test_progress_is_told():
    seen = []
    with running(make=slow()) as found, Client(found.address) as client:
        options = ColorizeOptions(steps=6, preview_every=2)
        result = client.colorize(PAGES[0], REFS, options, on_progress=lambda index, event: seen.append((index, event)))
    kinds = [type(event) for _, event in seen]
    assert isinstance(result, Result) and kinds[:2] == [Accepted, Retrieved] and Preview in kinds
    preview = seen[kinds.index(Preview)][1]
    assert (preview.step, preview.steps, preview.image.dtype) == (2, 6, np.uint8)


class Refusing(Plain):
    """Refuses so many pages at first."""

    times = 2

    def submit(self, job):
        if self.times > 0:
            type(self).times -= 1
            self.counts["refused"] += 1
            raise Refused("queue_full", "the queue is full", 0.05)
        return super().submit(job)


@pytest.mark.parametrize("sequence", [False, True])
def test_what_is_refused_for_now_is_tried_again_when_the_server_says(sequence, here):
    Refusing.times = 2
    with running(make=Refusing) as found, Client(found.address) as client:
        started = time.monotonic()
        got = (
            [*client.colorize_sequence(PAGES[:2], REFS, OPTIONS)]
            if sequence
            else [client.colorize(PAGES[0], REFS, OPTIONS)]
        )
        assert time.monotonic() - started > 0.05 and found.server.shop.scheduler.counts["refused"] == 2
    for one, expected in zip(got, here, strict=False):
        same(one, expected)


@pytest.mark.parametrize("limits", [{"retries": 1}, {"timeout_s": 0.2}])
def test_but_not_for_ever(limits):
    Refusing.times = 1000
    with running(make=Refusing) as found, Client(found.address, **limits) as client:
        with pytest.raises(ServerError, match="queue is full") as caught:
            client.colorize(PAGES[0], REFS)
        assert caught.value.code == "RESOURCE_EXHAUSTED" and caught.value.retry_after_s == pytest.approx(0.05)
        assert caught.value.request_id in [line.get("request_id") for line in found.log]
        (page,) = client.colorize_sequence(PAGES[:1], REFS)
        assert isinstance(page.error, ServerError)


def test_nobody_there_is_said_after_the_tries():
    with Client("127.0.0.1:1", retries=1) as client:
        with pytest.raises(ServerError, match="UNAVAILABLE"):
            client.colorize(PAGES[0], REFS)
        with pytest.raises(ServerError, match="UNAVAILABLE"):
            list(client.colorize_sequence(PAGES, REFS))


def test_a_deadline_ends_a_call():
    with running(make=slow(0.1)) as found, Client(found.address, timeout_s=0.5, retries=0) as client:
        with pytest.raises(ServerError) as caught:
            client.colorize(PAGES[0], REFS, ColorizeOptions(steps=200))
        assert caught.value.code in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")


def test_the_user_can_stop_it():
    with running(make=slow(0.05)) as found, Client(found.address) as client:
        scheduler = found.server.shop.scheduler
        with pytest.raises(Cancelled):
            client.colorize(
                PAGES[0], REFS, ColorizeOptions(steps=1000), cancelled=lambda: scheduler.snapshot().slots_used > 0
            )
        deadline = time.monotonic() + 10
        while found.server.shop.scheduler.snapshot().running:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_call_that_breaks_is_taken_up_again_with_what_was_under_way(here, tmp_path):
    got = []
    with running() as first:
        port = first.server.port
        client = Client(f"127.0.0.1:{port}", retries=8)
        run = client.colorize_sequence(PAGES, REFS, OPTIONS, ahead=1)
        got.append(next(run))
        first.do(first.server.stop(0))
        first.server.port = 0  # stopped
    with running(port=port), client:
        got.extend(run)
    for one, expected in zip(got, here, strict=True):
        same(one, expected)


def test_tls_and_tokens(tmp_path):
    files = certificates(tmp_path)
    (tmp_path / "tokens").write_text("studio " + "t" * 20)
    given = {"tls_cert": str(files["server"]), "tls_key": str(files["server_key"]), "tokens": str(tmp_path / "tokens")}
    with running(tls_client_ca=str(files["ca"]), **given) as found:
        pair = {"cert": files["client"], "key": files["client_key"]}
        with Client(found.address, ca=files["ca"], token="t" * 20, **pair) as client:
            assert client.colorize(PAGES[0], REFS).style == "gray"
        with Client(found.address, ca=files["ca"], token="x" * 20, **pair) as client:
            with pytest.raises(ServerError, match="token") as caught:
                client.info()
            assert caught.value.code == "UNAUTHENTICATED"
    with pytest.raises(OptionError, match=r"none\.pem"):
        Client("127.0.0.1:1", ca=tmp_path / "none.pem")
    assert Connection("a:1", token="x").metadata() == (("authorization", "Bearer x"),)


def test_waits_grow_and_only_for_what_may_pass():
    refused = wire.error_of(later(codes.RESOURCE_EXHAUSTED, "full", 2.0).status)
    assert 2.0 <= wire.wait_before(refused, 0) <= 2.5 and 4.0 <= wire.wait_before(refused, 2) <= 5.0
    gone = wire.error_of(make_status(codes.UNAVAILABLE, "gone"))
    assert 0.2 <= wire.wait_before(gone, 0) <= 0.25 and wire.wait_before(gone, 30) <= 12.5
    for code in (codes.INVALID_ARGUMENT, codes.INTERNAL, codes.RESOURCE_EXHAUSTED, codes.DEADLINE_EXCEEDED):
        assert wire.wait_before(wire.error_of(make_status(code, "x")), 0) is None


def test_options_survive_the_way_there_and_back():
    from colorflow_server import convert

    full = ColorizeOptions(
        steps=7,
        guidance_scale=2.5,
        seed=2**64 - 1,
        style="lineart",
        fit="crop",
        luminance="lines",
        saturation=0.0,
        context="blend",
        chroma_layer=True,
        pinned=("a",),
        banned=("b",),
        preview_every=3,
        size=(64, 96),
        guidance_steps=0,
        decode_margin=8,
        guider_steps=4,
    )
    for options in (full, ColorizeOptions()):
        assert convert.options(wire.options(options)) == options
