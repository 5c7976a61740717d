"""The service over real sockets, on the fake engine: pages, sequences, sets, and what everybody may ask."""

import asyncio
import json
import time
import urllib.request
from dataclasses import asdict, replace

import grpc
import numpy as np
import pytest
from colorflow_server.events import Cancelled, Preview
from colorflow_server.outbox import Outbox
from colorflow_server.pb import colorflow_pb2 as pb
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from server_tools import CONFIG, Plain, failure, pixels, png, references, request, running, slow, stub

from colorflow_rt import ColorizeOptions, Colorizer
from colorflow_rt.pixels import read_picture

OPTIONS = ColorizeOptions(steps=3, chroma_layer=True, saturation=1.2)
MESSAGE = pb.ColorizeOptions(steps=3, chroma_layer=True, saturation=1.2)
REFS = [("ref0.png", png(100, colour=True)), ("ref1.png", png(101, colour=True))]
START = pb.ColorizeSequenceRequest(start=pb.SequenceStart(options=pb.ColorizeOptions(steps=4)))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(sets=str(tmp_path_factory.mktemp("sets")), metrics_port=free_port()) as found:
        yield found


@pytest.fixture
def service(server):
    with stub(server.address) as found:
        yield found


def free_port():
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def page(id, seed=0, **others):
    return pb.ColorizeSequenceRequest(page=pb.SequencePage(id=id, image=pb.Image(encoded=png(seed)), **others))


def reference(number=0):
    return pb.ColorizeSequenceRequest(reference=references(number + 1).images[number])


def events(service, *messages):
    """[(page, event, message)] of a sequence."""
    return [(m.page_id, m.WhichOneof("event"), m) for m in service.ColorizeSequence(iter(messages))]


def test_a_page_is_the_same_as_in_process(service):
    output = pb.Output(model_image=True, canvas=True)
    answer = service.Colorize(request(inline_references=references(2), options=MESSAGE, output=output)).result
    here = Colorizer("fake").colorize(png(), REFS, OPTIONS)
    for name in ("image", "chroma", "model_image", "canvas"):
        np.testing.assert_array_equal(pixels(getattr(answer, name)), getattr(here, name))
    assert answer.style == here.style and set(answer.seconds) == set(here.seconds)
    found = [(m.row, m.column, m.quadrant, m.rank, m.reference, m.patch, m.window) for m in answer.matches]
    assert found == [(*m.cell, m.quadrant, m.rank, m.reference, m.patch, m.window) for m in here.matches]
    assert [m.similarity for m in answer.matches] == pytest.approx([m.similarity for m in here.matches])


def test_a_picture_that_cannot_be_encoded_ends_its_page_and_not_the_server(service, monkeypatch):
    def broken(*_):
        raise RuntimeError("no PNG today")

    with monkeypatch.context() as patch:
        patch.setattr("colorflow_server.convert.result", broken)
        code, _, _ = failure(lambda: service.Colorize(request()))
        assert code == "INTERNAL"
        told = events(service, START, reference(), page("a"))
        assert [(id, kind) for id, kind, _ in told][-1] == ("a", "error")
        assert told[-1][2].error.code == grpc.StatusCode.INTERNAL.value[0]
    assert service.Colorize(request()).result.image.encoded


@pytest.mark.parametrize("format", [pb.IMAGE_FORMAT_PNG, pb.IMAGE_FORMAT_WEBP, pb.IMAGE_FORMAT_ARRAY])
def test_exact_formats_are_exact(service, format):
    image = service.Colorize(request(output=pb.Output(format=format))).result.image
    array = image.array
    got = np.frombuffer(array.data, np.uint8).reshape(tuple(array.shape)) if array.data else pixels(image)
    np.testing.assert_array_equal(got, pixels(service.Colorize(request()).result.image))
    assert image.encoded[:4] == {pb.IMAGE_FORMAT_PNG: b"\x89PNG", pb.IMAGE_FORMAT_WEBP: b"RIFF"}.get(format, b"")


def test_jpeg_is_near(service):
    image = service.Colorize(request(output=pb.Output(format=pb.IMAGE_FORMAT_JPEG))).result.image
    exact = pixels(service.Colorize(request()).result.image).astype(int)
    assert image.encoded[:3] == b"\xff\xd8\xff" and abs(pixels(image) - exact).mean() < 12


@pytest.mark.parametrize(("data_type", "dtype", "factor"), [(1, "u1", 1), (2, "<u2", 257)])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_pages_come_as_arrays_too(service, data_type, dtype, factor, channels):
    gray = read_picture(png()).rgb[..., 0].astype(dtype) * factor
    gray = gray if channels is None else np.repeat(gray[..., None], channels, axis=2)
    array = pb.Array(shape=gray.shape, data_type=data_type, data=gray.tobytes())
    answer = service.Colorize(request(page=pb.Image(array=array)))
    np.testing.assert_array_equal(pixels(answer.result.image), pixels(service.Colorize(request()).result.image))


