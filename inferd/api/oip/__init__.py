"""``inference.GRPCInferenceService``: the Open Inference Protocol, with extensions of Triton."""
