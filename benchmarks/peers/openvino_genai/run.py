"""Runs cases through OpenVINO GenAI's continuous batching: run.py GGUF CASE..."""

import sys
import time

import generation_load
import numpy as np
import openvino
import openvino_genai

_CACHE_GB = 1
_BATCHED_TOKENS = 512
_SEQUENCES = 32


def main() -> None:
    """Print the figures of each case."""
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_batched_tokens = _BATCHED_TOKENS
    scheduler.max_num_seqs = _SEQUENCES
    scheduler.cache_size = _CACHE_GB
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = False
    options = {"INFERENCE_NUM_THREADS": 2}
    pipeline = openvino_genai.ContinuousBatchingPipeline(sys.argv[1], scheduler, "CPU", options)
    _run(pipeline, generation_load.Case.named(generation_load.WARM_UP))
    for name in sys.argv[2:]:
        generation_load.report(_run(pipeline, generation_load.Case.named(name)))


def _run(pipeline: openvino_genai.ContinuousBatchingPipeline, case: generation_load.Case) -> dict[str, object]:
    waiting, records, handles = list(case.requests), [], {}
    began = time.perf_counter()
    while waiting or handles:
        while waiting and len(handles) < case.in_flight:
            prompt, new = waiting.pop(0)
            record = generation_load.Record(lambda: None)
            handles[len(records)] = pipeline.add_request(len(records), _tensor(prompt), _config(new)), new
            records.append(record)
        pipeline.step()
        for number, (handle, new) in list(handles.items()):
            while handle.can_read():
                for output in handle.read().values():
                    records[number].tokens(len(output.generated_ids))
            is_running = handle.get_status() == openvino_genai.GenerationStatus.RUNNING
            if len(records[number].tokens_at) >= new or not is_running:
                del handles[number]
    return generation_load.figures(case, records, time.perf_counter() - began)


def _tensor(prompt: list[int]) -> openvino.Tensor:
    return openvino.Tensor(np.array([prompt], np.int64))


def _config(new: int) -> openvino_genai.GenerationConfig:
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = new
    config.ignore_eos = True
    config.do_sample = False
    return config


if __name__ == "__main__":
    main()
