"""OpenAI's own client, in its own environment, against a server with a tiny language model; fails by an assertion.

The arguments are the server's address and a token. Prints a line for each check that held.
"""

import asyncio
import sys

import openai

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


def text_of(chunks):
    """Return the text of a streamed chat."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def check_models(client):
    """Listed, and one by one."""
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "inferd"


def check_chat(client):
    """Whole, as a stream, by the helper for streams, and with the raw answer."""
    whole = client.chat.completions.create(model="tiny", messages=HELLO, max_completion_tokens=9)
    (choice,) = whole.choices
    assert (choice.message.role, choice.finish_reason) == ("assistant", "length")
    assert whole.usage.completion_tokens == 9
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = client.chat.completions.create(model="tiny", messages=HELLO, max_completion_tokens=9, **options)
    assert text_of(chunks) == choice.message.content
    assert last.usage == whole.usage
    with client.chat.completions.stream(model="tiny", messages=HELLO, max_completion_tokens=9) as stream:
        for _ in stream:
            pass
        assert stream.current_completion_snapshot.choices[0].message.content == choice.message.content
    raw = client.chat.completions.with_raw_response.create(model="tiny", messages=HELLO, max_completion_tokens=1)
    assert raw.headers["content-type"] == "application/json"


def check_completions(client):
    """Several prompts and choices, and the log probabilities of both kinds."""
    several = client.completions.create(model="tiny", prompt=["a", "b"], n=2, max_tokens=5, echo=True)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert [choice.text[0] for choice in several.choices] == ["a", "a", "b", "b"]
    stream = client.completions.create(model="tiny", prompt="a", max_tokens=5, stream=True)
    assert "a" + "".join(chunk.choices[0].text for chunk in stream) == several.choices[0].text
    scored = client.completions.create(model="tiny", prompt=[5, 6], max_tokens=5, logprobs=2)
    assert len(scored.choices[0].logprobs.token_logprobs) == 5
    chat = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=5, logprobs=True, top_logprobs=3, temperature=0.5, seed=1
    )
    assert [len(token.top_logprobs) for token in chat.choices[0].logprobs.content] == [3] * 5


def check_extra_parameters(client):
    """Those of vLLM, which the client passes on."""
    body = {"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.1, "ignore_eos": True, "min_tokens": 3}
    asked = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=5, temperature=1, stop=["\n\n"], user="me", extra_body=body
    )
    assert asked.usage.completion_tokens == 5


def refused(kind, call, **request):
    """Return the error of ``kind`` that a request gets."""
    try:
        call(**{"model": "tiny", "messages": HELLO, **request})
    except kind as error:
        return error
    raise AssertionError("the request was accepted")


def check_errors(client, address):
    """As classes of the client, with the parameter and the code."""
    create = client.chat.completions.create
    assert refused(openai.BadRequestError, create, tools=[TOOL]).param == "tools"
    assert refused(openai.BadRequestError, create, response_format={"type": "json_object"}).param == "response_format"
    assert refused(openai.BadRequestError, create, temperature=7).param == "temperature"
    assert refused(openai.BadRequestError, create, max_tokens=100_000).code == "context_length_exceeded"
    assert refused(openai.NotFoundError, create, model="nobody").code == "model_not_found"
    with openai.OpenAI(base_url=f"http://{address}/v1", api_key="wrong", max_retries=0) as unknown:
        assert refused(openai.AuthenticationError, unknown.chat.completions.create).code == "invalid_api_key"


def check_stream_that_is_closed(client):
    """Early; the client goes on."""
    with client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=200, stream=True) as stream:
        next(iter(stream))
    check_models(client)


async def check_asyncio(address, token):
    """Many at once, whole and as streams, are what one is alone."""
    async with openai.AsyncOpenAI(base_url=f"http://{address}/v1", api_key=token, max_retries=0) as client:

        async def whole(number):
            messages = [{"role": "user", "content": f"Tell me about {number}"}]
            answer = await client.chat.completions.create(model="tiny", messages=messages, max_tokens=20)
            return answer.choices[0].message.content

        async def streamed(number):
            messages = [{"role": "user", "content": f"Tell me about {number}"}]
            stream = await client.chat.completions.create(model="tiny", messages=messages, max_tokens=20, stream=True)
            return text_of([chunk async for chunk in stream])

        numbers = range(8)
        together = await asyncio.gather(*map(whole, numbers), *map(streamed, numbers))
        assert together == [await whole(number) for number in numbers] * 2
        assert len(set(together)) == len(numbers)


def main(address, token):
    """Run all checks."""
    with openai.OpenAI(base_url=f"http://{address}/v1", api_key=token, max_retries=0) as client:
        for check in (check_models, check_chat, check_completions, check_extra_parameters, check_stream_that_is_closed):
            check(client)
            sys.stdout.write(f"{check.__name__} held\n")
        check_errors(client, address)
        sys.stdout.write("check_errors held\n")
    asyncio.run(check_asyncio(address, token))
    sys.stdout.write("check_asyncio held\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
