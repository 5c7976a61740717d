"""Campaigns on a server in a process of its own: `python benchmarks/reliability_serving.py drain|kill|fuzz --json FILE`

drain  SIGTERM under load: every page that was admitted comes back, health says NOT_SERVING at once, the process ends
       with 0 and leaves no child behind
kill   SIGKILL at a random moment while pages are coloured and a reference set is added to; the next start finds the
       set whole, with every picture whose addition was confirmed, and colours a page from it
fuzz   damaged messages and pictures: no crash, only the statuses of the table, memory under a bound, still serving

Fake engine (fake_server.py). `--json` keeps the state; the same command goes on where it stopped.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
from campaign import color_picture, gray_page, load, save
from colorflow_server.pb import colorflow_pb2 as pb
from colorflow_server.pb.colorflow_pb2_grpc import ColorizerStub
from grpc_health.v1 import health_pb2, health_pb2_grpc
from loadgen import Call, Clients, Plan, open_loop
from serverprocess import ServerProcess

from colorflow_rt.pixels import encode_png

SLOW = {"FAKE_STEP_MS": "10"}
GRACE_S = 20
DRAIN = {"rounds": 0, "admitted": 0, "lost": 0, "refused": 0, "bad_exits": 0, "orphans": 0}
DRAIN_LISTS: dict[str, list[float]] = {"not_serving_s": [], "ended_s": []}
KILL = {"rounds": 0, "confirmed": 0, "missing": 0, "unreadable": 0, "not_serving": 0}
KILL_LISTS: dict[str, list[float]] = {"restart_s": []}
FUZZ = {"rounds": 0, "crashes": 0, "wrong_status": 0, "not_serving": 0, "peak_rss_mb": 0.0, "start_rss_mb": 0.0}
ALLOWED = {"OK", "INVALID_ARGUMENT", "UNIMPLEMENTED", "NOT_FOUND", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"}
RSS_BOUND_MB = 600.0


# Drain


async def drain_round(folder: Path, seed: int) -> dict[str, Any]:
    """Load for a while, SIGTERM, and what became of the pages."""
    chance = random.Random(seed)
    flags = ("--grace-s", str(GRACE_S), "--sets", str(folder / "sets"), "--max-queue", "24")
    with ServerProcess(folder / "log", "fake", SLOW, *flags) as server:
        clients = Clients(server.address, Plan(steps=(4, 10)), seed)
        load_ = asyncio.create_task(open_loop(clients, 20.0, 3.0))
        await asyncio.sleep(chance.uniform(0.5, 2.0))
        children = psutil.Process(server.process.pid).children(recursive=True)
        health = asyncio.create_task(_until_not_serving(server.address))
        await asyncio.sleep(0.2)
        asked, wall = time.monotonic(), time.time()
        ended = asyncio.create_task(asyncio.to_thread(server.terminate, GRACE_S + 20))
        not_serving = await health - asked
        await load_
        seconds = await ended
        await clients.close()
        return _drained(clients.calls, server, not_serving, seconds, children) | {"at": wall}


def _drained(
    calls: list[Call], server: ServerProcess, not_serving: float, seconds: float, children: Any
) -> dict[str, Any]:
    admitted = [call for call in calls if call.accepted_s is not None]
    return {
        "rounds": 1,
        "admitted": len(admitted),
        "lost": sum(not call.finished for call in admitted),
        "refused": sum(call.accepted_s is None for call in calls),
        "bad_exits": int(server.process.returncode != 0),
        "orphans": sum(child.is_running() for child in children),
        "not_serving_s": [round(not_serving, 3)],
        "ended_s": [round(seconds, 3)],
    }


async def _until_not_serving(address: str) -> float:
    """time.monotonic() when a client that watches health knows."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with suppress(grpc.aio.AioRpcError):
            async for answer in stub.Watch(health_pb2.HealthCheckRequest(service="colorflow.v1.Colorizer")):
                if answer.status != health_pb2.HealthCheckResponse.SERVING:
                    break
        return time.monotonic()


# Kill


async def kill_round(folder: Path, seed: int) -> dict[str, Any]:
    """Serve, be killed, serve again from the same sets."""
    chance, known = random.Random(seed), folder / "confirmed.json"
    confirmed: list[str] = json.loads(known.read_text()) if known.exists() else []
    flags = ("--sets", str(folder / "sets"))
    with ServerProcess(folder / "log", "fake", SLOW, *flags) as server:
        clients = Clients(server.address, Plan(steps=(4, 10)), seed)
        work = [
            asyncio.create_task(open_loop(clients, 10.0, 2.0)),
            asyncio.create_task(_add(server.address, seed, confirmed)),
        ]
        await asyncio.sleep(chance.uniform(0.05, 2.0))
        server.process.kill()
        server.process.wait()
        await asyncio.gather(*work, return_exceptions=True)
        await clients.close()
    known.write_text(json.dumps(confirmed))
    start = time.monotonic()
    with ServerProcess(folder / "log", "fake", SLOW, *flags) as server:
        seconds = time.monotonic() - start
        found = await _look(server.address, confirmed)
    return found | {"rounds": 1, "confirmed": len(confirmed), "restart_s": [round(seconds, 3)]}


