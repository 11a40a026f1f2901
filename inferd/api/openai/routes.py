"""The operations of OpenAI's API: their names in metrics, logs and rules, and their paths."""

from collections.abc import Mapping

MODELS = "GET /v1/models"
MODEL = "GET /v1/models/{model}"
COMPLETIONS = "POST /v1/completions"
CHAT_COMPLETIONS = "POST /v1/chat/completions"

OPERATIONS = (MODELS, MODEL, COMPLETIONS, CHAT_COMPLETIONS)

#: The template of the path of each operation.
PATHS: Mapping[str, str] = {each: each.partition(" ")[2] for each in OPERATIONS}

#: The first segment of all paths; errors below it have OpenAI's form.
PREFIX = "v1"

_TEXT = "inferd generates text only: use /v1/chat/completions or /v1/completions"

#: Paths of OpenAI that inferd does not serve, with the hint for callers.
ABSENT: Mapping[str, str] = {
    "/v1/responses": "inferd keeps no conversations: use /v1/chat/completions",
    "/v1/embeddings": "use /v2/models/{model}/infer for embedding models",
    "/v1/moderations": "use /v2/models/{model}/infer for models that classify",
    "/v1/images/generations": _TEXT,
    "/v1/audio/speech": _TEXT,
    "/v1/audio/transcriptions": _TEXT,
    "/v1/files": "inferd keeps no files",
    "/v1/batches": "inferd keeps no batches: send requests at the same time, which run together",
}
