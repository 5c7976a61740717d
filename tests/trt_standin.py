"""The Python interface of TensorRT 10.16 or 11, on `cuda_standin`, enforcing what NVIDIA documents of it.

Engines compute by ONNX Runtime on the CPU from the parsed ONNX file, in the device's own time. A call in the wrong
order, a tensor without an address, scratch memory that is too small, a plan that no builder made or of another version:
AssertionError. Version 11 lacks what NVIDIA removed (BuilderFlag.FP16, EXPLICIT_BATCH, device_memory_size, ...).
Names and signatures were read from the docstrings of tensorrt_cu13_bindings 10.16.1.11 and 11.4.0.106.
"""

import enum
import json
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime as ort
from cuda_standin import Cuda

SCRATCH = 4096


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = 0, 1, 2


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64 = range(9)


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = 0, 1, 2


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class ProfilingVerbosity(enum.Enum):
    LAYER_NAMES_ONLY, NONE, DETAILED = 0, 1, 2


class LayerInformationFormat(enum.Enum):
    ONELINE, JSON = 0, 1


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


_NUMPY = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.INT64: np.int64, DataType.INT32: np.int32}
_ONNX = {1: DataType.FLOAT, 10: DataType.HALF, 7: DataType.INT64, 6: DataType.INT32}


class TensorRT:
    """The module. install() puts it and its device where `import` finds them.

    attention: "fused" or not; full: names of layers that come out in float32; reformats: layers that only reorder
    memory; fails: True where the builder finds no memory.
    """

    TensorIOMode, DataType, MemoryPoolType = TensorIOMode, DataType, MemoryPoolType
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    ProfilingVerbosity, LayerInformationFormat = ProfilingVerbosity, LayerInformationFormat
    built: ClassVar = {}  # by all builders of this process

    def __init__(self, version="11.4.0.106", cuda=None, **faults):
        self.__version__, self.cuda = version, cuda or Cuda()
        self.old = version.startswith("10.")
        self.faults = {"attention": "fused", "full": (), "reformats": 0, "fails": False} | faults
        self.log = []
        removed = {"EXPLICIT_BATCH": 0} if self.old else {}
        self.NetworkDefinitionCreationFlag = enum.IntEnum(
            "NetworkDefinitionCreationFlag", removed | {"STRONGLY_TYPED": 1}
        )
        weak = {"FP16": 0, "INT8": 1} if self.old else {}
        self.BuilderFlag = enum.IntEnum("BuilderFlag", weak | {"TF32": 7})
        module = self

        class ILogger:
            Severity = Severity

            def __init__(self):
                self.ready = True

        class Builder:
            def __init__(self, logger):
                assert logger.ready, "ILogger.__init__ was not called"
                self.logger = logger

            def create_network(self, flags=0):
                strong = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
                assert flags & strong, "not strongly typed: TensorRT 10 would choose types by itself"
                return _Network()

            def create_builder_config(self):
                return _Config()

            def create_optimization_profile(self):
                return _Profile()

            def build_serialized_network(self, network, config):
                return module._build(self.logger, network, config)

        class OnnxParser:
            def __init__(self, network, logger):
                self.network, self.errors = network, []

            @property
            def num_errors(self):
                return len(self.errors)

            def get_error(self, index):
                return self.errors[index]

            def parse_from_file(self, model):
                try:
                    onnx.checker.check_model(model)
                    self.network.path = Path(model)
                except Exception as error:
                    self.errors.append(_Error(str(error)))
                    return False
                return True

        class Runtime:
            def __init__(self, logger):
                assert logger.ready

            def deserialize_cuda_engine(self, serialized_engine):
                module.log.append("deserialize")
                return module._load(serialized_engine)

        self.ILogger, self.Builder, self.OnnxParser, self.Runtime = ILogger, Builder, OnnxParser, Runtime

    def install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorrt", self)
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", self.cuda)
        return self

    def nptype(self, trt_type):
        return _NUMPY[trt_type]

    def _build(self, logger, network, config):
        self.log.append("build")
        assert network.path is not None, "an empty network was built"
        assert config.workspace, "no workspace was set"
        assert not config.tf32, "TF32 was left on"
        model = onnx.load(network.path, load_external_data=False)
        open_inputs = {i.name for i in model.graph.input if _is_open(i)}
        shapes = config.profiles[0].shapes if config.profiles else {}
        assert open_inputs <= shapes.keys(), "an open input without a profile"
        if self.faults["fails"]:
            logger.log(Severity.ERROR, "Error Code 2: OutOfMemory (Requested size was 8000000000 bytes.)")
            return None
        record = {
            "path": str(network.path),
            "version": self.__version__,
            "compute": self.cuda.compute,
            "shapes": shapes,
            "detailed": config.profiling_verbosity == ProfilingVerbosity.DETAILED,
        }
        plan = json.dumps(record).encode().ljust(2000)
        self.built[plan] = record
        return memoryview(plan)

    def _load(self, plan):
        record = self.built.get(bytes(plan))
        assert record is not None, "a plan that no builder here made was handed to TensorRT: it may run any code"
        assert record["version"] == self.__version__, "a plan of another version was handed to TensorRT"
        assert tuple(record["compute"]) == self.cuda.compute, "a plan of another GPU was handed to TensorRT"
        return _Engine(self, record)


