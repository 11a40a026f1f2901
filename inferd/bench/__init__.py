"""A load generator for servers of the Open Inference Protocol over gRPC, and its reports; ``inferd bench``.

    session      run a plan: describe the model, prepare requests, run the steps, return a report
    plan         the loads, the traffic and how they are measured
    preparation  serialize the requests of a plan, with inputs of inputs and bytes of tensors
    workers      run a step in worker processes
    engine       send the requests of a step, closed or open loop, by transport
    recorder     count requests and latencies (histogram)
    report       the report as a document; html draws it (charts), compare compares two

`loads` (when requests are sent), `traffic` (which), `retries`, `recorder` and `sweep` (the next step) are pure: they
take numbers, a clock or a random generator.
"""
