"""Runs of language models on slots of a KV cache: each row is bit for bit what it is alone."""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import quantize_dynamic

from inferd.config.settings import ModelSettings
from inferd.runtime import decoder_opening
from inferd.runtime.decoder import OnnxDecoder
from inferd.runtime.decoder_graph import DecoderForm, read_decoder
from inferd.runtime.decoder_opening import open_decoder
from inferd.runtime.decoder_runner import SlotRunner
from inferd.runtime.errors import ModelLoadError, RunFailedError, SessionClosedError
from inferd.runtime.opening import open_runtime_session
from tests import decoder_forms
from tests.decoder_models import CONTEXT, VOCABULARY, write_tiny_decoder

KINDS = {
    "fp32": {},
    "int8": {"weights": "int8"},
    "fp16": {"dtype": "fp16"},
    "position_ids": {"position_ids": True},
    "pruned": {"pruned": True},
    "external": {"external_weights": True},
}
SLOTS = 8
SPIN = "session.intra_op.spin_duration_us"
PROMPTS = [[5, 6, 7], [100], list(range(20, 61)), [300, 2, 300, 2], [9] * 17, [1, 0, 1]]


def opened(path: Path, form: DecoderForm | None = None, **generation: object) -> OnnxDecoder:
    settings = ModelSettings.model_validate({"generation": {"max_sequences": SLOTS, **generation}})
    form = form or read_decoder(path)
    assert form is not None
    return open_decoder(path, settings, form)


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def path(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_decoder(tmp_path_factory.mktemp(kind), tokenizer=False, **KINDS[kind])


@pytest.fixture(scope="module")
def decoder(path: Path) -> Iterator[OnnxDecoder]:
    opened_decoder = opened(path)
    yield opened_decoder
    opened_decoder.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_decoder(tmp_path_factory.mktemp("tiny"), tokenizer=False)


def generated(decoder: OnnxDecoder, prompt: list[int], count: int) -> list[np.ndarray]:
    """Return the logits of greedy generation in slot 0, alone."""
    rows = [decoder.prefill(0, np.array(prompt), 0).copy()]
    for past in range(len(prompt), len(prompt) + count - 1):
        rows.append(decoder.decode([int(rows[-1].argmax())], [past])[0].copy())
    return rows


def unbound(path: Path, prompt: list[int], count: int) -> list[np.ndarray]:
    """Return the same by plain runs of the unedited file, whose outputs are the next run's cache."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    names = {value.name: value for value in session.get_inputs()}
    caches = {
        name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float16 if "16" in value.type else np.float32)
        for name, value in names.items()
        if name.startswith("past")
    }
    rows: list[np.ndarray] = []
    past, ids = 0, prompt
    while len(rows) < count:
        feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, past + len(ids)), np.int64)}
        if "position_ids" in names:
            feeds["position_ids"] = np.arange(past, past + len(ids))[None]
        found = dict(zip(outputs, session.run(None, feeds | caches), strict=True))
        caches = {name: found[name.replace("past_key_values", "present")] for name in caches}
        rows.append(found["logits"][0, -1].astype(np.float32))
        past, ids = past + len(ids), [int(rows[-1].argmax())]
    return rows


def test_logits_are_those_of_the_unedited_file(decoder, path):
    """Logits of the last token only and a cache in place change nothing; greedy answers have several tokens."""
    for prompt in PROMPTS[:3]:
        ours, plain = generated(decoder, prompt, 12), unbound(path, prompt, 12)
        np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-4)
        assert [row.argmax() for row in ours] == [row.argmax() for row in plain]
        assert len({int(row.argmax()) for row in ours}) > 6


def test_rows_are_the_same_in_steps_of_any_size(decoder):
    """Sequences of different lengths have the same logits in steps of one sequence up to all slots."""
    alone = [generated(decoder, prompt, 4) for prompt in PROMPTS]
    for size in range(1, len(PROMPTS) + 1):
        rows = [[decoder.prefill(slot, np.array(PROMPTS[slot]), 0).copy()] for slot in range(size)]
        for step in range(3):
            ids = [int(row[-1].argmax()) for row in rows]
            logits = decoder.decode(ids, [len(PROMPTS[slot]) + step for slot in range(size)])
            assert logits.shape == (size, VOCABULARY)
            assert logits.dtype == np.float32
            for row, values in zip(rows, logits, strict=True):
                row.append(values.copy())
        for row, expected in zip(rows, alone, strict=False):
            np.testing.assert_array_equal(row, expected)


def test_prompts_in_chunks_are_the_same_in_any_slot(decoder):
    """Steps of other slots between the chunks of a prompt do not change its logits."""
    prompt = PROMPTS[2]

    def in_parts(slot: int, between: Callable[[], object]) -> np.ndarray:
        for start in range(0, len(prompt), 16):
            logits = decoder.prefill(slot, np.array(prompt[start : start + 16]), start).copy()
            between()
        return logits

    alone = in_parts(0, lambda: None)
    decoder.prefill(0, np.array([3, 4]), 0)
    beside = in_parts(1, lambda: decoder.decode([7], [2]))
    np.testing.assert_array_equal(alone, beside)
    whole = decoder.prefill(0, np.array(prompt), 0)
    assert np.abs(whole - alone).max() < 0.1 * np.ptp(whole)


def test_scores_prompts_where_the_graph_has_logits_of_all_tokens(decoder, kind):
    """Scores are the logits of shorter prompts, also in chunks, and later logits are the same as without scores."""
    assert decoder.scores_prompts == (kind != "pruned")
    if kind == "pruned":
        return
    prompt = np.array(PROMPTS[2])
    parts = [decoder.score(1, prompt[:24], 0), decoder.score(1, prompt[24:], 24)]
    for read, row in enumerate(np.concatenate(parts), 1):
        np.testing.assert_allclose(row, decoder.prefill(0, prompt[:read], 0), atol=0.05)
    after = decoder.prefill(1, np.array([7]), len(prompt)).copy()
    decoder.prefill(0, prompt[:24], 0)
    decoder.prefill(0, prompt[24:], 24)
    np.testing.assert_array_equal(after, decoder.prefill(0, np.array([7]), len(prompt)))


def test_moves_sequence_to_another_slot(decoder):
    """A sequence that is moved to the slot of an ended one continues with the same logits."""
    expected = generated(decoder, PROMPTS[2], 3)
    for slot, prompt in enumerate([PROMPTS[0], PROMPTS[3], PROMPTS[2]]):
        logits = decoder.prefill(slot, np.array(prompt), 0).copy()
    decoder.release(1, len(PROMPTS[3]))
    decoder.move(2, 1, len(PROMPTS[2]))
    decoder.release(2, len(PROMPTS[2]))
    step = decoder.decode([4, int(logits.argmax())], [len(PROMPTS[0]), len(PROMPTS[2])])
    np.testing.assert_array_equal(step[1], expected[1])


def test_uses_released_slot_again(decoder):
    """Nothing is left of the earlier sequence, and the other slot keeps its own."""
    expected = generated(decoder, PROMPTS[4], 3)
    decoder.prefill(0, np.array(PROMPTS[2]), 0)
    first = decoder.prefill(1, np.array(PROMPTS[4]), 0).copy()
    decoder.release(0, len(PROMPTS[2]))
    decoder.prefill(0, np.array(PROMPTS[0]), 0)
    step = decoder.decode([1, int(first.argmax())], [len(PROMPTS[0]), len(PROMPTS[4])])
    np.testing.assert_array_equal(step[1], expected[1])


def test_sizes_are_those_of_file_and_settings(decoder, kind):
    """Slots, context, vocabulary, bytes of a token and of the cache."""
    assert (decoder.slots, decoder.context_length, decoder.vocabulary_size) == (SLOTS, CONTEXT, VOCABULARY)
    # Two layers with keys and values of two heads of 16.
    assert decoder.cache_bytes_per_token == 2 * 2 * 2 * 16 * (2 if kind == "fp16" else 4)
    assert decoder.cache_bytes >= SLOTS * CONTEXT * decoder.cache_bytes_per_token
    assert decoder.providers == ("CPUExecutionProvider",)
    assert not decoder.on_accelerator
    assert decoder.defaults.end_token_ids == (1,)


def test_context_is_limited_by_the_settings(tiny):
    """The context is the shorter one of the model's and the setting's."""
    assert opened(tiny, max_context_tokens=100).context_length == 100
    assert opened(tiny, max_context_tokens=100_000).context_length == CONTEXT


def test_logits_of_all_tokens_if_the_projection_is_not_recognised(tmp_path, caplog):
    """The answers are the same; the log has it, because long prompts take longer."""
    path = write_tiny_decoder(tmp_path, tokenizer=False)
    expected = generated(opened(path), PROMPTS[2], 4)
    decoder_forms.flatten_head(path)
    with caplog.at_level(logging.INFO):
        decoder = opened(path)
    assert "no projection to the vocabulary was recognised" in caplog.text
    np.testing.assert_allclose(generated(decoder, PROMPTS[2], 4), expected, rtol=0, atol=1e-4)


def test_logits_of_all_tokens_if_the_edited_graph_has_others(tiny, caplog):
    """A trial run detects a wrong edit, and the unedited file is used."""
    form = read_decoder(tiny)
    expected = generated(opened(tiny), PROMPTS[2], 4)
    wrong = next(node.outputs[0] for node in form.file.graph.nodes if node.operator == "MatMul")
    decoder = opened(tiny, dataclasses.replace(form, projection=wrong))
    assert "computes the logits of all tokens" in caplog.text
    np.testing.assert_array_equal(generated(decoder, PROMPTS[2], 4), expected)


def test_exports_with_num_logits_to_keep_get_one(tmp_path):
    """Exports for transformers.js have an input for the number of last tokens with logits."""
    path = write_tiny_decoder(tmp_path, tokenizer=False)
    expected = generated(opened(path), PROMPTS[2], 4)
    decoder_forms.keep_some_logits(path)
    np.testing.assert_array_equal(generated(opened(path), PROMPTS[2], 4), expected)


@pytest.mark.parametrize("edit", [decoder_forms.declare_projection, decoder_forms.use_int32])
def test_other_forms_have_the_same_answers(edit, tmp_path, caplog):
    """Logits are of last tokens only although the file declares those of all tokens; ids may be INT32."""
    path = write_tiny_decoder(tmp_path, tokenizer=False)
    expected = generated(opened(path), PROMPTS[2], 4)
    edit(path)
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(generated(opened(path), PROMPTS[2], 4), expected)
    assert "logits of all tokens" not in caplog.text


def test_tensor_names_of_the_configuration(tmp_path):
    """Inputs and outputs may have other names, which genai_config.json has."""
    path = write_tiny_decoder(tmp_path, tokenizer=False)
    expected = generated(opened(path), PROMPTS[0], 4)
    decoder_forms.rename(path)
    np.testing.assert_array_equal(generated(opened(path), PROMPTS[0], 4), expected)


def test_rows_run_alone_if_the_graph_mixes_them(tmp_path):
    """Dynamic quantization has one scale for all rows, so that other rows would change the answer of one."""
    write_tiny_decoder(tmp_path, tokenizer=False)
    path = tmp_path / "dynamic.onnx"
    quantize_dynamic(tmp_path / "model.onnx", path, extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})
    form = read_decoder(path)
    assert form.mixes_rows
    decoder, mixing = opened(path, form), opened(path, dataclasses.replace(form, mixes_rows=False))
    expected = [generated(decoder, prompt, 2)[1] for prompt in PROMPTS]
    for each in (decoder, mixing):
        ids = [int(each.prefill(slot, np.array(prompt), 0).argmax()) for slot, prompt in enumerate(PROMPTS)]
        step = each.decode(ids, [len(prompt) for prompt in PROMPTS])
        assert np.array_equal(step, expected) == (each is decoder)


def test_rejects_a_cache_that_is_not_written_in_place(tiny):
    """Here the outputs of two layers are bound to each other's memory."""
    form = read_decoder(tiny)
    first, second, third, fourth = form.caches
    crossed = [
        dataclasses.replace(first, present=third.present),
        dataclasses.replace(second, present=fourth.present),
        dataclasses.replace(third, present=first.present),
        dataclasses.replace(fourth, present=second.present),
    ]
    with pytest.raises(ModelLoadError, match="does not keep its cache in place with CPUExecutionProvider"):
        opened(tiny, dataclasses.replace(form, caches=crossed))


@pytest.mark.parametrize(
    ("runtime", "duration"),
    [({}, "20"), ({"session_options": {SPIN: "50"}}, "50"), ({"allow_spinning": True}, None)],
    ids=["default", "set", "unlimited"],
)
def test_idle_threads_spin_for_a_moment(tiny, monkeypatch, runtime, duration):
    """By default for 20 µs; settings may choose another time, or no limit."""
    opened_with = []

    def spy(path, settings, *others, **options):
        opened_with.append(settings.runtime)
        return open_runtime_session(path, settings, *others, **options)

    monkeypatch.setattr(decoder_opening, "open_runtime_session", spy)
    form = read_decoder(tiny)
    open_decoder(tiny, ModelSettings.model_validate({"generation": {"max_sequences": 1}, "runtime": runtime}), form)
    assert [each.allow_spinning for each in opened_with] == [True]
    assert opened_with[0].session_options.get(SPIN) == duration


def test_stops_run_from_another_thread(tiny, monkeypatch):
    """The run fails, and the next one has the same logits as without it; without a run, a stop has no effect."""
    stops: list[Callable[[], None]] = []

    class StoppedRunner(SlotRunner):
        """A runner that is stopped before each of its first runs, once for each of ``stops``."""

        def run(self, slot, ids, past, options):
            if stops:
                stops.pop()()
            return super().run(slot, ids, past, options)

    monkeypatch.setattr(decoder_opening, "SlotRunner", StoppedRunner)
    decoder = opened(tiny)
    expected = generated(decoder, PROMPTS[0], 2)
    first = decoder.prefill(0, np.array(PROMPTS[0]), 0).copy()
    stops.append(decoder.stop_run)
    with pytest.raises(RunFailedError):
        decoder.decode([int(first.argmax())], [len(PROMPTS[0])])
    decoder.stop_run()
    np.testing.assert_array_equal(decoder.decode([int(first.argmax())], [len(PROMPTS[0])])[0], expected[1])


def test_failed_run_leaves_other_slots_as_they_are(tiny):
    """A token beyond the vocabulary fails the run, and the error does not quote it."""
    decoder = opened(tiny)
    expected = generated(decoder, PROMPTS[0], 2)
    first = decoder.prefill(0, np.array(PROMPTS[0]), 0).copy()
    with pytest.raises(RunFailedError) as failed:
        decoder.prefill(1, np.array([424_242]), 0)
    assert "424242" not in str(failed.value)
    np.testing.assert_array_equal(decoder.decode([int(first.argmax())], [len(PROMPTS[0])])[0], expected[1])


def test_closed_decoder_rejects_runs(tiny):
    """Moves and releases have no effect."""
    decoder = opened(tiny)
    decoder.close()
    with pytest.raises(SessionClosedError):
        decoder.prefill(0, np.array([1]), 0)
    decoder.move(0, 1, 3)
    decoder.release(0, 3)


def test_rejects_damaged_weights(tmp_path):
    """External weights that are missing or too short are load errors."""
    path = write_tiny_decoder(tmp_path, tokenizer=False, external_weights=True)
    weights = tmp_path / "model.onnx.data"
    os.truncate(weights, 100)
    with pytest.raises(ModelLoadError, match=r"cannot load model\.onnx"):
        opened(path)
    weights.unlink()
    with pytest.raises(ModelLoadError, match=r"weights in model\.onnx\.data: there is no such file"):
        opened(path)


def test_rejects_model_without_context_length(tmp_path):
    """Without a configuration or a rotary table, generation.max_context_tokens has to be set."""
    path = write_tiny_decoder(tmp_path, tokenizer=False, genai_config=False, position_ids=True)
    with pytest.raises(ModelLoadError, match=r"set generation\.max_context_tokens"):
        opened(path)
    assert opened(path, max_context_tokens=64).context_length == 64
    assert onnx.load(path).graph.input[2].name == "position_ids"
