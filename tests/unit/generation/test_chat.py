"""Chat templates: rendering, the sandbox, and the files that they are loaded from."""

import json
import logging
from datetime import UTC, datetime

import pytest

from inferd.errors import InvalidInputError
from inferd.generation import chat
from inferd.generation.chat import ChatTemplate, load_chat_template
from inferd.runtime.errors import ModelLoadError

_USER = {"role": "user", "content": "Hi <b>'you'</b>"}


def _rendered(source, messages=(_USER,), **tokens):
    return ChatTemplate(source, tokens, now=lambda: datetime(2026, 2, 3, tzinfo=UTC)).render(messages)


def _load(folder, config=None, template=None):
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return load_chat_template(folder)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "{% for m in messages %}\n  {% if m.role %}\n[{{ m['content'] }}]\n  {% endif %}\n{% endfor %}",
            "[Hi <b>'you'</b>]\n",
        ),
        ("{{ messages[0].role }}{% if add_generation_prompt %}<assistant>{% endif %}", "user<assistant>"),
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "Hi <b>\'you\'</b>"}'),
        ("{{ 'ü' | tojson }}{{ [1] | tojson(indent=1) }}", '"ü"[\n 1\n]'),
        ("{{ strftime_now('%d %b %Y') }}", "03 Feb 2026"),
        ("{% for n in range(9) %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}", "01"),
        ("a{% generation %}b{{ messages[0].role }}{% endgeneration %}c", "abuserc"),
        ("{% if tools is not none or documents %}tools{% endif %}{{ missing }}-", "-"),
        ("{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n }}", "2"),
        ("{{ bos_token }}{{ eos_token }}", "<s></s>"),
    ],
)
def test_templates_have_the_functions_of_tokenizers(source, expected):
    assert _rendered(source, bos_token="<s>", eos_token="</s>") == expected


def test_reason_of_a_template_reaches_the_caller():
    with pytest.raises(InvalidInputError, match=r"messages: .*does not take them: roles must alternate") as raised:
        _rendered("{{ raise_exception('roles must alternate') }}")
    assert raised.value.field == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('id') }}",
        "{% include '/etc/passwd' %}",
        "{% for n in range(10 ** 9) %}{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ messages[0].missing.deeper }}",
        "{{ none.x() }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ],
)
def test_failing_and_unsafe_templates_are_an_error_without_details(source):
    with pytest.raises(InvalidInputError) as raised:
        _rendered(source)
    assert raised.value.message == "messages: the model's chat template fails on them"


def test_output_is_bounded():
    with pytest.raises(InvalidInputError, match="writes far more"):
        _rendered("{% for n in range(99999) %}{{ messages[0].content }}{% endfor %}")
    long = {"role": "user", "content": "x" * 1_000_000}
    assert len(_rendered("{{ messages[0].content }}{{ messages[0].content }}", [long])) == 2_000_000


def test_messages_of_callers_are_not_rendered_as_templates():
    assert _rendered("{{ messages[0].content }}", [{"role": "user", "content": "{{ 7 * 7 }}"}]) == "{{ 7 * 7 }}"


def test_loads_the_template_of_the_config(tmp_path):
    config = {
        "chat_template": "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ messages[0].role }}",
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "special": True},
        "pad_token": None,
        "model_max_length": 12,
    }
    assert _load(tmp_path, config).render([_USER]) == "<s>|</s>||user"


def test_template_file_overrides_that_of_the_config(tmp_path):
    config = {"chat_template": "no", "bos_token": "<s>"}
    assert _load(tmp_path, config, "{{ bos_token }}yes").render([_USER]) == "<s>yes"


def test_of_several_named_templates_the_default_is_used(tmp_path):
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    assert _load(tmp_path, {"chat_template": named}).render([_USER]) == "yes"
    assert _load(tmp_path, {"chat_template": named[:1]}).render([_USER]) == "no"
    other = [named[0], {"name": "rag", "template": "no"}]
    assert _load(tmp_path, {"chat_template": other}) is None


def test_model_without_template_takes_no_chats(tmp_path):
    assert load_chat_template(tmp_path) is None
    assert _load(tmp_path, {"bos_token": "<s>"}) is None


@pytest.mark.parametrize("source", ["a\n{% if %}", "{{ x | no_such_filter }}", "{% for %}"])
def test_template_that_cannot_be_compiled_is_logged_with_its_line(tmp_path, caplog, source):
    with caplog.at_level(logging.WARNING):
        assert _load(tmp_path, template=source) is None
    assert f"chat template, line {source.count(chr(10)) + 1}" in caplog.text


def test_server_without_the_package_takes_no_chats(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(chat, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert _load(tmp_path, template="x") is None
    assert "inferd[text]" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "expected JSON"), (b"[]", "expected an object, got list"), (b"\xff", "expected UTF-8 text")],
)
def test_config_that_cannot_be_read_is_an_error_of_the_load(tmp_path, content, message):
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(ModelLoadError, match=f"tokenizer_config.json: {message}"):
        load_chat_template(tmp_path)


def test_directory_in_place_of_a_file_is_an_error_of_the_load(tmp_path):
    (tmp_path / "chat_template.jinja").mkdir()
    with pytest.raises(ModelLoadError, match=r"chat_template.jinja: "):
        load_chat_template(tmp_path)
