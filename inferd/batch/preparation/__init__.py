"""Prepare columns for models that take tensors: tokens of texts and tensors of pictures, in worker processes."""