def test_a_page_in_colour_comes_back_as_it_is(service):
    answer = service.Colorize(request(page=pb.Image(encoded=png(3, colour=True)))).result
    assert answer.passed_through and answer.style == "color" and not answer.matches
    np.testing.assert_array_equal(pixels(answer.image), read_picture(png(3, colour=True)).rgb)


def test_a_sequence_tells_of_each_page_and_ends(service):
    found = events(service, START, reference(), page("a", 1), page("b", 2, options=pb.ColorizeOptions(steps=2)))
    for id in "ab":
        kinds = [kind for name, kind, _ in found if name == id]
        assert kinds[0] == "accepted" and kinds[-1] == "result" and "retrieval" in kinds
    results = {name: message.result for name, kind, message in found if kind == "result"}
    for id, seed, steps in (("a", 1, 4), ("b", 2, 2)):
        here = Colorizer("fake").colorize(png(seed), [REFS[0]], ColorizeOptions(steps=steps))
        np.testing.assert_array_equal(pixels(results[id].image), here.image)


def test_previews_come_while_a_page_is_made():
    start = pb.SequenceStart(options=pb.ColorizeOptions(steps=6, preview_every=2))
    with running(make=slow()) as found, stub(found.address) as service:
        got = events(service, pb.ColorizeSequenceRequest(start=start), reference(), page("a"), page("b"))
    for id in "ab":
        previews = [message.preview for name, kind, message in got if name == id and kind == "preview"]
        assert [(p.step, p.steps) for p in previews][:2] == [(2, 6), (4, 6)]
        assert pixels(previews[0].image).shape[2] == 3
    assert [kind for name, kind, _ in got if name == "a"][-1] == "result"


class Flood(Plain):
    """Shows every page very often before it is done."""

    shown = 4000

    def _one(self, job, cancelled):
        image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
        for step in range(self.shown):
            job.on_event(Preview(step, self.shown, image))
            time.sleep(0.0001)
        super()._one(job, cancelled)


def test_a_client_that_reads_slowly_gets_the_latest_previews_and_the_result():
    with running(make=Flood) as found, stub(found.address) as service:
        call = service.ColorizeSequence(iter([START, reference(), page("a")]))
        time.sleep(1.0)
        got = [m.WhichOneof("event") for m in call]
        dropped = found.server.shop.metrics.dropped._value.get()
    assert got[-1] == "result" and dropped > 1000
    assert got.count("preview") + dropped >= Flood.shown


def test_of_each_page_one_preview_waits_and_none_after_its_end():
    async def take():
        outbox, dropped = Outbox(lambda: dropped.append(1)), []
        image = np.zeros((1, 1, 3), np.uint8)
        for step in range(5):
            for name in "ab":
                outbox.post(name, Preview(step, 5, image))
        outbox.post("a", Cancelled(4))
        await asyncio.sleep(0)
        got = [await outbox.next() for _ in range(len(outbox))]
        outbox.wake()
        assert await outbox.next() is None
        return [(name, event.step) for name, event in got], len(dropped)

    assert asyncio.run(take()) == ([("b", 4), ("a", 4)], 9)


def test_one_bad_page_does_not_end_a_sequence(service):
    bad = pb.ColorizeSequenceRequest(page=pb.SequencePage(id="bad", image=pb.Image(encoded=b"nonsense")))
    empty = pb.ColorizeSequenceRequest(page=pb.SequencePage(id="empty"))
    found = events(service, START, reference(), page("a"), bad, empty, page("c", 2))
    ends = {name: (kind, message) for name, kind, message in found if kind in ("result", "error")}
    assert {name: kind for name, (kind, _) in ends.items()} == {
        "a": "result",
        "bad": "error",
        "empty": "error",
        "c": "result",
    }
    for name in ("bad", "empty"):
        assert ends[name][1].error.code == 3 and ends[name][1].error.details[0].type_url.endswith("BadRequest")


