"""From single requests to batches: the bounded queue, what happens when it is full, the planner and the workers.

Which file says what, from the outside in:

    batcher       the one object that the layers above know
    queue         the lock and the waking of workers      worker, caller_runs   the threads
    state         who waits, who is refused, who is next  execution             stack, run, split, find the culprit
    policies      when the queue is full                  run_guard             ends runs, and gives up those that hang
    planner       which requests make the next batch      answers, statistics   outcomes, and their counts
    culprits      which ones run again after a failure    request, ports        what goes in, and who is needed

`culprits`, and `state` and its parts (`waiting`, `admission`, `policies`, `planner`, `adaptive`, `deadlines`, `drain`)
are pure: they know neither threads nor clocks, and are functions of the requests and times that are passed in.
"""
