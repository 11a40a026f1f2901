"""Row-wise blocks on strings, and the operators of classical machine learning."""

import numpy as np
from onnx import helper

from tests.random_graphs import forms
from tests.random_graphs.blocks import rowwise
from tests.random_graphs.graph import BATCH, BOOL, FLOAT, INT, OPEN, STRING, WORDS, Graph, Value
from tests.random_graphs.layers import CLASSIC


@rowwise(forms.texts)
def append_text(graph: Graph, x: Value) -> Value:
    """A constant before or after each string."""
    return graph.op("StringConcat", *graph.pick([[x, "!"], [graph.argument("> "), x]]), kind=STRING, shape=x.shape)


@rowwise(forms.texts)
def text_twice(graph: Graph, x: Value) -> Value:
    """Each string repeated."""
    return graph.op("StringConcat", x, x)


@rowwise(forms.text_column)
def lower_case(graph: Graph, x: Value) -> Value:
    """StringNormalizer without stop words."""
    # The default locale is not available on every machine.
    return graph.op("StringNormalizer", x, case_change_action=graph.pick(["LOWER", "UPPER"]), locale="C")


@rowwise(forms.text_column)
def first_words(graph: Graph, x: Value) -> Value:
    """The first two words of each string, whatever the longest row of the batch."""
    words = graph.ops("StringSplit", [x], [(STRING, (BATCH, OPEN)), (INT, (BATCH,))], delimiter=" ")[0]
    blanks = graph.op(
        "Expand", np.array([[""]], object), graph.sizes(graph.size(x, 0), 2), kind=STRING, shape=(BATCH, 2)
    )
    padded = graph.op("Concat", words, blanks, shape=(BATCH, OPEN), axis=1)
    return graph.slice(padded, 0, 2, 1, size=2)


@rowwise(forms.texts)
def number_of_words(graph: Graph, x: Value) -> Value:
    """Number of words in each string."""
    results = [(STRING, (*x.shape, OPEN)), (INT, x.shape)]
    return graph.ops("StringSplit", [x], results, delimiter=graph.pick([" ", "a"]))[1]


@rowwise(forms.texts)
def pattern(graph: Graph, x: Value) -> Value:
    """Whether a string matches a pattern."""
    return graph.op("RegexFullMatch", x, kind=BOOL, pattern=graph.pick([".*a.*", "[a-z]+", ".{4,}"]))


@rowwise(forms.texts)
def equal_text(graph: Graph, x: Value) -> Value:
    """A certain string replaced."""
    same = graph.op("Equal", x, graph.pick(WORDS), kind=BOOL, shape=x.shape)
    return graph.op("Where", same, "found", x, kind=STRING, shape=x.shape)


@rowwise(forms.texts)
def number_of_text(graph: Graph, x: Value) -> Value:
    """A table from strings to numbers."""
    return graph.op(
        "LabelEncoder",
        x,
        kind=INT,
        domain=CLASSIC,
        keys_strings=list(WORDS),
        values_int64s=list(range(len(WORDS))),
        default_int64=-1,
    )


@rowwise(forms.indices)
def text_of_number(graph: Graph, x: Value) -> Value:
    """A table from numbers to strings, or the number as text."""
    if graph.chance(0.4):
        return graph.cast(x, STRING)
    return graph.op("Gather", np.array(WORDS, object), x, kind=STRING, shape=x.shape)


@rowwise(forms.indices)
def number_through_text(graph: Graph, x: Value) -> Value:
    """A number converted to text and back."""
    return graph.cast(graph.cast(x, STRING), FLOAT)


@rowwise(forms.texts)
def bag_of_words(graph: Graph, x: Value) -> Value:
    """Frequencies of some strings in a row."""
    words = ["alpha", "beta", "two"]
    return graph.op(
        "TfIdfVectorizer",
        x,
        kind=FLOAT,
        shape=(BATCH, 3),
        min_gram_length=1,
        max_gram_length=1,
        max_skip_count=0,
        mode=graph.pick(["TF", "IDF"]),
        ngram_counts=[0],
        ngram_indexes=[0, 1, 2],
        pool_strings=words,
    )


@rowwise(forms.rank2)
def scaler(graph: Graph, x: Value) -> Value:
    """Offset and scale for each feature."""
    count = x.shape[1]
    scale = [0.5 + index % 3 for index in range(count)]
    return graph.op("Scaler", x, domain=CLASSIC, offset=[0.25] * count, scale=scale)


