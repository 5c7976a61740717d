"""Everything a client can do wrong: a status of the table in docs/serving.md, and the server serves on."""

import asyncio
import concurrent.futures
import io
import os
import random
import socket
import struct
import time
import zlib

import grpc
import numpy as np
import pytest
from colorflow_server.calls import CALL, Call
from colorflow_server.events import DeadlineExceeded, Refused
from colorflow_server.pb import colorflow_pb2 as pb
from colorflow_server.sequence import Sequence
from colorflow_server.status import details_of, status_of
from google.rpc.error_details_pb2 import BadRequest, ResourceInfo, RetryInfo
from PIL import Image
from server_tools import Plain, failure, png, references, request, running, slow, stub

from colorflow_rt import errors

SECONDS = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(
        sets=str(tmp_path_factory.mktemp("sets")), max_message_mib=1, max_held_mib=1, max_pixels=1 << 20
    ) as found:
        yield found


@pytest.fixture
def service(server):
    """A stock client; afterwards the server still colours a page, and holds nothing."""
    with stub(server.address) as found:
        yield found
        assert found.Colorize(request(), timeout=SECONDS).result.image.encoded
        deadline = time.monotonic() + 5
        while server.server.shop.held.bytes or server.server.shop.scheduler.snapshot().running:
            assert time.monotonic() < deadline, server.server.shop.held.bytes
            time.sleep(0.02)


def field_of(status):
    return details_of(status, BadRequest).field_violations[0].field


OPTIONS = [
    ({"steps": 0}, "options.steps"),
    ({"steps": 1001}, "options.steps"),
    ({"guidance_scale": float("nan")}, "options.guidance_scale"),
    ({"guidance_scale": -1.0}, "options.guidance_scale"),
    ({"saturation": float("inf")}, "options.saturation"),
    ({"style": 77}, "options.style"),
    ({"fit": 9}, "options.fit"),
    ({"luminance": -4}, "options.luminance"),
    ({"context": 12}, "options.context"),
    ({"preview_every": 2000}, "options.preview_every"),
    ({"preview_every": 1}, "options.preview_every"),
    ({"pinned": [""]}, "options.pinned"),
    ({"pinned": ["nobody"]}, "options.pinned"),
    ({"pinned": ["ref0"], "banned": ["ref0"]}, "options"),
    ({"size": {"width": 0, "height": 64}}, "options.size"),
    ({"size": {"width": 65, "height": 64}}, "options.size"),
]


@pytest.mark.parametrize(("given", "field"), OPTIONS)
def test_options_out_of_range(service, given, field):
    code, message, status = failure(lambda: service.Colorize(request(options=pb.ColorizeOptions(**given))))
    assert (code, field_of(status)) == ("INVALID_ARGUMENT", field), message
    start = pb.SequenceStart(options=pb.ColorizeOptions(**given))
    if field in ("options.style", "options.steps"):
        code, _, status = failure(
            lambda: list(service.ColorizeSequence(iter([pb.ColorizeSequenceRequest(start=start)])))
        )
        assert (code, field_of(status)) == ("INVALID_ARGUMENT", field)


