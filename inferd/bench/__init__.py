"""A load generator for servers of the Open Inference Protocol over gRPC, and its reports.

`session` runs a plan: it asks the server for the model's inputs, has `workers` send the load from processes of their
own, and gathers a report, which `html` draws and `compare` compares with another. What decides is pure: `loads` (when
requests are sent), `traffic` (which), `retries`, `recorder` (what is counted), `sweep` (which step is next) take
numbers, a clock or a random generator, and are tested without either.
"""
