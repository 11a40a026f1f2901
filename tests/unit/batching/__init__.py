"""Of the queue, the planner and the workers."""
