"""Texts to tokens and pictures to tensors, in processes of their own, since models take tensors."""
