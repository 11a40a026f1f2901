"""Decide whether the duration of a run depends on the number of rows alone, not on their values. Pure.

Conservative: an unknown operator counts as unbounded. Unbounded runs must not block a thread that other requests need.
"""

from collections.abc import Mapping

from inferd.dtypes import BYTES
from inferd.runtime.onnx_file import Graph, ModelFile, Node
from inferd.runtime.signature import ModelSignature

#: Operators whose work and output shapes follow from their input shapes. None has a subgraph, and none has an output
#: whose size depends on values.
_DATA_INDEPENDENT = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitShift BitwiseAnd
    BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu Clip Concat Constant Conv ConvInteger ConvTranspose Cos
    Cosh CumProd DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp
    EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
    Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity
    InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    LpNormalization LpPool MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not
    Or PRelu Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization Reciprocal Relu ReverseSequence Round
    ScatterElements ScatterND Scatter Selu Shape Shrink Sigmoid Sign Sin Sinh Size Softmax Softplus Softsign
    SpaceToDepth Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Transpose Where Xor
    """.split()  # noqa: SIM905  (a list would have a line for each)
)
_DATA_INDEPENDENT_ML = frozenset(
    """
    ArrayFeatureExtractor Binarizer FeatureVectorizer Imputer LabelEncoder LinearClassifier LinearRegressor
    Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble TreeEnsembleClassifier
    TreeEnsembleRegressor ZipMap
    """.split()  # noqa: SIM905  (a list would have a line for each)
)

#: Operators for which that holds if these operands, which set the amount of work or output, are not from requests.
_SIZE_OPERANDS: Mapping[str, tuple[int, ...]] = {
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "GRU": (4,),
    "LSTM": (4,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "RNN": (4,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1, 2),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
    **dict.fromkeys(
        (
            *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
            *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
        ),
        (1,),
    ),
}

#: Operators whose output values follow from the input shape.
_SHAPE_OPERATORS = frozenset({"Shape", "Size"})

_BY_DOMAIN = {
    "": _DATA_INDEPENDENT | _SIZE_OPERANDS.keys(),
    "ai.onnx": _DATA_INDEPENDENT | _SIZE_OPERANDS.keys(),
    "ai.onnx.ml": _DATA_INDEPENDENT_ML,
}


def has_data_independent_work(file: ModelFile) -> bool:
    """Whether the work of the graph follows from the shapes of its inputs."""
    if file.functions:
        # A function may replace any operator by its name.
        return False
    fixed = set(file.graph.constants) - set(file.graph.inputs)
    return all(_is_data_independent(node, fixed) for node in file.graph.nodes)


def _is_data_independent(node: Node, fixed: set[str]) -> bool:
    """Whether ``node`` is data-independent; adds outputs that follow from constants and shapes to ``fixed``."""
    if node.operator not in _BY_DOMAIN.get(node.domain, ()):
        return False
    if any(isinstance(value, Graph) for value in node.attributes.values()):
        return False
    given = [name for name in node.inputs if name]
    sizes = _SIZE_OPERANDS.get(node.operator, ())
    if any(name and name not in fixed for position, name in enumerate(node.inputs) if position in sizes):
        return False
    if node.operator in _SHAPE_OPERATORS or all(name in fixed for name in given):
        fixed.update(node.outputs)
    return True


def has_fixed_size_rows(signature: ModelSignature) -> bool:
    """Whether all rows have the same size: only the batch axis is open, and there are no strings."""
    return all(
        spec.datatype is not BYTES
        and all(isinstance(size, int) or axis == spec.batch_axis for axis, size in enumerate(spec.shape))
        for spec in signature.inputs
    )