class _Error:
    def __init__(self, text):
        self._text = text

    def desc(self):
        return self._text


class _Network:
    path = None


class _Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, input, min, opt, max):
        assert all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True))
        self.shapes[input] = [list(min), list(opt), list(max)]


class _Cache:
    def __init__(self, data):
        self.data = data

    def serialize(self):
        return memoryview(self.data or b"measured")


class _Config:
    def __init__(self):
        self.workspace, self.tf32, self.profiles, self.cache = 0, True, [], None
        self.builder_optimization_level, self.profiling_verbosity = 3, ProfilingVerbosity.LAYER_NAMES_ONLY

    def set_memory_pool_limit(self, pool, pool_size):
        assert pool is MemoryPoolType.WORKSPACE
        assert isinstance(pool_size, int)
        self.workspace = pool_size

    def clear_flag(self, flag):
        self.tf32 = self.tf32 and flag.name != "TF32"

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache):
        return None if serialized_timing_cache == b"bad" else _Cache(serialized_timing_cache)

    def set_timing_cache(self, cache, ignore_mismatch):
        assert isinstance(cache, _Cache)
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache


class _Engine:
    def __init__(self, module, record):
        self.module, self.record = module, record
        self.model = onnx.load(record["path"], load_external_data=False)
        self.tensors = {i.name: (TensorIOMode.INPUT, i) for i in self.model.graph.input}
        self.tensors |= {o.name: (TensorIOMode.OUTPUT, o) for o in self.model.graph.output}
        self.device_memory_size_v2 = SCRATCH + 256 * (len(self.model.graph.node) % 7)
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        self.session = ort.InferenceSession(record["path"], options, providers=["CPUExecutionProvider"])

    def __getattr__(self, name):
        if name == "device_memory_size" and self.__dict__.get("module") and self.module.old:
            return self.device_memory_size_v2
        raise AttributeError(f"TensorRT {self.module.__version__} has no ICudaEngine.{name}")

    @property
    def num_io_tensors(self):
        return len(self.tensors)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_mode(self, name):
        return self.tensors[name][0]

    def get_tensor_dtype(self, name):
        return _ONNX[self.tensors[name][1].type.tensor_type.elem_type]

    def get_tensor_shape(self, name):
        return _shape(self.tensors[name][1])

    def get_tensor_profile_shape(self, name, profile_index):
        assert profile_index == 0
        assert self.get_tensor_mode(name) is TensorIOMode.INPUT
        return self.record["shapes"][name]

    def create_execution_context(self, strategy=ExecutionContextAllocationStrategy.STATIC):
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED, "each context would have scratch of its own"
        return _Context(self)

    def create_engine_inspector(self):
        return _Inspector(self)


