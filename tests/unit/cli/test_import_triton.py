"""``inferd import-triton``: verdicts on whole repositories, and the model.yaml that it writes."""

import json
import shutil

import pytest
import yaml

from inferd.config.settings import Settings
from inferd.models.repository import resolve
from inferd.models.settings import read_model_settings
from tests import onnx_models
from tests.unit.models.triton.corpus import CASES, FOLDER

TAKEN = [case for case in CASES if case.expected["served"] != "no" and "server" not in case.expected]


@pytest.fixture
def repository(tmp_path):
    """A repository as in production: an ONNX model, one for a GPU, and an ensemble of them with a Python model."""
    names = ["resnet50", "bert_large", "ensemble_text", "tokenizer_python"]
    for case in CASES:
        if case.name in names:
            case.create(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").touch()
    return tmp_path


def test_judges_each_model(inferd, repository):
    """The models that cannot be served have a reason, and make the exit code 1."""
    result = inferd("import-triton", repository)
    assert (result.exit_code, result.err) == (1, "")
    rows = [line.split()[:3] for line in result.out.splitlines()]
    assert ["resnet50", "as", "is"] in rows
    assert ["bert_large", "with", "differences"] in rows
    assert ["ensemble_text", "no", "config.pbtxt:"] in rows
    assert "tokenizers and image decoders" in result.out
    assert "4 models: 1 as is, 1 with differences, 2 cannot be served." in result.out
    assert not list(repository.rglob("model.yaml"))


def test_succeeds_if_all_can_be_served(inferd, repository):
    """One directory of a model is enough."""
    result = inferd("import-triton", repository / "resnet50")
    assert (result.exit_code, result.err) == (0, "")
    assert "1 model: 1 as is, 0 with differences, 0 cannot be served." in result.out


def test_prints_json(inferd, repository):
    """With the settings that each configuration becomes."""
    models = {each["model"]: each for each in json.loads(inferd("import-triton", repository, "--json").out)}
    assert models["resnet50"]["settings"]["batching"] == {"max_batch_size": 128, "enabled": False}
    assert models["bert_large"]["differences"] == [
        "instance_group KIND_GPU: where no GPU is found, the model runs on the CPU"
    ]
    assert models["ensemble_text"]["served"] == "no"
    assert models["ensemble_text"]["reason"].startswith('config.pbtxt: platform "ensemble"')


@pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.name)
def test_writes_what_the_configuration_says(inferd, tmp_path, case):
    """The model.yaml alone makes the same settings as the config.pbtxt alone."""
    folder = case.create(tmp_path)
    (from_triton,) = {read_model_settings(Settings(), source).model_dump_json() for source in resolve([folder])}
    assert inferd("import-triton", folder, "--write").exit_code == 0
    (folder / "config.pbtxt").unlink()
    (written,) = {read_model_settings(Settings(), source).model_dump_json() for source in resolve([folder])}
    assert written == from_triton


def test_keeps_settings_that_are_there(inferd, repository):
    """A model.yaml is replaced only with --force; the other models get theirs."""
    mine = repository / "resnet50" / "model.yaml"
    mine.write_text("batching: {max_batch_size: 2}\n")
    result = inferd("import-triton", repository, "--write")
    assert result.exit_code == 1
    assert result.err == f"inferd: kept, as --force is not given: {mine}\n"
    assert mine.read_text() == "batching: {max_batch_size: 2}\n"
    written = (repository / "bert_large" / "model.yaml").read_text()
    assert written.startswith("# Written by inferd import-triton from config.pbtxt")
    assert "# instance_group KIND_GPU: where no GPU is found, the model runs on the CPU\n" in written
    inferd("import-triton", repository, "--write", "--force")
    assert yaml.safe_load(mine.read_text())["batching"]["max_batch_size"] == 128
    assert not (repository / "ensemble_text" / "model.yaml").exists()


def test_takes_models_without_configuration(inferd, tmp_path):
    """The server's settings hold for them, so there are none to write; files of other backends are named."""
    onnx_models.save(onnx_models.linear(), tmp_path / "plain" / "1" / "model.onnx")
    (tmp_path / "torch" / "1").mkdir(parents=True)
    (tmp_path / "torch" / "1" / "model.pt").touch()
    models = {each["model"]: each for each in json.loads(inferd("import-triton", tmp_path, "--json", "--write").out)}
    assert models["plain"]["served"] == "with differences"
    assert models["plain"]["settings"] == {}
    (difference,) = models["plain"]["differences"]
    assert "all versions, and batches of up to 64 rows" in difference
    assert not (tmp_path / "plain" / "model.yaml").exists()
    assert models["torch"]["reason"].startswith("1/model.pt: only ONNX models are served: export it to ONNX")


def test_reads_the_servers_settings(inferd, tmp_path):
    """Libraries of custom operators are allowed by the server's settings only."""
    case = next(case for case in CASES if case.name == "tokenizer_ops")
    folder = case.create(tmp_path)
    assert "runtime.custom_ops" in inferd("import-triton", folder).out
    config = tmp_path / "inferd.yaml"
    config.write_text("runtime: {custom_ops: [onnxruntime-extensions]}\n")
    assert inferd("import-triton", folder, "--config", config).exit_code == 0


def test_names_what_is_no_repository(inferd, tmp_path):
    """An empty directory has no models, and a missing one is a mistake in the arguments."""
    result = inferd("import-triton", tmp_path)
    assert (result.exit_code, result.out) == (1, "")
    assert result.err == (
        f"inferd: {tmp_path}: expected directories with config.pbtxt or VERSION/model.onnx, found none\n"
    )
    assert inferd("import-triton", tmp_path / "missing").exit_code == 2


def test_escapes_names(inferd, tmp_path):
    """Texts of a configuration do not reach the terminal as they are."""
    folder = tmp_path / "model"
    shutil.copytree(FOLDER / "other_name", folder)
    (folder / "config.pbtxt").write_text('name: "\\033[31mred"')
    result = inferd("import-triton", folder)
    assert result.exit_code == 1
    assert "\033" not in result.out


def test_language_model(inferd, tmp_path):
    """A config.pbtxt of the vLLM backend is taken beside what onnxruntime-genai's builder has written."""
    version = tmp_path / "lm" / "1"
    version.mkdir(parents=True)
    (tmp_path / "lm" / "config.pbtxt").write_text('backend: "vllm"\nmodel_transaction_policy { decoupled: true }\n')
    (version / "model.json").touch()
    refused = inferd("import-triton", tmp_path)
    assert refused.exit_code == 1
    assert "onnxruntime-genai's builder" in " ".join(refused.out.split())
    for name in ("decoder.onnx", "embedding.onnx", "genai_config.json"):
        (version / name).touch()
    taken = inferd("import-triton", tmp_path)
    assert (taken.exit_code, taken.err) == (0, "")
    assert "1 model: 1 as is" in taken.out