async def _add(address: str, seed: int, confirmed: list[str]) -> None:
    """Add pictures one call each, noting those that were confirmed, until the server is gone."""
    with suppress(grpc.aio.AioRpcError):
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = ColorizerStub(channel)
            for number in range(100):
                name = f"{seed}-{number}.png"
                picture = pb.Image(name=name, encoded=encode_png(color_picture(1000 * seed + number)))
                target = pb.AddTarget(set="kept", create=True)
                messages = [pb.AddReferencesRequest(target=target), pb.AddReferencesRequest(image=picture)]
                await stub.AddReferences(iter(messages))
                confirmed.append(name)


async def _look(address: str, confirmed: list[str]) -> dict[str, Any]:
    """Whether the set has all that was confirmed, and colours a page."""
    found = {"missing": 0, "unreadable": 0, "not_serving": 0}
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = ColorizerStub(channel)
        try:
            listed = await stub.ListReferences(pb.ListReferencesRequest(set="kept"))
            there = {reference.name for reference in listed.references}
            found["missing"] = sum(name not in there for name in confirmed)
            if listed.references:
                await stub.GetReference(pb.GetReferenceRequest(set="kept", id=listed.references[-1].id))
                page = pb.Image(encoded=encode_png(gray_page()[..., None].repeat(3, axis=2)))
                await stub.Colorize(pb.ColorizeRequest(page=page, reference_set="kept"))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND or confirmed:
                found["unreadable" if error.code() is not grpc.StatusCode.UNAVAILABLE else "not_serving"] = 1
                found["error"] = f"{error.code().name}: {error.details()}"
    return found


# Fuzz

FUZZ_ROUND = 500


