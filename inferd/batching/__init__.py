"""From single requests to batches: the bounded queue, backpressure, the planner, the workers and the runs.

From the outside in:

    batcher       the one object that the layers above use
    queue         the lock and the waking of workers      worker                the threads
    state         who waits, is rejected, runs next       execution             stack, run, split, answer
    policies      what happens when the queue is full     run_guard             ends runs, gives up those that hang
    planner       which requests make the next batch      bisection             which request made a batch fail
    adaptive      what is learned about runs and callers  self_check            compares batched with single answers
    waiting       admission, order, limits, expiry        request, ports        data and replies; what is needed outside

`state` and its parts (`waiting`, `policies`, `planner`, `adaptive`) and `bisection` are pure: they know neither threads
nor clocks, and are functions of the requests and times that are passed in.
"""
