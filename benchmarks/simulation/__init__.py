"""The queue, its policies and what it learns, driven by a virtual clock and an executor whose runs cost what is set."""