def bomb(side=60_000):
    """A PNG of a few KB that claims to be enormous."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(4096))) + chunk(b"IEND", b"")
    )


def animation():
    frames = [Image.fromarray(np.full((32, 32), tone, np.uint8)) for tone in (0, 255)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


PICTURES = {
    "no picture": (pb.Image(encoded=b"%PDF-1.7 nothing"), "not a PNG"),
    "truncated": (pb.Image(encoded=png()[:-30]), "truncated or damaged"),
    "bomb": (pb.Image(encoded=bomb()), "over the limit"),
    "tiny": (pb.Image(encoded=png(size=(8, 8))), "under 16 pixels"),
    "animated": (pb.Image(encoded=animation()), "animation"),
    "empty": (pb.Image(), "is empty"),
    "no bytes": (pb.Image(encoded=b""), "is empty"),
    "long name": (pb.Image(name="x" * 300, encoded=png()), "characters"),
    "array without type": (pb.Image(array=pb.Array(shape=[32, 32], data=bytes(1024))), "data_type"),
    "array too short": (pb.Image(array=pb.Array(shape=[32, 32], data_type=1, data=bytes(9))), "expected 1024"),
    "array of one side": (pb.Image(array=pb.Array(shape=[32], data_type=1, data=bytes(32))), "shape"),
    "array of no side": (pb.Image(array=pb.Array(shape=[0, 32], data_type=1)), "shape"),
    "array of huge sides": (pb.Image(array=pb.Array(shape=[2**32 - 1] * 3, data_type=1)), "shape"),
    "array of five channels": (pb.Image(array=pb.Array(shape=[16, 16, 5], data_type=1, data=bytes(1280))), "[H,W"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pages_that_are_none(service, name):
    page, said = PICTURES[name]
    code, message, status = failure(lambda: service.Colorize(request(page=page)))
    assert code == "INVALID_ARGUMENT" and said in message and "Traceback" not in message
    assert field_of(status).startswith(("page", "image"))


@pytest.mark.parametrize("name", PICTURES)
def test_references_that_are_none(service, name):
    inline = pb.InlineReferences(images=[PICTURES[name][0]])
    code, message, _ = failure(lambda: service.Colorize(request(inline_references=inline)))
    assert code == "INVALID_ARGUMENT" and PICTURES[name][1] in message
    target = pb.AddReferencesRequest(target=pb.AddTarget(set="some", create=True))
    add = iter([target, pb.AddReferencesRequest(image=PICTURES[name][0])])
    try:
        report = service.AddReferences(add)
    except grpc.RpcError as error:
        assert error.code().name == "INVALID_ARGUMENT"
    else:
        assert len(report.refused) == 1 and not report.added


NAMES = ["", ".", "..", "../escape", "a/b", "x" * 65, "-\n", "ä"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_sets_that_are_none(service, server, name):
    calls = [
        lambda: service.CreateReferenceSet(pb.CreateReferenceSetRequest(name=name)),
        lambda: service.DeleteReferenceSet(pb.DeleteReferenceSetRequest(name=name)),
        lambda: service.ListReferences(pb.ListReferencesRequest(set=name)),
        lambda: service.Colorize(request(reference_set=name)),
    ]
    for call in calls:
        code, message, _ = failure(call)
        assert code == "INVALID_ARGUMENT" and "use 1 to 64" in message


def test_what_is_not_there_or_there_already(service):
    cases = [
        (lambda: service.ListReferences(pb.ListReferencesRequest(set="none")), "reference set", "none"),
        (lambda: service.Colorize(request(reference_set="none")), "reference set", "none"),
        (lambda: service.DeleteReferenceSet(pb.DeleteReferenceSetRequest(name="none")), "reference set", "none"),
        (lambda: service.Colorize(request(pack="none")), "pack", "none"),
        (lambda: service.SearchReferences(pb.SearchReferencesRequest(set="x", pack="no")), "pack", "no"),
        (lambda: service.GetReference(pb.GetReferenceRequest(set="there", id=7)), "reference", "there/7"),
        (lambda: service.RemoveReferences(pb.RemoveReferencesRequest(set="there", ids=[2**63])), "reference", None),
    ]
    service.CreateReferenceSet(pb.CreateReferenceSetRequest(name="there"))
    for call, kind, name in cases:
        code, _, status = failure(call)
        resource = details_of(status, ResourceInfo)
        assert code == "NOT_FOUND" and resource.resource_type == kind and name in (None, resource.resource_name)
    code, _, status = failure(lambda: service.CreateReferenceSet(pb.CreateReferenceSetRequest(name="there")))
    assert code == "ALREADY_EXISTS" and details_of(status, ResourceInfo).resource_name == "there"
    code, message, _ = failure(lambda: service.Colorize(request(reference_set="there")))
    assert code == "FAILED_PRECONDITION", message  # an empty set


def page(id="a", **others):
    return pb.ColorizeSequenceRequest(page=pb.SequencePage(id=id, image=pb.Image(encoded=png()), **others))


START = pb.ColorizeSequenceRequest(start=pb.SequenceStart(options=pb.ColorizeOptions(steps=2)))
WITH_SET = pb.ColorizeSequenceRequest(start=pb.SequenceStart(reference_set="there"))
REFERENCE = pb.ColorizeSequenceRequest(reference=references().images[0])
ORDERS = {
    "nothing": ([], "start"),
    "an empty message": ([pb.ColorizeSequenceRequest()], "message"),
    "no start": ([page()], "page"),
    "a reference first": ([REFERENCE], "reference"),
    "start twice": ([START, START], "start"),
    "no reference": ([START, page()], "reference"),
    "a late reference": ([START, REFERENCE, page(), REFERENCE], "reference"),
    "no id": ([START, REFERENCE, page("")], "page.id"),
    "a long id": ([START, REFERENCE, page("x" * 129)], "page.id"),
    "an odd priority": ([pb.ColorizeSequenceRequest(start=pb.SequenceStart(priority=101))], "priority"),
    "an odd format": ([pb.ColorizeSequenceRequest(start=pb.SequenceStart(output={"format": 44}))], "output.format"),
}


@pytest.mark.parametrize("name", ORDERS)
def test_sequences_out_of_order(service, name):
    messages, field = ORDERS[name]
    code, message, status = failure(lambda: list(service.ColorizeSequence(iter(messages), timeout=SECONDS)))
    assert (code, field_of(status)) == ("INVALID_ARGUMENT", field), message


def test_a_page_id_twice_while_it_is_under_way():
    with running(make=slow(0.1)) as found, stub(found.address) as service:
        call = service.ColorizeSequence(iter([START, REFERENCE, page("a"), page("a")]), timeout=SECONDS)
        code, message, status = failure(lambda: list(call))
        assert (code, field_of(status)) == ("INVALID_ARGUMENT", "page.id") and "'a'" in message


def test_a_page_id_again_once_it_is_through(service):
    def messages():
        yield START
        yield REFERENCE
        yield page("a")
        while not seen:
            time.sleep(0.01)
        yield page("a")

    seen = []
    for message in service.ColorizeSequence(messages(), timeout=SECONDS):
        if message.WhichOneof("event") == "result":
            seen.append(message.page_id)
    assert seen == ["a", "a"]


@pytest.mark.parametrize("seconds", [0, -3])
def test_a_timeout_that_is_none_concerns_its_page_alone(service, seconds):
    messages = [START, REFERENCE, page("a", timeout={"seconds": seconds}), page("b")]
    found = list(service.ColorizeSequence(iter(messages), timeout=SECONDS))
    ends = {m.page_id: m.WhichOneof("event") for m in found if m.WhichOneof("event") in ("error", "result")}
    assert ends == {"a": "error", "b": "result"}


def test_additions_out_of_order(service):
    image, target = pb.AddReferencesRequest(image=references().images[0]), pb.AddReferencesRequest(target={"set": "n"})
    new = pb.AddReferencesRequest(target=pb.AddTarget(set="new", create=True))
    for messages, code in (([], "INVALID_ARGUMENT"), ([image], "INVALID_ARGUMENT"), ([target], "NOT_FOUND")):
        assert failure(lambda messages=messages: service.AddReferences(iter(messages)))[0] == code
    assert failure(lambda: service.AddReferences(iter([new, image, new])))[0] == "INVALID_ARGUMENT"
    assert len(service.ListReferences(pb.ListReferencesRequest(set="new")).references) == 1


def test_too_much_at_once(service):
    many = pb.InlineReferences(images=[references().images[0]] * 65)
    code, _, status = failure(lambda: service.Colorize(request(inline_references=many)))
    assert (code, field_of(status)) == ("INVALID_ARGUMENT", "inline_references")
    assert failure(lambda: service.Colorize(request(priority=1000)))[0] == "INVALID_ARGUMENT"
    assert failure(lambda: service.SearchReferences(pb.SearchReferencesRequest(count=101)))[0] == "INVALID_ARGUMENT"
    large = pb.Image(encoded=os.urandom(2 << 20))  # over the limit of one message: said by the library, no details
    assert failure(lambda: service.Colorize(request(page=large)))[0] == "RESOURCE_EXHAUSTED"


def test_requests_that_are_held_have_a_limit():
    with running(make=Plain, max_message_mib=1, max_held_mib=1) as found, stub(found.address) as service:
        found.server.shop.scheduler.gate.clear()
        page = pb.Image(array=pb.Array(shape=[700, 1000], data_type=1, data=bytes(700_000)))
        first = service.Colorize.future(request(page=page))
        while not found.server.shop.held.bytes:
            time.sleep(0.01)
        code, message, status = failure(lambda: service.Colorize(request(page=page)))
        assert code == "RESOURCE_EXHAUSTED" and "MiB" in message and details_of(status, RetryInfo).retry_delay.seconds
        found.server.shop.scheduler.gate.set()
        assert first.result().result.style and found.server.shop.held.bytes == 0


def test_a_full_queue_refuses_at_once_and_says_when():
    with running(make=slow(0.2), max_queue=1) as found, stub(found.address) as service:
        calls = [service.Colorize.future(request(options=pb.ColorizeOptions(steps=50))) for _ in range(8)]
        time.sleep(0.5)
        seconds = []
        for _ in range(10):
            start = time.monotonic()
            code, _, status = failure(lambda: service.Colorize(request()))
            seconds.append(time.monotonic() - start)
        assert min(seconds) < 0.05, seconds
        wait = details_of(status, RetryInfo).retry_delay.ToTimedelta().total_seconds()
        assert code == "RESOURCE_EXHAUSTED" and wait > 0
        for call in calls:
            call.cancel()
        page_refused = list(service.ColorizeSequence(iter([START, REFERENCE, page()]), timeout=SECONDS))[-1]
        assert page_refused.WhichOneof("event") in ("result", "error")


def test_a_deadline_ends_the_page_and_frees_its_slot():
    with running(make=slow(0.05)) as found, stub(found.address) as service:
        long = request(options=pb.ColorizeOptions(steps=1000))
        assert failure(lambda: service.Colorize(long, timeout=0.5))[0] in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
        deadline = time.monotonic() + 5
        while (state := found.server.shop.scheduler.snapshot()).running or state.slots_used:
            assert time.monotonic() < deadline, state
            time.sleep(0.02)


def test_a_cancelled_call_frees_its_slot():
    with running(make=slow(0.05)) as found, stub(found.address) as service:
        scheduler = found.server.shop.scheduler
        call = service.Colorize.future(request(options=pb.ColorizeOptions(steps=1000)))
        sequence = service.ColorizeSequence(iter([START, REFERENCE, page(options=pb.ColorizeOptions(steps=1000))]))
        while scheduler.snapshot().slots_used < 2:
            time.sleep(0.02)
        call.cancel()
        sequence.cancel()
        deadline = time.monotonic() + 5
        while scheduler.snapshot().running:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert scheduler.snapshot().cancelled == 2 and found.server.shop.held.bytes == 0
        counted = [line["code"] for line in found.log if line["event"] == "call"]
        assert counted == ["CANCELLED", "CANCELLED"]


def test_calls_cancelled_at_any_moment_leave_nothing():
    """A cancellation may arrive in the middle of everything, also as a write ends."""
    random.seed(2)
    with running(make=slow(0.001), max_queue=1000) as found, stub(found.address) as service:
        long = pb.ColorizeOptions(steps=1000, preview_every=1)
        for number in range(60):
            call = service.ColorizeSequence(iter([START, REFERENCE, page("a", options=long), page("b", options=long)]))
            if number % 2:
                next(call)
            time.sleep(random.uniform(0, 0.03))
            call.cancel()
        deadline = time.monotonic() + 20
        shop = found.server.shop
        while shop.scheduler.snapshot().running or shop.scheduler.snapshot().waiting or shop.held.bytes:
            assert time.monotonic() < deadline, shop.scheduler.snapshot()
            time.sleep(0.05)


def test_a_cancellation_that_comes_while_a_call_ends_by_an_error_leaves_nothing():
    """The write fails first, for the client is gone; then, as the call's end waits for its reader, it is cancelled."""

    class Gone:
        async def write(self, message):
            raise grpc.aio.UsageError("the client is gone")

        def time_remaining(self):
            return None

    async def call(shop):
        async def messages():
            for message in (START, REFERENCE, page("a", options=pb.ColorizeOptions(steps=1000))):
                yield message
            try:
                await asyncio.Event().wait()
            finally:
                own.cancel()

        own = asyncio.current_task()
        CALL.set(Call("id", "ColorizeSequence", "somebody"))
        await Sequence(shop, messages(), Gone()).run()

    with running(make=slow(0.001)) as found:
        shop = found.server.shop
        with pytest.raises(concurrent.futures.CancelledError):
            found.do(call(shop))
        assert shop.held.bytes == 0
        deadline = time.monotonic() + SECONDS
        while not shop.scheduler.snapshot().cancelled:
            assert time.monotonic() < deadline, shop.scheduler.snapshot()
            time.sleep(0.01)


