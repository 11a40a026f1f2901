"""The name that a call goes by when it need not say whose it is."""

#: The principal of calls that authentication let in without knowing who calls.
ANONYMOUS = "anonymous"
