"""JSON schemas of generation requests and answers, for the description of HTTP."""

from math import inf

from inferd.api.json_schema import Schema, reference
from inferd.generation_bounds import NUMBERS

_STRING: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_BOOLEAN: Schema = {"type": "boolean"}
_IDS: Schema = {"type": "array", "items": _INTEGER}
_TEXTS: Schema = {"type": "array", "items": _STRING}


def _number(name: str) -> Schema:
    bounds = NUMBERS[name]
    least = "exclusiveMinimum" if bounds.excludes_least else "minimum"
    return {"type": "number", least: bounds.least, **({} if bounds.most == inf else {"maximum": bounds.most})}


def _object(required: tuple[str, ...], properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


#: Parameters of sampling, by the names of OpenAI and vLLM.
_SAMPLING: dict[str, Schema] = {
    "temperature": {
        **_number("temperature"),
        "description": "0 takes the most likely token. The model's default otherwise.",
    },
    "top_p": _number("top_p"),
    "top_k": {"type": "integer", "minimum": -1, "description": "0 or -1: all tokens."},
    "min_p": _number("min_p"),
    "seed": _INTEGER,
    "repetition_penalty": _number("repetition_penalty"),
    "frequency_penalty": _number("frequency_penalty"),
    "presence_penalty": _number("presence_penalty"),
    "stop": {"anyOf": [_STRING, _TEXTS], "description": "Texts that end the answer, which does not have them."},
    "stop_token_ids": _IDS,
    "ignore_eos": {**_BOOLEAN, "description": "Go on behind the model's end token."},
    "min_tokens": {"type": "integer", "minimum": NUMBERS["min_tokens"].least},
}
_MAX_TOKENS: Schema = {"type": "integer", "minimum": NUMBERS["max_tokens"].least}

#: What both kinds of requests have besides.
_COMMON: dict[str, Schema] = {
    "model": {**_STRING, "description": "A name, or a name, a colon, and a version or label."},
    "n": {"type": "integer", "minimum": 1, "maximum": 128},
    "stream": {**_BOOLEAN, "description": "Send the answer in events, the last of which is [DONE]."},
    "stream_options": _object((), {"include_usage": _BOOLEAN}),
    "priority": {"type": "integer", "minimum": 0, "description": "1 goes first; 0 is the model's default."},
    "user": _STRING,
    "return_token_ids": {**_BOOLEAN, "description": "Give the tokens of prompt and answer, as vLLM does."},
    **_SAMPLING,
}

_USAGE = _object(
    ("prompt_tokens", "completion_tokens", "total_tokens"),
    {"prompt_tokens": _INTEGER, "completion_tokens": _INTEGER, "total_tokens": _INTEGER},
)
_FINISH: Schema = {"type": ["string", "null"], "enum": ["stop", "length", None]}


def _answer(choice: Schema, **more: Schema) -> Schema:
    return _object(
        ("id", "object", "created", "model", "choices"),
        {
            "id": _STRING,
            "object": _STRING,
            "created": _INTEGER,
            "model": _STRING,
            "choices": {"type": "array", "items": choice},
            "usage": {"anyOf": [_USAGE, {"type": "null"}]},
            **more,
        },
    )


_LOGPROBS: Schema = {"type": ["object", "null"]}
_MESSAGE = _object(
    ("role", "content"),
    {
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant"]},
        "content": {
            "anyOf": [
                _STRING,
                {"type": "array", "items": _object(("type", "text"), {"type": {"const": "text"}, "text": _STRING})},
            ]
        },
        "name": _STRING,
    },
)
_MODEL = _object(
    ("id", "object", "created", "owned_by"),
    {"id": _STRING, "object": _STRING, "created": _INTEGER, "owned_by": _STRING, "max_model_len": _INTEGER},
)

#: By name.
TEXT_SCHEMAS: dict[str, Schema] = {
    "GenerateRequest": _object(
        (),
        {
            "id": _STRING,
            "text_input": _STRING,
            "input_ids": {**_IDS, "description": "The prompt as token ids, in place of text_input."},
            "stream": _BOOLEAN,
            "sampling_parameters": {**_STRING, "description": "JSON, in place of the parameters."},
            "exclude_input_in_output": _BOOLEAN,
            "return_finish_reason": _BOOLEAN,
            "return_cumulative_logprob": _BOOLEAN,
            "return_logprobs": _BOOLEAN,
            "return_num_input_tokens": _BOOLEAN,
            "return_num_output_tokens": _BOOLEAN,
            "parameters": {"type": "object", "description": "Any of the others, but for id."},
            "max_tokens": _MAX_TOKENS,
            "logprobs": _INTEGER,
            **_SAMPLING,
        },
    ),
    "GenerateResponse": _object(
        ("model_name", "model_version"),
        {"model_name": _STRING, "model_version": _STRING, "id": _STRING, "text_output": _STRING},
    ),
    "CompletionRequest": _object(
        ("model", "prompt"),
        {
            "prompt": {"anyOf": [_STRING, _TEXTS, _IDS, {"type": "array", "items": _IDS}]},
            "max_tokens": {"type": "integer", "minimum": 0, "default": 16},
            "logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
            "echo": {**_BOOLEAN, "description": "With logprobs, those of the prompt too; max_tokens may be 0 then."},
            **_COMMON,
        },
    ),
    "Completion": _answer(
        _object(
            ("index", "text", "finish_reason"),
            {
                "index": _INTEGER,
                "text": _STRING,
                "logprobs": _LOGPROBS,
                "finish_reason": _FINISH,
                "token_ids": _IDS,
                "prompt_token_ids": _IDS,
            },
        )
    ),
    "ChatCompletionRequest": _object(
        ("model", "messages"),
        {
            "messages": {"type": "array", "items": _MESSAGE, "minItems": 1},
            "max_completion_tokens": _MAX_TOKENS,
            "max_tokens": _MAX_TOKENS,
            "logprobs": _BOOLEAN,
            "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
            **_COMMON,
        },
    ),
    "ChatCompletion": _answer(
        _object(
            ("index", "finish_reason"),
            {
                "index": _INTEGER,
                "message": {"type": "object", "description": "All of it."},
                "delta": {"type": "object", "description": "In events: a piece."},
                "logprobs": _LOGPROBS,
                "finish_reason": _FINISH,
                "token_ids": _IDS,
            },
        ),
        prompt_token_ids=_IDS,
    ),
    "LanguageModel": _MODEL,
    "LanguageModels": _object(
        ("object", "data"), {"object": _STRING, "data": {"type": "array", "items": reference("LanguageModel")}}
    ),
    "OpenAiError": _object(
        ("error",),
        {
            "error": _object(
                ("message", "type", "param", "code"),
                {
                    "message": _STRING,
                    "type": _STRING,
                    "param": {"type": ["string", "null"], "description": "The path of the invalid field."},
                    "code": {"type": ["string", "null"]},
                    "retry_after_ms": {"type": "integer", "minimum": 0},
                },
            )
        },
    ),
}
