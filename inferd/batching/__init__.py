"""From single requests to batches: the bounded queue, what happens when it is full, the planner and the workers."""
