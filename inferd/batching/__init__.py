"""From single requests to batches: the bounded queue, backpressure, the planner, the workers and the runs.

From the outside in:

    batcher       builds, starts and stops the parts
    queue         takes requests, wakes workers           worker                the threads
    state         who waits, is rejected, runs next       execution             stack, run, split, answer
    overflow      evicts, blocks, asks the policy         run_guard             ends runs, gives up those that hang
    policies      what happens when the queue is full     bisection             which request made a batch fail
    planner       which requests make the next batch      self_check            compares batched with single answers
    waiting       priorities, ageing, limits, expiry      early_refusal         rejects before anything is decoded
    fair_queue    order within one priority               refusals              the errors of rejected requests
    forecast      when requests finish; retry hints       idle_cores            scavengers beside other models
    cost_model    what is learned about run times         request, ports        data and replies; what is needed outside
    adaptive      what is learned about callers

`state` and its parts (the left column from `overflow` on) and `bisection` are pure: they know neither threads nor
clocks, and are functions of the requests and times that are passed in.
"""
