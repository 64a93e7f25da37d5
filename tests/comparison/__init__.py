"""Compare the server of this working tree with the server of commit bccccaf (version 0.1): `make compare`.

Both servers run the same application in a process of their own, and receive the same conversations:

    __main__.py         starts both sides, runs the conversations, prints the differences
      conversations.py    the conversations: wire cases, generated messages, recorded conversations, each cut in several ways
        corpus.py           generated messages: mutations of the wire cases, from a seed
      client.py           one conversation over one connection
      explained.py        the differences that are intended, each with its reason
    side.py             the process of one side
      application.py      the application: reports its environ, and does everything that PEP 3333 allows and forbids

Compared are the bytes that the client receives, how the connection ends, the calls that the application receives (with the
environ and the outcome of each read), and the error log. Dates, port numbers, error numbers and the version are left out.
"""
