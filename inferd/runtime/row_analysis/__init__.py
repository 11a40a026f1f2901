"""What a model's graph says of batching: whether each row's answer depends on that row alone.

flow          what can be said of one value, with the theory
op          one operator as a rule sees it, and the table of rules
pointwise, shapes, reductions, products      the rules, by what operators do
analysis      goes through a graph, its branches and loops, and says what comes out
"""
