"""From single requests to batches: the bounded queue, backpressure, the planner, the workers and the runs.

From the outside in:

    batcher       builds, starts and stops the parts      worker                the threads
    queue         takes requests, wakes workers           execution             stack, run, split, answer
    state         who waits, is rejected, runs next       run_guard             ends runs, gives up those that hang
    overflow      evicts, blocks, asks the policy         failed_runs           what follows when a run fails
    policies      what happens when the queue is full     bisection             which request made a batch fail
    planner       which requests make the next batch      memory_limit          how many rows there is memory for
    waiting       priorities, ageing, limits, expiry      recovery              opens a broken session again
    fair_queue    order within one priority               self_check            compares batched with single answers
    forecast      when requests finish; retry hints       instances, slowdowns  how many batches run at a time
    cost_model    what is learned about run times         scaling               what depends on that number
    adaptive      what is learned about callers           idle_cores            scavengers beside other models
    refusals      the errors of rejected requests         request, queued       requests, batches, replies
                                                          ports                 what batching needs from outside

`state` and its parts (the left column from `overflow` on) and `bisection` are pure: they know neither threads nor
clocks, and are functions of the requests and times that are passed in.
"""
