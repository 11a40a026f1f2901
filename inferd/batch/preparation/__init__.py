"""What makes tensors of texts and pictures, in worker processes."""
