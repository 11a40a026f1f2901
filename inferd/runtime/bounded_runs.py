"""Whether how long a run takes follows from its rows alone, whatever numbers are in them. Pure.

What is not known to be so is taken not to be: such a run must not keep a thread that others wait for.
"""

from collections.abc import Mapping

from inferd.dtypes import BYTES
from inferd.runtime.onnx_file import Graph, ModelFile, Node
from inferd.runtime.signature import ModelSignature

#: Operators whose work and whose outputs' shapes follow from the shapes of their inputs, but for the operands that are
#: named in `_SIZES`. None with a graph of its own, and none whose output is as long as its numbers say.
_STEADY = frozenset(
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
    """.split()  # noqa: SIM905  (a list that long would have a line for each)
)
_STEADY_ML = frozenset(
    """
    ArrayFeatureExtractor Binarizer FeatureVectorizer Imputer LabelEncoder LinearClassifier LinearRegressor
    Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble TreeEnsembleClassifier
    TreeEnsembleRegressor ZipMap
    """.split()  # noqa: SIM905  (a list that long would have a line for each)
)

#: Operators that are steady if these operands, which say how much there is to do or to give, do not come from requests.
_SIZES: Mapping[str, tuple[int, ...]] = {
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

#: Of these, what comes out follows from the shape of what goes in.
_TELL_SHAPES = frozenset({"Shape", "Size"})

_STEADY_BY_DOMAIN = {"": _STEADY | _SIZES.keys(), "ai.onnx": _STEADY | _SIZES.keys(), "ai.onnx.ml": _STEADY_ML}


def has_data_independent_work(file: ModelFile) -> bool:
    """Whether the work that the graph does follows from the shapes of its inputs."""
    if file.functions:
        # They may stand for any operator by its name.
        return False
    fixed = set(file.graph.constants) - set(file.graph.inputs)
    return all(_is_steady(node, fixed) for node in file.graph.nodes)


def _is_steady(node: Node, fixed: set[str]) -> bool:
    """Whether ``node`` is; adds those of its outputs to ``fixed`` whose values follow from shapes and constants."""
    if node.operator not in _STEADY_BY_DOMAIN.get(node.domain, ()):
        return False
    if any(isinstance(value, Graph) for value in node.attributes.values()):
        return False
    given = [name for name in node.inputs if name]
    sizes = _SIZES.get(node.operator, ())
    if any(name and name not in fixed for position, name in enumerate(node.inputs) if position in sizes):
        return False
    if node.operator in _TELL_SHAPES or all(name in fixed for name in given):
        fixed.update(node.outputs)
    return True


def has_fixed_size_rows(signature: ModelSignature) -> bool:
    """Whether all rows are of one size: no dimension is open but the batch axis, and no element is a text."""
    return all(
        spec.datatype is not BYTES
        and all(isinstance(size, int) or axis == spec.batch_axis for axis, size in enumerate(spec.shape))
        for spec in signature.inputs
    )
