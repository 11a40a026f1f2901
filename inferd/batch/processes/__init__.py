"""Processes that do a part of a job's work: what they cannot survive ends them, and not the job."""
