"""A TCP server that answers as examples-c/server.c does, but everybody at the same time, and who says nothing is in nobody's way.

Prints "PORT <port>" of 127.0.0.1.
"""

import socket
import threading
import time


def serve(peer):
    try:
        if peer.recv(4096):
            peer.sendall(b"Hello, how are you?")
            # Some versions of i2pd lose what is written right before the end.
            time.sleep(1)
    except OSError:
        pass
    peer.close()


listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print("PORT %d" % listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