def test_a_page_of_a_sequence_can_be_cancelled_and_given_a_deadline():
    def messages(plain):
        yield START
        yield reference()
        yield page("leave")
        yield page("late", timeout={"seconds": 60})
        yield pb.ColorizeSequenceRequest(cancel=pb.CancelPage(id="leave"))
        yield pb.ColorizeSequenceRequest(cancel=pb.CancelPage(id="nobody"))
        time.sleep(0.1)
        plain.gate.set()

    with running(make=Plain) as found, stub(found.address) as service:
        plain = found.server.shop.scheduler
        plain.gate.clear()
        started = time.monotonic()
        ends = {
            m.page_id: m
            for m in service.ColorizeSequence(messages(plain))
            if m.WhichOneof("event") in ("result", "error")
        }
        assert ends["leave"].error.code == grpc.StatusCode.CANCELLED.value[0]
        assert ends["late"].WhichOneof("event") == "result"
        assert plain.jobs[1].deadline == pytest.approx(started + 60, abs=20) and plain.jobs[0].deadline is None


def test_pages_under_way_are_limited_and_the_client_is_held_back():
    with running(make=Plain, max_pages_in_flight=2) as found, stub(found.address) as service:
        plain = found.server.shop.scheduler
        plain.gate.clear()
        call = service.ColorizeSequence(iter([START, reference(), *(page(str(n), n) for n in range(6))]))
        time.sleep(0.5)
        assert len(plain.jobs) == 2
        plain.gate.set()
        assert [m.page_id for m in call if m.WhichOneof("event") == "result"] == [str(n) for n in range(6)]
        assert found.server.shop.held.bytes == 0


def test_sets_live_through_the_protocol(service):
    service.CreateReferenceSet(pb.CreateReferenceSetRequest(name="hero"))
    pictures = [pb.AddReferencesRequest(image=image) for image in references(2).images]
    target = pb.AddReferencesRequest(target=pb.AddTarget(set="hero", tag="Aki"))
    broken = pb.AddReferencesRequest(image=pb.Image(name="x.png", encoded=b"no"))
    report = service.AddReferences(iter([target, *pictures, pictures[0], broken]))
    assert [r.name for r in report.added] == ["ref0.png", "ref1.png"]
    assert [r.id for r in report.duplicates] == [report.added[0].id]
    assert [(r.name, "not a PNG" in r.reason) for r in report.refused] == [("x.png", True)]
    assert service.ListReferenceSets(pb.ListReferenceSetsRequest()).names == ["hero"]
    listed = service.ListReferences(pb.ListReferencesRequest(set="hero")).references
    assert listed == report.added and listed[0].tag == "Aki" and listed[0].size == pb.Size(width=48, height=64)
    got = service.GetReference(pb.GetReferenceRequest(set="hero", id=listed[1].id))
    np.testing.assert_array_equal(pixels(got.image), read_picture(REFS[1][1]).rgb)
    hits = service.SearchReferences(pb.SearchReferencesRequest(set="hero", page=request().page, count=2)).hits
    assert [(h.quadrant, h.rank) for h in hits] == [(q, r) for q in range(4) for r in range(2)]
    with_set = service.Colorize(request(reference_set="hero")).result
    inline = service.Colorize(request(inline_references=references(2))).result
    assert with_set.image == inline.image
    assert service.RemoveReferences(pb.RemoveReferencesRequest(set="hero", ids=[listed[0].id])).removed == 1
    assert len(service.ListReferences(pb.ListReferencesRequest(set="hero")).references) == 1
    service.DeleteReferenceSet(pb.DeleteReferenceSetRequest(name="hero"))
    assert not service.ListReferenceSets(pb.ListReferenceSetsRequest()).names


def test_a_broken_off_upload_keeps_what_it_added(service):
    def messages():
        yield pb.AddReferencesRequest(target=pb.AddTarget(set="half", create=True))
        yield pb.AddReferencesRequest(image=references().images[0])
        deadline = time.monotonic() + 10
        while (time.monotonic() < deadline and "half" not in stored()) or not count():
            time.sleep(0.02)
        call.cancel()
        yield pb.AddReferencesRequest(image=references(2).images[1])

    def stored():
        return service.ListReferenceSets(pb.ListReferenceSetsRequest()).names

    def count():
        return len(service.ListReferences(pb.ListReferencesRequest(set="half")).references)

    call = service.AddReferences.future(messages())
    with pytest.raises(grpc.FutureCancelledError):
        call.result()
    assert [r.name for r in service.ListReferences(pb.ListReferencesRequest(set="half")).references] == ["ref0.png"]
    service.DeleteReferenceSet(pb.DeleteReferenceSetRequest(name="half"))


def test_the_server_says_what_it_is(service):
    info = service.GetServerInfo(pb.GetServerInfoRequest())
    assert info.limits.max_message_bytes == 32 * 1024 * 1024 and info.limits.max_queue == CONFIG.max_queue
    assert info.backend == "fake" and info.uptime_seconds > 0 and not info.draining and info.load.slots == 2
    (pack,) = service.ListPacks(pb.ListPacksRequest()).packs
    assert pack == info.packs[0] and pack.name == "fake" and pack.styles == [1, 2, 3] and pack.steps == 4
    from colorflow_rt.pack_config import PackConfig

    assert asdict(PackConfig.from_toml(pack.toml)) == asdict(Colorizer("fake").pack.config)


