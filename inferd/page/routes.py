"""The operations of the status page: their names, as in metrics, logs and rules."""

INDEX = "GET /"
FILE = "GET /page/files/{file}"
STATUS = "GET /page/status"
HISTORY = "GET /page/models/{model}/history"
EXAMPLE = "GET /page/models/{model}/example"
LABELS = "POST /page/models/{model}/labels"

OPERATIONS = (INDEX, FILE, STATUS, HISTORY, EXAMPLE, LABELS)
