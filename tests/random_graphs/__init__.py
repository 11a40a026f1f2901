"""Random ONNX graphs with known batching safety, to test inferd's verification."""

from tests.random_graphs.build import make_graph, make_graph_of
from tests.random_graphs.catalogue import CROSSROW, ROWWISE
from tests.random_graphs.model import RandomModel
from tests.random_graphs.truth import Truth, close_enough, truth

__all__ = ["CROSSROW", "ROWWISE", "RandomModel", "Truth", "close_enough", "make_graph", "make_graph_of", "truth"]