def test_a_stock_client_finds_its_way_by_reflection_and_health(server):
    with grpc.insecure_channel(server.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {"colorflow.v1.Colorizer", "grpc.health.v1.Health"} <= set(database.get_services())
        method = DescriptorPool(database).FindServiceByName("colorflow.v1.Colorizer").FindMethodByName("Colorize")
        assert method.input_type.full_name == "colorflow.v1.ColorizeRequest"
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "colorflow.v1.Colorizer"):
            status = health.Check(health_pb2.HealthCheckRequest(service=service)).status
            assert status == health_pb2.HealthCheckResponse.SERVING
        code, _, _ = failure(lambda: health.Check(health_pb2.HealthCheckRequest(service="other")))
        assert code == "NOT_FOUND"


def test_health_follows_the_engine():
    with running(make=Plain) as found, grpc.insecure_channel(found.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        found.server.shop.scheduler.alive = False
        deadline = time.monotonic() + 5
        while health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        found.server.shop.scheduler.alive = True


def metrics(server):
    """{name{labels}: value} of the metrics page."""
    port = server.server._config.metrics_port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}


def test_metrics_and_log_count_what_clients_saw(server, service):
    def count(name):
        return metrics(server).get(name, 0.0)

    ok, bad = 'colorflow_requests_total{code="OK",method="Colorize"}', 'code="INVALID_ARGUMENT",method="Colorize"'
    names = (ok, f"colorflow_requests_total{{{bad}}}", 'colorflow_pages_total{outcome="finished"}')
    names += ('colorflow_pages_total{outcome="failed"}', 'colorflow_stage_duration_seconds_count{stage="denoise"}')
    before = [count(name) for name in names]
    for _ in range(3):
        service.Colorize(request(), metadata=(("x-request-id", "call-7"),))
    call = service.Colorize.with_call
    _, done = call(request())
    assert len(dict(done.trailing_metadata())["x-request-id"]) == 16
    failure(lambda: service.Colorize(request(page=pb.Image(encoded=b"no"))))
    assert [count(name) - was for name, was in zip(names, before, strict=True)] == [4, 1, 4, 1, 4]
    assert count("colorflow_num_slots") == 2 and count("colorflow_denoise_steps_total") >= 4
    assert count('colorflow_device_memory_bytes{device="cpu"}') > 1e6
    lines = [line for line in server.log if line.get("request_id") == "call-7"]
    assert [line["event"] for line in lines] == ["page", "call"] * 3
    assert lines[1]["code"] == "OK" and lines[1]["client"] == "127.0.0.1" and json.dumps(lines)


def test_traces_have_a_span_for_call_page_and_stages():
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from colorflow_server.tracing import Tracer

    exporter = memory.InMemorySpanExporter()
    with running() as found, stub(found.address) as service:
        tracer = Tracer(exporter=exporter)
        found.server.shop.tracer = found.server._tracer = tracer
        found.server._calls._tracer = tracer
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        service.Colorize(request(), metadata=(("traceparent", parent),))
        tracer._provider.force_flush()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {"Colorize", "page", "queue", "denoise", "vae_decode"} <= set(spans)
    assert spans["page"].parent.span_id == spans["Colorize"].context.span_id
    assert spans["denoise"].parent.span_id == spans["page"].context.span_id
    assert f"{spans['Colorize'].context.trace_id:032x}" == parent.split("-")[1]


def test_the_engine_sees_what_the_options_say(service):
    two = service.Colorize(request(options=pb.ColorizeOptions(steps=2, seed=2**64 - 1)))
    assert two.result.image != service.Colorize(request()).result.image
    crop = pb.ColorizeOptions(steps=2, fit=pb.FIT_CROP, style=pb.STYLE_LINEART, luminance=pb.LUMINANCE_MODEL)
    crop.context, crop.size.width, crop.size.height = pb.CONTEXT_BLEND, 64, 64
    options = ColorizeOptions(
        steps=2, fit="crop", style="lineart", luminance="model", context="blend", size=(64, 64), pinned=("ref1",)
    )
    crop.pinned.append("ref1")
    got = service.Colorize(request(options=crop, inline_references=references(2))).result
    here = Colorizer("fake").colorize(png(), REFS, options)
    np.testing.assert_array_equal(pixels(got.image), here.image)
    assert here.image.tolist() != Colorizer("fake").colorize(png(), REFS, replace(options, fit="pad")).image.tolist()
