"""Which ONNX operators TensorRT's parser takes, and in which types.

Facts from the support matrix of the parser (onnx-tensorrt, docs/operators.md) as of TensorRT 10.15, which takes opsets
9 to 24; operators that it lists as unsupported are left out, and so are quantised types. 11.x removed none of them.
"""

OPSETS = range(9, 25)

_FLOAT = "float32 float16"
_NUMBER = f"{_FLOAT} int32 int64"
_ANY = f"{_NUMBER} bool"

_TABLE = {
    _FLOAT: """
        Acos Acosh Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BlackmanWindow Ceil Celu Clip Conv
        ConvTranspose Cos Cosh CumSum DeformConv Dropout Einsum Elu Erf Exp Floor Gelu Gemm GlobalAveragePool
        GlobalLpPool GlobalMaxPool GridSample GroupNormalization GRU HammingWindow HannWindow HardSigmoid HardSwish
        Hardmax InstanceNormalization IsInf LayerNormalization LeakyRelu Log LogSoftmax LRN LSTM LpNormalization LpPool
        MatMul MaxPool MeanVarianceNormalization Mish NonMaxSuppression NonZero ParametricSoftplus PRelu RandomNormal
        RandomNormalLike RandomUniform RandomUniformLike Reciprocal Resize RMSNormalization RNN RoiAlign RotaryEmbedding
        Round Scan Selu Sigmoid Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Upsample
    """,
    _NUMBER: """
        Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max Mean Min Mod Mul
        Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
        ReduceSum ReduceSumSquare Relu ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum TopK
    """,
    _ANY: """
        Cast CastLike Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND Identity If
        Loop OneHot Reshape ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where
    """,
    "bool": "And Not Or Xor",
}

SUPPORTED: dict[str, frozenset[str]] = {
    name: frozenset(types.split()) for types, names in _TABLE.items() for name in names.split()
}
"""The types of the first input by operator."""