class _Context:
    def __init__(self, engine):
        self.engine, self.addresses, self.shapes, self.scratch = engine, {}, {}, None
        self.ran = False

    def set_device_memory(self, memory, size):
        assert memory % 256 == 0
        assert size >= self.engine.device_memory_size_v2
        self.engine.module.cuda.device(memory, size)
        self.scratch = (memory, size)

    def set_tensor_address(self, name, memory):
        assert name in self.engine.tensors
        assert memory % 256 == 0, f"{name} is not aligned"
        self.addresses[name] = memory
        return True

    def set_input_shape(self, name, shape):
        least, _, most = self.engine.record["shapes"][name]
        self.shapes[name] = tuple(shape)
        return all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True))

    def execute_async_v3(self, stream_handle):
        cuda, engine = self.engine.module.cuda, self.engine
        engine.module.log.append("execute")
        stream = cuda.stream_of(stream_handle)
        assert self.addresses.keys() == engine.tensors.keys(), "a tensor has no address"
        assert self.scratch is not None, "no scratch memory was given"
        assert self.ran or stream.captured is None, "captured before a plain run"
        shapes = {name: self._shape(name) for name in engine.tensors}
        assert all(-1 not in shape for shape in shapes.values()), "an open shape was not set"
        self.ran = True
        stream.add(lambda scratch=self.scratch: self._run(scratch, shapes))
        return True

    def _shape(self, name):
        mode, info = self.engine.tensors[name]
        if mode is TensorIOMode.INPUT:
            return self.shapes.get(name, _shape(info))
        batches = [shape[0] for shape in self.shapes.values()]
        return tuple(batches[0] if n == -1 and batches else n for n in _shape(info))

    def _run(self, scratch, shapes):
        cuda, engine = self.engine.module.cuda, self.engine
        cuda.device(*scratch)[:] = 0xFF  # what others kept there is lost
        arrays = {name: self._array(name, shape) for name, shape in shapes.items()}
        outputs = [o.name for o in engine.model.graph.output]
        results = engine.session.run(outputs, {i.name: arrays[i.name].copy() for i in engine.model.graph.input})
        for name, result in zip(outputs, results, strict=True):
            np.copyto(arrays[name], result)

    def _array(self, name, shape):
        dtype = np.dtype(_NUMPY[self.engine.get_tensor_dtype(name)])
        size = int(np.prod(shape)) * dtype.itemsize
        return self.engine.module.cuda.device(self.addresses[name], size).view(dtype).reshape(shape)


class _Inspector:
    def __init__(self, engine):
        self.engine = engine

    def get_engine_information(self, format):
        assert format is LayerInformationFormat.JSON
        return json.dumps(layers_of(self.engine))


def layers_of(engine):
    """What an inspector tells of an engine that runs each node by itself, but for fused attention."""
    module, model = engine.module, onnx.shape_inference.infer_shapes(engine.model)
    if not engine.record["detailed"]:
        return {"Layers": [node.name for node in model.graph.node]}
    types = {v.name: v for v in (*model.graph.value_info, *model.graph.input)}
    layers = []
    for node in model.graph.node:
        kind = {"Conv": "CaskConvolution", "MatMul": "gemm", "Softmax": "kgen"}.get(node.op_type, node.op_type)
        name = (
            f"_gemm_mha_v2_{len(layers)}"
            if node.op_type == "Softmax" and module.faults["attention"] == "fused"
            else node.name
        )
        full = node.op_type in module.faults["full"]
        inputs = [_told(module, types[name], full) for name in node.input if name in types]
        layers.append({"Name": name, "LayerType": kind, "Inputs": inputs, "Outputs": [], "TacticName": ""})
    extra = {"Name": "Reformatting CopyNode", "LayerType": "Reformat", "Inputs": [], "Outputs": [], "TacticName": ""}
    return {"Layers": layers + [extra] * module.faults["reformats"]}


def _told(module, info, full):
    kind = "Float" if full or info.type.tensor_type.elem_type == 1 else "Half"
    shape = [axis.dim_value for axis in info.type.tensor_type.shape.dim]
    told = {"Format/Datatype": kind} if module.old else {"Format": "Row major linear", "Datatype": kind}
    return {"Name": info.name, "Dimensions": shape} | told


def _is_open(info):
    return -1 in _shape(info)


def _shape(info):
    return tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in info.type.tensor_type.shape.dim)
