"""Metrics, logging, tracing, and the HTTP port for monitoring.

metrics/    counters and histograms, the text for scrapes, load reports
logging/    setup, the writer thread, one line for each RPC
tracing/    sampling, spans, export

monitoring          /metrics, /livez and /readyz
scrapes             one rendering of the metrics for all clients that wait for it
recorder            finished RPCs, for metrics and the access log
stream_results      results of a stream's requests, for listeners
trailers            trailing metadata
timing              durations of the stages of a request
poll_watch          readiness by the lag of the poll thread
coalescing_thread   a thread that processes queued work in batches
"""
