"""Graph analysis: whether each row of a batch is computed from that row alone, for all numbers.

flow          what is known of a tensor, with the theory
operation     a node with the flows of its inputs, and the table of rules
analysis      the walk through a graph and its functions
control_flow  branches and loops

The rules, by the kind of operator: pointwise, shape_values, reshaping, concatenation, slicing, indexing, reductions,
products, images, layers.
"""
