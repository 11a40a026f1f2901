"""Offline jobs: whole files through a model, each row once; ``inferd batch``.

A job reads its inputs in *blocks* of rows, prepares their tensors, runs them in *batches* and writes *parts*:

    sources/      what there is to read, how many rows, and the rows themselves
    inputs        the files of a job, and the columns that they have
    selection     which rows are wanted: --where, --sample, --limit
    binding       which column is which input, and the schema of the output
    column_types  which types of columns an input takes, and which an output has
    tensors       columns of Arrow as tensors: layouts, then lists, then elements
    outputs       outputs as columns
    preparation/  texts to tokens and pictures to tensors, in worker processes
    processes/    worker processes
    grouping      which rows of a block run together
    sizing        how many rows that are, from the cost model
    local         runs batches in this process
    server        runs them on a server
    apart         runs them in a process of its own, which a row may end
    running       runs the batches of a block; finds the rows that fail
    writing       one part or one file in the format of the output
    plan          the parts of a job, fixed before its first row
    identity      what makes a job the same one
    manifest      the plan and what is done, on disk
    suspects      parts in which processes have ended
    storage       files here and in remote storage; a folder whose files are there as a whole or not at all
    pipeline      reading, preparing, running and writing, side by side
    job           a job from its options to its summary; share is what one process does of it
    progress      what is seen of it while it runs
    ray           the same model, mapping and error rows for Ray Data

Unlike ``batching``, which serves requests of callers, it knows all its rows beforehand.
"""
