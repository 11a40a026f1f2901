"""Read the messages of a chat into the form that chat templates use."""

from collections.abc import Mapping, Sequence

from inferd.api.json_messages import kind_of
from inferd.api.openai.errors import invalid, unsupported
from inferd.api.openai.members import Members

#: Roles, and what templates call them.
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
#: Members of OpenAI's answers, which clients send back with the chat.
_OF_ANSWERS = ("refusal", "tool_calls", "function_call", "audio", "annotations")
#: Types of the parts of a content, and the member with the text.
_TEXTS = {"text": "text", "refusal": "refusal"}


def read_messages(members: Members) -> Sequence[Mapping[str, str]]:
    """Return the messages in ``members``. Raises `InvalidInputError`."""
    value, path = members.value("messages"), members.path_of("messages")
    if not isinstance(value, list):
        raise invalid(path, f"expected an array of messages, got {kind_of(value)}")
    return [_message(each, f"{path}[{index}]") for index, each in enumerate(value)]


def _message(value: object, path: str) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise invalid(path, f"expected an object, got {kind_of(value)}")
    members = Members(value, path)
    given = members.text("role")
    if given in ("tool", "function"):
        raise unsupported(members.path_of("role"), f'expected no role "{given}": inferd does not call tools')
    role = _ROLES.get(given or "")
    if role is None:
        got = "none" if given is None else "another"
        raise invalid(members.path_of("role"), f"expected one of {', '.join(_ROLES)}, got {got}")
    for each in _OF_ANSWERS:
        members.refuse(each, "expected none: messages are text", unless=lambda value: value == [])
    message = {"role": role, "content": _content(members)}
    name = members.text("name")
    if name is not None:
        message["name"] = name
    members.end()
    return message


def _content(members: Members) -> str:
    value, path = members.value("content"), members.path_of("content")
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise invalid(path, f"expected a string or an array of parts, got {kind_of(value)}")
    return "\n".join(_part(each, f"{path}[{index}]") for index, each in enumerate(value))


def _part(value: object, path: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        raise invalid(path, f"expected an object, got {kind_of(value)}")
    members = Members(value, path)
    name = _TEXTS.get(members.text("type") or "")
    if name is None:
        raise unsupported(members.path_of("type"), "expected text: inferd takes no images, audio or files")
    text = members.text(name)
    if text is None:
        raise invalid(members.path_of(name), "expected a string, got none")
    members.end()
    return text