def test_a_stream_that_lies_idle_is_ended():
    def idle(first):
        yield first
        time.sleep(1.5)

    with running(idle_timeout_s=0.3) as found, stub(found.address) as service:
        assert failure(lambda: list(service.ColorizeSequence(idle(START))))[0] == "DEADLINE_EXCEEDED"
        target = pb.AddReferencesRequest(target=pb.AddTarget(set="x", create=True))
        assert failure(lambda: service.AddReferences(idle(target)))[0] == "DEADLINE_EXCEEDED"


def test_more_calls_than_allowed_are_refused():
    with running(make=Plain, max_calls=3) as found, stub(found.address) as service:
        found.server.shop.scheduler.gate.clear()
        calls = [service.Colorize.future(request()) for _ in range(3)]
        time.sleep(0.3)
        assert failure(lambda: service.GetServerInfo(pb.GetServerInfoRequest()))[0] == "RESOURCE_EXHAUSTED"
        found.server.shop.scheduler.gate.set()
        assert all(call.result().result.style == "gray" for call in calls)


def test_an_error_that_nobody_meant_is_internal_and_tells_nothing():
    class Broken(Plain):
        def submit(self, job):
            raise RuntimeError("a secret")

    with running(make=Broken) as found, stub(found.address) as service:
        code, message, _ = failure(lambda: service.Colorize(request()))
        assert code == "INTERNAL" and "secret" not in message and "RuntimeError" in message
        found_page = list(service.ColorizeSequence(iter([START, REFERENCE, page()])))[-1]
        assert found_page.error.code == 13 and "secret" not in found_page.error.message
        assert any("a secret" in line.get("traceback", "") for line in found.log)


