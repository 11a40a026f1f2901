"""Commands over HTTP: the REST form of the Open Inference Protocol.

`address` and `transport` import neither numpy nor the client, because `inferd health` must start quickly.
"""
