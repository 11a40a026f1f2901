"""From single requests to batches: the bounded queue, backpressure, the planner, the workers and the runs.

From the outside in:

    batcher       the one object that the layers above use
    queue         the lock and the waking of workers      worker                the threads
    state         who waits, is rejected, runs next       execution             stack, run, split, answer
    policies      what happens when the queue is full     run_guard             ends runs, gives up those that hang
    planner       which requests make the next batch      bisection             which request made a batch fail
    waiting       priorities, ageing, limits, expiry      self_check            compares batched with single answers
    fair_queue    order within one priority               early_refusal         rejects before anything is decoded
    forecast      when requests finish; retry hints       refusals              the errors of rejected requests
    cost_model    what is learned about run times         idle_cores            scavengers beside other models
    adaptive      what is learned about callers           request, ports        data and replies; what is needed outside

`state` and its parts (the left column from `policies` on) and `bisection` are pure: they know neither threads nor
clocks, and are functions of the requests and times that are passed in.
"""
