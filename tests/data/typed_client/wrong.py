"""What a type checker has to find: each line that ends with a comment is wrong in the way that it says."""

from inferd.client import Client, InferdError


def wrong(client: Client) -> int:
    """Use the client as it cannot be used."""
    result = client.infer("digits", {"X": [1.0]}, time_out=1)  # call-arg
    client.infer(3, {})  # arg-type
    client.infer("digits", {}, timeout_s="1")  # arg-type
    result["label"] = 1  # index
    len(result.lable)  # attr-defined
    for item in client.stream("digits", [{"X": object()}]):  # dict-item
        item.outcome["label"]  # index
    client.infer_all("digits")  # attr-defined
    client.generate("story", "Once", max_token=8)  # call-arg
    client.chat("story", "Once", temperature="hot")  # arg-type
    failed: InferdError = result  # assignment
    return failed.message  # return-value
