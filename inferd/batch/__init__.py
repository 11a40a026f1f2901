"""Offline jobs: run a model on all rows of files, each row once; ``inferd batch``.

A job reads its inputs in *blocks* of rows, prepares their tensors, runs them in *batches* and writes *parts*. Read from
the top: `job` opens the files and the model, makes or finds the plan, and runs this process' share of the parts.

    job            run a job, from its options to its summary
    options        the options of a job and of a run
    setup          open the files and the model, and bind columns to inputs
    inputs         find the files, and their columns
    binding        bind columns to inputs and outputs; the schema of the output
    planning       make the plan: count rows, measure batches, fix sizes
    plan           parts, batches and the identity of a job; the file that holds them
    share          run the parts of one process, and complete the job
    pipeline       run reading, preparing, running and writing in threads of their own
    progress       count rows, parts and batches; metrics_file writes the counts for Prometheus

Rows to tensors:

    sources/       read each file format in chunks of rows
    reading        read the rows of a part, in blocks
    selection      filter rows: --where (expressions), --sample, --limit
    preparation/   make tokens of texts and tensors of pictures, in worker processes
    tensors        convert columns of Arrow to tensors: column_types, then layouts, lists, elements

Tensors to answers:

    grouping       choose the rows of a block that form a batch
    sizing         choose the size of batches
    running        run the batches of a block; find the rows that fail
    local          run batches in this process
    server         run batches on a server; window limits its requests in flight
    isolated       run batches in a worker process, which a row may crash
    worker_process a worker process, and its messages

Answers to files:

    outputs        convert outputs to columns
    writing        write, and join, files of each format: array_files, json_lines
    part_files     write each part, and note that it is done
    manifest       the files of a job: plan, notes of parts, error rows, summary
    begun_parts    note the parts that run, to find those in which a process ended
    output_folder  files that exist completely or not at all; remote_folder in remote storage
    storage        list, open and write files, here and in remote storage

`ray` has the same model, mapping and error rows for Ray Data. `ports` has the protocols, `blocks` the data between
stages. ``inferd.batching`` serves requests as they come; here all rows are known beforehand.
"""
