"""``inferd.v1.InferenceService``: inferd's own contract."""
