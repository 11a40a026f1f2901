"""Asks a model by OpenAI's own client, in the client's own environment; fails by an assertion.

Arguments: the server's address, the model, and the messages in JSON.
"""

import asyncio
import json
import sys

import openai

TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


def check_blocking(client, model, question):
    """Whole and as it comes, with the usage; and a text to continue."""
    whole = client.chat.completions.create(model=model, messages=question, temperature=0)
    assert "Paris" in whole.choices[0].message.content
    assert whole.choices[0].finish_reason == "stop"
    chunks = list(
        client.chat.completions.create(
            model=model, messages=question, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(text_of(chunk) for chunk in chunks) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    continued = client.completions.create(model=model, prompt="The capital of France is", max_tokens=8, temperature=0)
    assert "Paris" in continued.choices[0].text


async def check_asyncio(url, model, question):
    """The same without blocking."""
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        whole = await client.chat.completions.create(model=model, messages=question, temperature=0)
        stream = await client.chat.completions.create(model=model, messages=question, temperature=0, stream=True)
        pieces = [text_of(chunk) async for chunk in stream]
    assert "Paris" in whole.choices[0].message.content
    assert "".join(pieces) == whole.choices[0].message.content
    assert len(pieces) > 3


def check_what_is_refused(client, model):
    """Tools by name, and an unknown model."""
    assert "tools" in refusal(openai.BadRequestError, client, model=model, tools=[TOOL])
    assert "nobody" in refusal(openai.NotFoundError, client, model="nobody")


def refusal(kind, client, **request):
    """Return the message of the error that a request gets."""
    try:
        client.chat.completions.create(messages=[{"role": "user", "content": "Hello"}], **request)
    except kind as error:
        return error.message
    raise AssertionError("the request was accepted")


def text_of(chunk):
    """Return what a chunk adds."""
    return (chunk.choices[0].delta.content or "") if chunk.choices else ""


def main(address, model, messages):
    """Run all checks."""
    url = f"http://{address}/v1"
    question = json.loads(messages)
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        assert model in [each.id for each in client.models.list()]
        check_blocking(client, model, question)
        check_what_is_refused(client, model)
    asyncio.run(check_asyncio(url, model, question))


if __name__ == "__main__":
    main(*sys.argv[1:])