@rowwise(forms.some_features)
def normalizer(graph: Graph, x: Value) -> Value:
    """Rows divided by their norm."""
    return graph.op("Normalizer", graph.op("Add", x, 0.1), domain=CLASSIC, norm=graph.pick(["L1", "L2", "MAX"]))


@rowwise(forms.rank2)
def binarizer(graph: Graph, x: Value) -> Value:
    """Features as 0 and 1, joined with them."""
    marked = graph.op("Binarizer", x, domain=CLASSIC, threshold=graph.pick([0.0, 0.5]))
    return graph.op("Concat", x, marked, shape=(BATCH, 2 * x.shape[1]), axis=1)


@rowwise(forms.rank2)
def imputer(graph: Graph, x: Value) -> Value:
    """Missing features replaced."""
    values = [0.5] * x.shape[1]
    return graph.op("Imputer", x, domain=CLASSIC, imputed_value_floats=values, replaced_value_float=0.0)


@rowwise(forms.rank2)
def linear_regressor(graph: Graph, x: Value) -> Value:
    """The regressor of scikit-learn's converter."""
    coefficients = graph.weights(2 * x.shape[1], scale=0.5).tolist()
    return graph.op(
        "LinearRegressor",
        x,
        domain=CLASSIC,
        shape=(BATCH, 2),
        coefficients=coefficients,
        intercepts=[0.1, -0.1],
        targets=2,
    )


@rowwise(forms.rank2)
def linear_classifier(graph: Graph, x: Value) -> Value:
    """The classifier of scikit-learn's converter: labels, or scores."""
    coefficients = graph.weights(3 * x.shape[1], scale=0.5).tolist()
    labels, scores = graph.ops(
        "LinearClassifier",
        [x],
        [(INT, (BATCH,)), (FLOAT, (BATCH, 3))],
        domain=CLASSIC,
        coefficients=coefficients,
        intercepts=[0.0, 0.1, 0.2],
        classlabels_ints=[3, 5, 7],
        post_transform=graph.pick(["NONE", "SOFTMAX"]),
    )
    return labels if graph.chance(0.4) else scores


@rowwise(forms.rank2)
def trees(graph: Graph, x: Value) -> Value:
    """Two trees with one split each."""
    value = graph.op(
        "TreeEnsembleRegressor",
        x,
        domain=CLASSIC,
        shape=(BATCH, 1),
        n_targets=1,
        nodes_treeids=[0, 0, 0, 1, 1, 1],
        nodes_nodeids=[0, 1, 2, 0, 1, 2],
        nodes_featureids=[0, 0, 0, x.shape[1] - 1, 0, 0],
        nodes_values=[0.3, 0.0, 0.0, -0.2, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * 2,
        nodes_truenodeids=[1, 0, 0, 1, 0, 0],
        nodes_falsenodeids=[2, 0, 0, 2, 0, 0],
        target_treeids=[0, 0, 1, 1],
        target_nodeids=[1, 2, 1, 2],
        target_ids=[0] * 4,
        target_weights=[1.0, 2.0, -1.0, 0.5],
    )
    return graph.op("Concat", x, value, shape=(BATCH, x.shape[1] + 1), axis=1)


@rowwise(forms.rank2)
def array_features(graph: Graph, x: Value) -> Value:
    """Columns selected by constant indices."""
    return graph.op("ArrayFeatureExtractor", x, [0, x.shape[1] - 1], domain=CLASSIC, shape=(BATCH, 2))


@rowwise(forms.indices)
def one_hot_encoder(graph: Graph, x: Value) -> Value:
    """One-hot categories as by scikit-learn's converter."""
    shape = (*x.shape, 6)
    return graph.op("OneHotEncoder", x, kind=FLOAT, shape=shape, domain=CLASSIC, cats_int64s=list(range(6)), zeros=1)


@rowwise(forms.texts)
def text_function(graph: Graph, x: Value) -> Value:
    """A function of the model that works on strings."""
    name = graph.fresh("Double")
    nodes = [helper.make_node("StringConcat", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 20)]
    graph.functions.append(helper.make_function("tests.local", name, ["a"], ["b"], nodes, opsets))
    return graph.op(name, x, domain="tests.local")
