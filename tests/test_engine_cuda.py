"""The layer over the CUDA runtime: its calls are NVIDIA's, failures are one sentence, memory lives long enough."""

import gc
import re
import sys

import numpy as np
import pytest
from cuda_standin import Cuda

from colorflow_rt.engine import cuda
from colorflow_rt.errors import EngineError


@pytest.fixture
def device(monkeypatch):
    device = Cuda()
    monkeypatch.setattr(cuda, "_unused", type(cuda._unused)())
    monkeypatch.setitem(sys.modules, cuda.BINDING, device)
    return device


def filled(value, shape=(4,)):
    pinned = cuda.Pinned(shape, np.dtype(np.float32))
    pinned.array[:] = value
    return pinned


def test_the_stand_in_has_the_parameters_of_the_real_binding():
    real = pytest.importorskip(cuda.BINDING)
    checked = 0
    for name, function in vars(Cuda).items():
        if name.startswith("cuda") and callable(function) and not isinstance(function, type):
            signature = getattr(real, name).__doc__.strip().splitlines()[0]
            documented = re.findall(r"(\w+)(?:: \w+)?(?:,|\)$)", signature)
            own = function.__code__.co_varnames[1 : function.__code__.co_argcount]
            assert list(own) == documented, signature
            checked += 1
    assert checked > 25
    for kind in ("cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode", "cudaDeviceAttr"):
        for member in getattr(Cuda, kind):
            assert int(getattr(getattr(real, kind), member.name)) == int(member)
    assert (real.cudaStreamNonBlocking, real.cudaEventDisableTiming) == (1, 2)


def test_the_real_binding_without_a_driver_counts_no_devices():
    pytest.importorskip(cuda.BINDING)
    assert cuda.device_count() >= 0


def test_the_device_at_hand(device):
    assert cuda.device_count() == 1
    assert cuda.Gpu.current() == cuda.Gpu("NVIDIA H200", "9.0")
    assert cuda.memory() == (1 << 30, 1 << 30)


def test_copies_there_and_back(device):
    stream, first, second = cuda.Stream(), cuda.Buffer(16, "a"), cuda.Buffer(16, "b")
    source, target = filled(7), filled(0)
    stream.upload(first.address, source.address, 16)
    stream.copy(second.address, first.address, 16)
    stream.download(target.address, second.address, 16)
    assert (target.array == 0).all()  # the stand-in is as late as a device may be
    stream.synchronize()
    assert (target.array == 7).all()


def test_one_stream_waits_for_another_and_the_host_for_an_event(device):
    first, second, event, done = cuda.Stream(), cuda.Stream(), cuda.Event(), cuda.Event()
    memory, source, target = cuda.Buffer(16, "a"), filled(3), filled(0)
    assert event.passed
    second.wait_for(event)  # nothing recorded yet: no waiting
    first.upload(memory.address, source.address, 16)
    first.record(event)
    second.wait_for(event)
    second.download(target.address, memory.address, 16)
    second.record(done)
    assert not done.passed
    done.wait()
    assert done.passed
    assert (target.array == 3).all()


def test_captured_work_runs_only_when_it_is_launched(device):
    stream, memory, source, target, graph = cuda.Stream(), cuda.Buffer(16, "a"), filled(1), filled(0), cuda.Graph()
    with stream.capture(graph):
        stream.upload(memory.address, source.address, 16)
        stream.download(target.address, memory.address, 16)
    stream.synchronize()
    assert (target.array == 0).all()
    for value in (5, 6):
        source.array[:] = value
        stream.launch(graph)
        stream.synchronize()
        assert (target.array == value).all()


def test_a_capture_that_fails_leaves_the_stream_usable(device):
    stream, graph = cuda.Stream(), cuda.Graph()
    with pytest.raises(ZeroDivisionError), stream.capture(graph):
        _ = 1 / 0
    stream.synchronize()
    refused = pytest.raises(EngineError, match=r"CUDA failed in cudaStreamSynchronize: operation not permitted when")
    with refused, stream.capture(graph):
        stream.synchronize()
    stream.synchronize()


def test_memory_outlives_the_work_that_names_it(device):
    """An object may go while a copy from its memory is queued: the memory goes when the device is done with it."""
    stream, memory, target = cuda.Stream(), cuda.Buffer(16, "a"), filled(0)
    source = filled(9)
    stream.upload(memory.address, source.address, 16)
    stream.download(target.address, memory.address, 16)
    addresses = memory.address, source.address
    del source, memory
    gc.collect()
    cuda.Buffer(16, "b")
    assert (target.array == 9).all()
    assert addresses[0] not in device.memory
    assert addresses[1] not in device.pinned


def test_memory_that_cannot_be_had(device):
    device.capacity = 3_000_000_000
    with pytest.raises(EngineError) as caught:
        cuda.Buffer(4_000_000_000, "denoise_step, for its weights,")
    assert str(caught.value) == (
        "out of device memory: denoise_step, for its weights, needs 4.00 GB, 3.00 GB of 3.00 GB are free; "
        "take a smaller --size, build engines for a smaller batch, or free memory of other programs"
    )