def test_garbage_on_the_wire(server, service):
    random.seed(1)
    host, _, port = server.address.partition(":")
    for data in (
        b"GET / HTTP/1.1\r\n\r\n",
        random.randbytes(5000),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
    ):
        with socket.create_connection((host, int(port)), timeout=2) as connection:
            connection.sendall(data)
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/colorflow.v1.Colorizer/Colorize")
        codes = {failure(lambda: call(random.randbytes(random.randrange(200)), timeout=SECONDS))[0] for _ in range(100)}
        assert codes <= {"INTERNAL", "INVALID_ARGUMENT", "UNKNOWN", "NOT_FOUND"}
        assert failure(lambda: channel.unary_unary("/colorflow.v1.Colorizer/Nothing")(b""))[0] == "UNIMPLEMENTED"


def test_a_thousand_connections(server, service):
    host, _, port = server.address.partition(":")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    connections = []
    try:
        for _ in range(1000):
            connection = socket.create_connection((host, int(port)), timeout=10)
            connection.sendall(preface)
            connections.append(connection)
        assert service.Colorize(request(), timeout=SECONDS).result.style == "gray"
    finally:
        for connection in connections:
            connection.close()


TABLE = [
    (errors.OptionError("steps must be"), "INVALID_ARGUMENT"),
    (errors.ImageError("x"), "INVALID_ARGUMENT"),
    (errors.ReferencesError("x"), "FAILED_PRECONDITION"),
    (errors.PackError("x"), "FAILED_PRECONDITION"),
    (errors.UnknownPackError("x"), "NOT_FOUND"),
    (errors.DamagedPackError("x"), "DATA_LOSS"),
    (errors.EngineError("x"), "INTERNAL"),
    (errors.OutputError("x"), "FAILED_PRECONDITION"),
    (errors.MissingExtraError("x"), "FAILED_PRECONDITION"),
    (errors.UnavailableError("x"), "FAILED_PRECONDITION"),
    (errors.Cancelled("x"), "CANCELLED"),
    (Refused("queue_full", "x", 0.25), "RESOURCE_EXHAUSTED"),
    (Refused("deadline", "x", 0.25), "RESOURCE_EXHAUSTED"),
    (Refused("draining", "x", 0.25), "UNAVAILABLE"),
    (DeadlineExceeded("x"), "DEADLINE_EXCEEDED"),
    (MemoryError(), "RESOURCE_EXHAUSTED"),
]


@pytest.mark.parametrize(("error", "code"), TABLE)
def test_every_error_has_its_status(error, code):
    status = status_of(error)
    assert status.code == getattr(grpc.StatusCode, code).value[0] and status.message
    retry = code in ("RESOURCE_EXHAUSTED", "UNAVAILABLE")
    assert (details_of(status, RetryInfo) is not None) == retry
    known = {type(one) for one, _ in TABLE}
    assert {e for e in vars(errors).values() if isinstance(e, type)} - known == {errors.ColorflowError}


def test_a_message_is_never_too_long_for_metadata():
    status = status_of(errors.OptionError("steps " + "x" * 100_000))
    assert len(status.SerializeToString()) < 4096
    assert status_of(ValueError("x")) is None