async def fuzz_round(folder: Path, seed: int) -> dict[str, Any]:
    """FUZZ_ROUND damaged requests to one server, a few at a time."""
    flags = ("--sets", str(folder / "sets"))
    with ServerProcess(folder / "log", "fake", {"FAKE_STEP_MS": "1"}, *flags) as server:
        answers: list[tuple[str, str]] = []
        start, peak = server.rss_mb(), 0.0
        chance = random.Random(seed)
        async with grpc.aio.insecure_channel(server.address) as channel:
            for _ in range(FUZZ_ROUND // 10):
                answers += await asyncio.gather(*(_fuzzed(channel, chance) for _ in range(10)))
                peak = max(peak, server.rss_mb())
        alive = server.process.poll() is None
        found = await _look(server.address, []) if alive else {"not_serving": 1}
        logged = {line["request_id"]: line["code"] for line in server.lines() if line["event"] == "call"}
    codes = Counter(logged.get(id, code) if code == "CLIENT" else code for id, code in answers)
    wrong = sum(count for code, count in codes.items() if code not in ALLOWED)
    return {
        "rounds": sum(codes.values()),
        "crashes": int(not alive),
        "wrong_status": wrong,
        "not_serving": found["not_serving"],
        "peak_rss_mb": peak,
        "start_rss_mb": start,
        "codes": dict(codes),
    }


async def _fuzzed(channel: Any, chance: random.Random) -> tuple[str, str]:
    """The id and status of one damaged request."""
    method, data = chance.choice(_METHODS)(chance)
    id = f"{chance.getrandbits(64):016x}"
    metadata = (("x-request-id", id),)
    try:
        if method in ("ColorizeSequence", "AddReferences"):
            stream = channel.stream_stream(f"/colorflow.v1.Colorizer/{method}")
            async for _ in stream(iter(data), timeout=60, metadata=metadata):
                pass
        else:
            await channel.unary_unary(f"/colorflow.v1.Colorizer/{method}")(data[0], timeout=60, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        if error.details() == "Internal error from Core":  # the client's library: its stream ended while it wrote
            return id, "CLIENT"
        return id, str(error.code().name)
    return id, "OK"


def _request(chance: random.Random) -> pb.ColorizeRequest:
    size = chance.choice([(64, 96), (96, 64), (16, 16), (24, 300)])
    page = encode_png(gray_page(chance.randrange(9), (size[0] // 8 * 8, size[1] // 8 * 8))[..., None].repeat(3, axis=2))
    references = pb.InlineReferences(images=[pb.Image(encoded=encode_png(color_picture(chance.randrange(9))))])
    options = pb.ColorizeOptions(steps=chance.choice([1, 2]))
    return pb.ColorizeRequest(page=pb.Image(encoded=page), inline_references=references, options=options)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Bits flipped, cut off, a piece doubled, removed or replaced."""
    blob = bytearray(data)
    for _ in range(chance.choice([1, 1, 3, 10])):
        at, end = sorted(chance.randrange(len(blob) + 1) for _ in range(2))
        match chance.randrange(5):
            case 0 if blob:
                blob[chance.randrange(len(blob))] ^= 1 << chance.randrange(8)
            case 1:
                del blob[chance.randrange(len(blob) + 1) :]
            case 2:
                blob[at:at] = blob[at:end][:4000]
            case 3:
                del blob[at : at + min(end - at, 64)]
            case _:
                blob[at : at + 8] = chance.randbytes(8)
    return bytes(blob)


def _bad_message(chance: random.Random) -> tuple[str, list[bytes]]:
    method = chance.choice(["Colorize", "SearchReferences", "GetReference", "CreateReferenceSet", "ListReferences"])
    return method, [damaged(_request(chance).SerializeToString(), chance)]


def _bad_picture(chance: random.Random) -> tuple[str, list[bytes]]:
    request = _request(chance)
    request.page.encoded = damaged(request.page.encoded, chance)
    return "Colorize", [request.SerializeToString()]


def _bad_array(chance: random.Random) -> tuple[str, list[bytes]]:
    request, data = _request(chance), chance.randbytes(chance.randrange(5000))
    shape = [chance.choice([0, 1, 16, 64, 2**31, 4096]) for _ in range(chance.randrange(5))]
    request.page.array.CopyFrom(pb.Array(shape=shape, data_type=chance.randrange(4), data=data))
    return "Colorize", [request.SerializeToString()]


def _bad_options(chance: random.Random) -> tuple[str, list[bytes]]:
    request = _request(chance)
    value = chance.choice([0, 1, 999, 2**32 - 1])
    request.options.steps = value if value != 999 else 3
    request.options.saturation = chance.choice([0.0, -1.0, float("nan"), float("inf"), 1e300])
    request.options.size.width, request.options.size.height = chance.choice([(0, 0), (33, 64), (2**31, 32), (64, 96)])
    request.pack = chance.choice(["", "fake", "../../etc", "\0"])
    return "Colorize", [request.SerializeToString()]


def _bad_stream(chance: random.Random) -> tuple[str, list[bytes]]:
    request = _request(chance)
    messages = [
        pb.ColorizeSequenceRequest(start=pb.SequenceStart(options=request.options)),
        pb.ColorizeSequenceRequest(reference=request.inline_references.images[0]),
        pb.ColorizeSequenceRequest(page=pb.SequencePage(id="a", image=request.page)),
        pb.ColorizeSequenceRequest(cancel=pb.CancelPage(id="a")),
    ]
    chance.shuffle(messages)
    data = [message.SerializeToString() for message in messages[: chance.randrange(1, 5)]]
    data[chance.randrange(len(data))] = damaged(data[0], chance)
    return "ColorizeSequence", data


def _bad_adding(chance: random.Random) -> tuple[str, list[bytes]]:
    name = chance.choice(["kept", "../x", "", "a" * 500, "x\0y", "."])
    picture = pb.Image(name="x", encoded=damaged(encode_png(color_picture(chance.randrange(9))), chance))
    target = pb.AddTarget(set=name, create=True)
    messages = [pb.AddReferencesRequest(target=target), pb.AddReferencesRequest(image=picture)]
    data = [message.SerializeToString() for message in messages]
    if chance.random() < 0.3:
        data = [damaged(one, chance) for one in data]
    return "AddReferences", data


_METHODS: list[Callable[[random.Random], tuple[str, list[bytes]]]] = [
    _bad_message,
    _bad_picture,
    _bad_array,
    _bad_options,
    _bad_stream,
    _bad_adding,
]

# All

CAMPAIGNS: dict[str, Any] = {
    "drain": (drain_round, DRAIN | DRAIN_LISTS, ("lost", "bad_exits", "orphans")),
    "kill": (kill_round, KILL | KILL_LISTS, ("missing", "unreadable", "not_serving")),
    "fuzz": (fuzz_round, FUZZ | {"codes": {}}, ("crashes", "wrong_status", "not_serving")),
}
_PEAKS = ("peak_rss_mb", "start_rss_mb", "confirmed")


def add(report: dict[str, Any], found: dict[str, Any]) -> None:
    """One round more."""
    for name, value in found.items():
        if name in _PEAKS:
            report[name] = max(report[name], value)
        elif name == "codes":
            report[name] = dict(Counter(report[name]) + Counter(value))
        elif name == "error":
            report.setdefault("errors", []).append(value)
        elif name in report:
            report[name] += value


def main() -> int:
    """Rounds until there are as many as asked for (of fuzz: requests); exit code 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--fuzz-round", type=int, default=500, help="requests to each server that is fuzzed")
    options = parser.parse_args()
    global FUZZ_ROUND
    FUZZ_ROUND = options.fuzz_round
    one_round, empty, broken = CAMPAIGNS[options.campaign]
    report, folder = load(options.json, empty), options.json.parent / f"{options.json.stem}.state"
    folder.mkdir(parents=True, exist_ok=True)
    while report["rounds"] < options.rounds:
        with tempfile.TemporaryDirectory() as fresh:  # kills go on with the sets of the rounds before
            where = folder if options.campaign == "kill" else Path(fresh)
            add(report, asyncio.run(one_round(where, report["rounds"])))
        save(options.json, report)
        if options.campaign == "kill":
            (folder / "log").unlink(missing_ok=True)
    print(json.dumps(report))
    return int(any(report[name] for name in broken) or report.get("peak_rss_mb", 0.0) > RSS_BOUND_MB)


if __name__ == "__main__":
    sys.exit(main())
