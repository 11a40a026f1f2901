"""Infers and verifies which dimensions of a model count rows, so that requests can share a batch; see README.md.

inference         candidates from declared shapes and settings
verification      a candidate's verdict, from its graph and from trial runs
batch_trial       rows alone and in batches, compared
row_comparison    tolerances, and the cause of a difference
synthetic_inputs, input_search    rows for the trials
verdict           proven, contradicted or unproven
establish         all of this for a model file, or the verdict from the cache
"""
