"""OpenAI's endpoints for models, completions and chats, on the server's language models."""
