"""The Open Inference Protocol over HTTP, with those of Triton's extensions that inferd has."""
