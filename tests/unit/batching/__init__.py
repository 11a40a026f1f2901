"""Unit tests of the queue, the planner and the workers."""
